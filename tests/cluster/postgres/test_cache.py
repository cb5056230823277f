from __future__ import annotations

import os
import threading

import pytest

from aurora_router_cluster.postgres import cache


def test_the_variable_decides(account, run_directory, monkeypatch):
    monkeypatch.setenv(cache.VARIABLE, str(run_directory / "mine"))
    assert cache.directory(account) == run_directory / "mine"


def test_xdg_is_honoured_where_the_account_may_enter_it(account, run_directory, monkeypatch):
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(run_directory))
    assert cache.directory(account) == run_directory / "aurora-router"


@pytest.mark.skipif(os.geteuid() != 0, reason="the account is another user only for root")
def test_a_closed_place_is_passed_over_and_named(account, run_directory, monkeypatch):
    closed = run_directory / "closed"
    closed.mkdir(mode=0o700)
    monkeypatch.setenv(cache.VARIABLE, str(closed / "cache"))
    with pytest.raises(PermissionError, match=f"may not enter {closed}"):
        cache.directory(account)


def test_it_is_built_once_and_complete_or_not_at_all(run_directory):
    target = run_directory / "thing"
    calls = []

    def build(staging):
        calls.append(staging)
        (staging / "file").write_text("x")
        assert not target.exists()

    def run():
        assert cache.build_once(target, build) == target

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert (target / "file").read_text() == "x"


def test_a_failed_build_leaves_nothing(run_directory):
    def build(staging):
        (staging / "file").write_text("x")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cache.build_once(run_directory / "thing", build)
    assert [path.name for path in run_directory.iterdir()] == [".thing.lock"]


def test_what_a_killed_builder_left_is_removed(run_directory):
    leftover = run_directory / ".thing.build-abc"
    leftover.mkdir()
    cache.build_once(run_directory / "thing", lambda staging: None)
    assert not leftover.exists()


def test_what_nobody_asked_for_in_a_long_time_is_pruned(run_directory):
    for name in ("old", "used", "new"):
        cache.build_once(run_directory / name, lambda staging: None)
    for name in ("old", "used"):
        os.utime(run_directory / name, (1.0, 1.0))
    cache.build_once(run_directory / "used", lambda staging: None)
    assert cache.prune(run_directory) == ["old"]
    assert sorted(path.name for path in run_directory.iterdir()) == [".new.lock", ".used.lock", "new", "used"]
