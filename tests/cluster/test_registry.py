from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
import time
from pathlib import Path

import pytest

from aurora_router_cluster import registry
from aurora_router_cluster.errors import ClusterRunningError, DirectoryError, SupervisorError, explain_os_error


@pytest.fixture(autouse=True)
def state(monkeypatch, run_directory):
    monkeypatch.setenv(registry.VARIABLE, str(run_directory / "state"))
    return run_directory / "state"


def test_a_look_at_the_lock_is_not_taken_for_a_supervisor():
    """Another process lists the clusters just when one is claimed."""
    place = registry.ClusterDirectory("demo")
    place.path.mkdir(parents=True, mode=0o700)
    place.path.parent.chmod(0o700)
    look = os.open(place.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(look, fcntl.LOCK_SH)
    looking = threading.Timer(0.02, os.close, [look])
    looking.start()
    place.claim()
    looking.join()
    assert registry.running() == ["demo"]
    place.release()


def test_a_claimed_home_is_running_and_closed_to_others():
    place = registry.ClusterDirectory("demo")
    place.claim()
    assert registry.running() == ["demo"]
    assert stat.S_IMODE(place.path.stat().st_mode) == 0o700
    place.release()
    assert registry.running() == []
    assert not place.path.exists()


def test_a_second_claim_is_refused_and_says_what_to_do():
    place = registry.ClusterDirectory("demo")
    place.claim()
    with pytest.raises(ClusterRunningError, match="cluster down --name demo"):
        registry.ClusterDirectory("demo").claim()
    place.release()


def test_what_a_killed_supervisor_left_is_swept(run_directory, account):
    run = registry.make_run_directory(run_directory, 1, account)
    (run / "demo-1").mkdir()
    dead = registry.ClusterDirectory("dead")
    dead.claim()
    dead.record(run)
    os.close(dead._lock)  # as its death would
    alive = registry.ClusterDirectory("alive")
    alive.claim()
    alive.record(run_directory / "aurora-other")
    assert registry.sweep_leftovers() == ["dead"]
    assert not run.exists()
    assert not dead.path.exists()
    assert alive.path.exists()
    alive.release()


def test_what_still_writes_to_a_run_directory_does_not_keep_it(run_directory, account):
    """A copy that still runs in a thread: files appear while they are deleted."""
    run = registry.make_run_directory(run_directory, 1, account)
    begun = threading.Event()

    def copy():
        for number in range(60):
            (run / "demo-1" / f"part-{number}").mkdir(parents=True, exist_ok=True)
            begun.set()
            time.sleep(0.005)

    copying = threading.Thread(target=copy)
    copying.start()
    begun.wait()
    assert registry.sweep(run)
    copying.join()
    assert registry.sweep(run)
    assert not run.exists()


def test_what_cannot_be_deleted_stays_registered(run_directory, account, monkeypatch):
    run = registry.make_run_directory(run_directory, 1, account)
    (run / "demo-1").mkdir()
    place = registry.ClusterDirectory("demo")
    place.claim()
    place.record(run)
    with monkeypatch.context() as refused:
        refused.setattr(registry.shutil, "rmtree", lambda *_, **__: None)
        assert place.release() == [run]
        assert registry.sweep_leftovers() == []  # it tries, and keeps it
        again = registry.ClusterDirectory("demo")
        again.claim()
        again.record(registry.make_run_directory(run_directory, 1, account))
        os.close(again._lock)  # as its death would
    assert registry.running() == []
    assert registry.sweep_leftovers() == ["demo"]
    assert [path.name for path in run_directory.iterdir()] == ["state"]
    assert str(run) in registry.explain_left([run])


def test_looking_makes_nothing(state):
    assert registry.running() == []
    assert registry.sweep_leftovers() == []
    assert registry.ClusterDirectory("demo").path == state / "demo"
    assert not state.exists()


def test_a_relative_state_directory_is_refused(monkeypatch):
    monkeypatch.setenv(registry.VARIABLE, "some/where")
    with pytest.raises(SupervisorError, match=r"AURORA_ROUTER_STATE=some/where is a relative path.*absolute"):
        registry.running()


def test_a_record_that_points_elsewhere_deletes_nothing(run_directory):
    precious = run_directory / "precious"
    precious.mkdir()
    place = registry.ClusterDirectory("demo")
    place.claim()
    (place.path / "cluster.json").write_text(json.dumps({"run": str(precious)}))
    place.release()
    assert precious.exists()


def test_somebody_else_s_state_is_refused(monkeypatch, state):
    state.mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(SupervisorError, match="belongs to another user"):
        registry.state_directory()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_state_directory_that_others_may_write_is_refused(state, mode):
    state.mkdir()
    state.chmod(mode)
    with pytest.raises(SupervisorError, match=f"others may write to the state directory .*mode 0{mode:o}.*chmod go-w"):
        registry.state_directory()
    state.chmod(0o755)
    assert registry.state_directory() == state


def test_a_state_directory_that_is_a_file_is_a_sentence(state):
    state.write_text("a file")
    with pytest.raises(SupervisorError, match=f"{state} is not a directory; set AURORA"):
        registry.running()


def test_a_state_directory_that_cannot_be_made_is_a_sentence(monkeypatch, run_directory):
    monkeypatch.setenv(registry.VARIABLE, str(run_directory / "below"))
    monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EROFS, "Read-only")))
    with pytest.raises(SupervisorError, match=r"state directory .*/below.* cannot be made .Read-only.; set AURORA"):
        registry.ClusterDirectory("demo").claim()


