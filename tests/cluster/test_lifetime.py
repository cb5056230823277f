"""A cluster ends with its owner and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster, errors, registry
from aurora_router_cluster.postgres import processes

pytestmark = pytest.mark.cluster


def leftovers(run: Path) -> list[int]:
    return [pid for pid in processes.in_directory(run) if not processes.is_zombie(pid)]


def run_of(cluster) -> Path:
    return Path(cluster.instances[0].socket_directory).parent


def gone(run, key) -> bool:
    return not run.exists() and not leftovers(run) and not (registry.state_directory() / key).exists()


def test_close_leaves_no_process_and_no_file():
    with LocalCluster.start(readers=1) as cluster:
        run, key = run_of(cluster), cluster.key
        assert leftovers(run)
    assert gone(run, key)
    cluster.close()


def test_an_error_inside_the_block_ends_it_too():
    seen = []

    def fail():
        with LocalCluster.start(readers=0) as cluster:
            seen.extend((run_of(cluster), cluster.key))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert gone(*seen)


@pytest.mark.skipif(sys.platform != "linux", reason="leftovers are found by /proc")
@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_killed_supervisor_is_cleaned_up_after(frozen, eventually):
    cluster = LocalCluster.start(readers=1, isolated=True)
    run, key = run_of(cluster), cluster.key
    nodes = [node["pid"] for node in cluster.nodes]
    assert len(set(nodes)) == 6
    assert set(nodes) <= set(leftovers(run))
    if frozen:
        cluster.freeze("demo-1")
        os.kill(nodes[0], signal.SIGSTOP)
    os.kill(cluster.status().supervisor, signal.SIGKILL)
    eventually(lambda: gone(run, key))
    with pytest.raises(errors.ClusterNotFoundError):
        cluster.status()
    cluster.close()


OWNER = """
    import os, signal, sys
    from aurora_router_cluster import LocalCluster
    cluster = LocalCluster.start(readers=1)
    print(cluster.key, os.path.dirname(cluster.instances[0].socket_directory), flush=True)
    {fork}
    signal.pause()
"""


@pytest.mark.parametrize(
    ("number", "fork"),
    [(signal.SIGKILL, ""), (signal.SIGTERM, ""), (signal.SIGINT, ""), (signal.SIGKILL, "os.fork()")],
    ids=["kill", "term", "interrupt", "kill-while-a-child-holds-the-pipe"],
)
def test_it_ends_with_its_owner(number, fork, eventually):
    program = textwrap.dedent(OWNER.format(fork=fork))
    owner = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip
    key, run = owner.stdout.readline().split()
    assert LocalCluster.attach(key).writer == "demo-1"
    owner.send_signal(number)
    owner.wait()
    eventually(lambda: gone(Path(run), key))
    if fork:
        os.killpg(owner.pid, signal.SIGKILL)
    owner.stdout.close()


def test_a_detached_one_outlives_its_starter_and_is_found_by_name(eventually):
    name = f"free{os.getpid()}"
    program = f"from aurora_router_cluster import LocalCluster; LocalCluster.start({name!r}, readers=0, detach=True)"
    subprocess.run([sys.executable, "-c", program], check=True)
    cluster = LocalCluster.attach(name)
    run = run_of(cluster)
    assert name in registry.running()
    with psycopg.connect(cluster.plain_conninfo("writer")) as connection:
        assert connection.execute("select 1").fetchone() == (1,)
    with pytest.raises(errors.ClusterRunningError, match=f"cluster down --name {name}"):
        LocalCluster.start(name)
    cluster.down()
    assert gone(run, name)
    with pytest.raises(errors.ClusterNotFoundError, match=f"no cluster '{name}' is running"):
        LocalCluster.attach(name)


def test_a_name_is_free_again_after_a_kill(eventually):
    name = f"again{os.getpid()}"
    first = LocalCluster.start(name, readers=0)
    run = run_of(first)
    os.kill(first.status().supervisor, signal.SIGKILL)
    first.close()
    with LocalCluster.start(name, readers=0) as second:
        assert second.writer == f"{name}-1"
        assert run_of(second) != run
        eventually(lambda: not run.exists())
        assert second.writer == f"{name}-1"


@pytest.mark.parametrize(
    ("options", "error", "complaint"),
    [
        ({"postgres": "/nowhere"}, errors.BinariesError, "/nowhere: no such directory"),
        ({"readers": 16}, errors.TooManyReadersError, "16 readers asked for"),
        ({"readers": -1}, errors.TooManyReadersError, "-1 readers"),
        ({"domain": "x"}, errors.NameTakenError, "cannot be a cluster's domain"),
        ({"settings": {"shared_buffers": "lots"}}, errors.EngineError, "shared_buffers"),
        ({"directory": "/nowhere"}, errors.DirectoryError, "/nowhere .--directory. cannot be used: No such file"),
        ({"nonsense": 1}, errors.RequestError, "nonsense"),
        ({"flavour": "nosuch"}, errors.RequestError, "unknown flavour"),
    ],
)  # fmt: skip
def test_a_bad_start_says_why_and_leaves_nothing(options, error, complaint):
    name = f"bad{os.getpid()}"
    with pytest.raises(error, match=complaint):
        LocalCluster.start(name, **options)
    assert not (registry.state_directory() / name).exists()


def test_an_address_in_use_is_named():
    import socket

    with socket.create_server(("127.91.4.4", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(errors.AddressInUseError, match=rf"127\.91\.4\.4:{port} is taken"):
            LocalCluster.start(readers=0, address="127.91.4.4", port=port)


def test_a_dns_port_in_use_is_named():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(errors.AddressInUseError, match=f"port {port}"):
            LocalCluster.start(readers=0, dns_port=port)


def test_on_one_address_instances_have_ports_of_their_own():
    with LocalCluster.start(readers=1, shared_address=True) as cluster:
        assert {one.host for one in cluster.instances} == {"127.0.0.1"}
        assert len({one.port for one in cluster.instances}) == 2
        with psycopg.connect(cluster.plain_conninfo("instance:demo-2")) as connection:
            assert connection.execute("select aurora_db_instance_identifier()").fetchone() == ("demo-2",)


def test_another_domain_and_first_address():
    domain = "c9akciq32.us-east-1.rds.amazonaws.com"
    with LocalCluster.start(readers=0, domain=domain, address="127.92.5.5") as cluster:
        assert cluster.endpoint("writer") == f"demo.cluster-{domain}"
        assert cluster.instance("demo-1").host == "127.92.5.5"


@pytest.mark.slow
def test_fifteen_readers_and_no_sixteenth():
    with LocalCluster.start(readers=15) as cluster:
        with pytest.raises(errors.TooManyReadersError, match="15 is the most, so remove one first"):
            cluster.add_reader()
        cluster.remove("demo-16")
        assert cluster.add_reader().state == "available"
