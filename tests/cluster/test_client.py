from __future__ import annotations

import time

import psycopg
import pytest

from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


def eventually(condition, timeout=30.0):
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)
    return result


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2) as cluster:
        yield cluster


def test_a_commit_reaches_both_readers(cluster):
    with psycopg.connect(cluster.plain_conninfo("writer"), autocommit=True) as writer:
        writer.execute("create table first_commit (i int)")
        for name in cluster.readers:
            with psycopg.connect(cluster.plain_conninfo(f"instance:{name}"), autocommit=True) as reader:
                query = "select to_regclass('first_commit') is not null"
                assert eventually(lambda reader=reader, query=query: reader.execute(query).fetchone()[0])
                assert reader.execute("select pg_is_in_recovery()").fetchone() == (True,)
                assert reader.execute("select aurora_db_instance_identifier()").fetchone() == (name,)


def test_status_is_typed_and_complete(cluster):
    status = cluster.status()
    assert [one.role for one in status.instances] == ["writer", "reader", "reader"]
    assert [one.zone for one in status.instances] == ["eu-test-1a", "eu-test-1b", "eu-test-1c"]
    assert len({one.host for one in status.instances}) == 3
    assert {one.port for one in status.instances} == {cluster.port}
    assert status.writer == "demo-1"
    assert type(status).from_dict(status.as_dict()) == status