def test_the_runtime_directory_of_another_user_is_not_used(monkeypatch, run_directory):
    monkeypatch.delenv(registry.VARIABLE)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run_directory))
    assert registry.state_directory() == run_directory / registry.FOLDER
    monkeypatch.setattr(registry, "_is_own", lambda _: False)
    assert registry.state_directory() == Path(f"/tmp/aurora-router-{os.getuid()}")


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ("nowhere", "nowhere .--directory. cannot be used: No such file or directory; make it first"),
        ("file", "file .--directory. is not a directory"),
        ("x" * 90, "sockets below .* would have paths of .* bytes, and this system allows"),
        ("closed/inner", "cannot be reached by the user .*chmod o.x .*/closed"),
    ],
)
def test_a_directory_for_the_instances_that_will_not_do_is_a_sentence(run_directory, account, place, complaint):
    (run_directory / "file").touch()
    (run_directory / ("x" * 90)).mkdir()
    (run_directory / "closed" / "inner").mkdir(parents=True)
    (run_directory / "closed").chmod(0o700)
    if not account.switch and place.startswith("closed"):
        pytest.skip("the user runs PostgreSQL itself")
    with pytest.raises(DirectoryError, match=complaint):
        registry.make_run_directory(run_directory / place, 1, account)


def test_an_error_of_the_operating_system_is_a_sentence():
    full = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    assert (
        explain_os_error(full)
        == "/data/x: No space left on device; free some room, or name a directory on another disk (--data, --directory)"
    )
    assert explain_os_error(OSError("a sentence of ours")) == "a sentence of ours"


@pytest.mark.parametrize("key", ["", "..", "../other", "/etc"])
def test_a_name_leads_nowhere_else(key):
    with pytest.raises(SupervisorError, match="cannot be a cluster's name"):
        registry.ClusterDirectory(key)


def test_without_a_name_it_is_one_for_each_directory(monkeypatch, tmp_path):
    monkeypatch.delenv(registry.NAME_VARIABLE, raising=False)
    here = registry.default_key()
    monkeypatch.chdir(tmp_path)
    assert registry.default_key() not in {here, "demo"}
    tmp_path.rmdir()
    assert registry.default_key() not in {here, "demo"}
    monkeypatch.setenv(registry.NAME_VARIABLE, "shared")
    assert registry.default_key() == "shared"


def test_a_path_too_long_for_a_socket_is_named(monkeypatch, run_directory):
    monkeypatch.setenv(registry.VARIABLE, str(run_directory / ("x" * 100)))
    with pytest.raises(SupervisorError, match="too long for a Unix socket"):
        registry.ClusterDirectory("demo")


def test_the_run_directory_can_be_passed_through_but_not_listed(run_directory, account):
    run = registry.make_run_directory(run_directory, 3, account)
    assert stat.S_IMODE(run.stat().st_mode) == 0o711
    assert run.parent == run_directory
