from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

import psycopg
import pytest

from aurora_router_cluster import LocalCluster, registry
from aurora_router_cluster.errors import BinariesError, RequestError
from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres import template as template_module
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.engine import Engine


@pytest.fixture(scope="session")
def account():
    return Account.default()


def _binaries(source: str, account: Account):
    explicit = None
    if source == "system":
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")) + sorted(
            Path("/usr").glob("pgsql-*/bin/postgres")
        )
        if not found:
            pytest.skip("no PostgreSQL packages of the system")
        explicit = found[-1].parent
    try:
        return binaries_module.find(account, explicit)
    except BinariesError as error:
        pytest.skip(f"no binaries: {error}")


@pytest.fixture(scope="session", params=["default", pytest.param("system", marks=pytest.mark.slow)])
def binaries(request, account):
    """Both kinds of binaries: the pip extra's and, in `nox -s slow`, the system's, which may be older."""
    return _binaries(request.param, account)


@pytest.fixture(scope="session")
def template(binaries, account):
    return template_module.ensure(binaries, account)


@pytest.fixture
def eventually():
    """Wait for a condition and return what it returned."""

    def wait(condition, timeout=45.0):
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)
        return result

    return wait


@pytest.fixture
def restored(eventually):
    """A context manager that gives a cluster back as it was: all is up and complete, and no reader was added.

    Storage nodes may have been replaced: what needs their numbers asks for them.
    """

    def is_whole(cluster) -> bool:
        """Whether all instances answer, and all copies hold everything."""
        nodes = [(node["up"], node.get("scl"), node.get("epoch")) for node in cluster.nodes]
        instances = all(one.state == "available" for one in cluster.instances)
        return instances and all(up for up, *_ in nodes) and len(set(nodes)) == 1

    @contextlib.contextmanager
    def restored(cluster):
        first = [one.name for one in cluster.instances]
        try:
            yield cluster
        finally:
            for node in cluster.nodes:
                if not node["up"]:
                    cluster.nodes.up(node["node"])
            for one in cluster.instances:
                if one.state == "stopped":
                    with contextlib.suppress(RequestError):  # it is being started already
                        cluster.start_instance(one.name)
            eventually(lambda: is_whole(cluster))
            if cluster.writer not in first:
                cluster.failover(first[0])
            for one in cluster.instances:
                if one.name not in first:
                    cluster.remove(one.name)
            eventually(lambda: is_whole(cluster))

    return restored


@pytest.fixture
def run_directory(account):
    """A short path that the account may enter (Unix sockets' names are limited to 107 bytes)."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    directory = Path(tempfile.mkdtemp(prefix="ar-", dir=place))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def make_engine(binaries, account, run_directory):
    """Make engines on Unix sockets alone; all end with the test."""
    made: list[Engine] = []

    def make(name: str = "one", **options) -> Engine:
        engine = Engine(name, run_directory / name, binaries, account, **options)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.kill()


@pytest.fixture(scope="module")
def isolated():
    """Whether each storage node of `ledger_cluster` has its own process; a module may override it."""
    return False


@pytest.fixture(scope="module")
def ledger_cluster(isolated):
    """A cluster with a table, for all tests of a module."""
    with LocalCluster.start(readers=2, faults=True, isolated=isolated) as cluster:
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as writer:
            writer.execute("create table ledger (i int)")
        yield cluster


@pytest.fixture
def is_healed():
    """Return whether a cluster is whole again after its faults were healed; a module overrides it."""
    return lambda cluster: all(each.state == "available" for each in cluster.instances)


@pytest.fixture
def faulty_cluster(ledger_cluster, is_healed, eventually):
    """The cluster of a module, which is healed after each test."""
    yield ledger_cluster
    ledger_cluster.faults.heal()
    try:
        eventually(lambda: is_healed(ledger_cluster))
    except AssertionError:
        logged = registry.ClusterDirectory(ledger_cluster.key).log.read_text(encoding="utf-8")
        pytest.fail(f"not healed: {ledger_cluster.status()}\n{logged[-10_000:]}", pytrace=False)
