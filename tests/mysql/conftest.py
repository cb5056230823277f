"""A cluster of real MariaDB servers; without MariaDB's programs the tests are skipped, loudly."""

from __future__ import annotations

import contextlib
import time

import pytest

from aurora_router_cluster import LocalCluster
from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.mysql import binaries
from aurora_router_cluster.postgres.account import Account


@pytest.fixture(scope="session")
def mariadb():
    try:
        return binaries.find(Account.default())
    except BinariesError as error:
        pytest.skip(f"MariaDB is missing: {error}")


@pytest.fixture(scope="module")
def cluster(mariadb):
    with LocalCluster.start(engine="mysql") as started:
        yield started


@pytest.fixture
def eventually():
    def wait(condition, timeout=45.0):
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.01)
        return result

    return wait


@pytest.fixture
def whole(cluster, eventually):
    """The cluster, whole before and after the test."""

    def is_whole():
        return all(one.state == "available" for one in cluster.instances) and cluster.writer is not None

    eventually(is_whole)
    yield cluster
    for one in cluster.instances:
        cluster.thaw(one.name)
        if one.pid is None:
            with contextlib.suppress(Exception):  # it is being started already
                cluster.start_instance(one.name)
    eventually(is_whole)


@pytest.fixture
def make(whole):
    """Make connections, without the cost of TLS contexts; all are closed at the end."""
    import aurora_router_mysql

    made = []

    def connect(target="writer", **extra):
        keywords = whole.mysql_keywords(target, **{"ssl_disabled": True, "autocommit": True, **extra})
        made.append(aurora_router_mysql.connect(**keywords))
        return made[-1]

    yield connect
    for each in made:
        if not each._closed:
            each.close()
