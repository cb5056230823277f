"""Custom endpoints of a real cluster, with their members by the RDS API over HTTP: connects, pools, changes."""

from __future__ import annotations

import time

import pytest

import aurora_router
from aurora_router.policy import describe_schedule
from aurora_router.pool import ConnectionPool
from aurora_router.runtime.registry import REGISTRY
from aurora_router_cluster import LocalCluster

from .rds_api import RdsServer

pytestmark = pytest.mark.cluster
RIGHT_SECONDS = 1.0
"""How long after the API's answer connects may go by what it said before."""


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        cluster.create_custom_endpoint("olap", ["demo-2"])
        yield cluster


@pytest.fixture
def api(cluster, keys, monkeypatch):
    """What the RDS API says of the cluster, asked every tenth of a second."""
    monkeypatch.setattr(describe_schedule, "INTERVAL", 0.1)
    monkeypatch.setattr("aurora_router.runtime.monitor.DESCRIBE_SECONDS", 0.05)
    with RdsServer() as server:
        server.clusters = [{"DBClusterIdentifier": cluster.name, "Endpoint": cluster.endpoint("writer")}]
        server.instances = [
            {"DBInstanceIdentifier": each.name, "DBClusterIdentifier": cluster.name, "AvailabilityZone": each.zone}
            for each in cluster.instances
        ]
        say(server, cluster)
        yield server
        REGISTRY.reset()


def say(server, cluster, kind="ANY", static=("demo-2",), excluded=()):
    server.endpoints = [
        {
            "DBClusterEndpointIdentifier": "olap",
            "DBClusterIdentifier": cluster.name,
            "Endpoint": cluster.endpoint("custom:olap"),
            "EndpointType": "CUSTOM",
            "CustomEndpointType": kind,
            "StaticMembers": list(static),
            "ExcludedMembers": list(excluded),
            "Status": "available",
        }
    ]


def options_of(server):
    return {"aurora_attributes": "rds", "aurora_rds_endpoint": server.url, "aurora_refresh": "0.2"}


def wait_until(condition):
    until = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def wait_for_members(connection, *members):
    """Wait until the members are known here."""

    def found():
        view = connection.placement.view
        endpoint = view.endpoints.get("olap")
        return endpoint and {id_ for id_, each in view.instances.items() if endpoint.has_member(each)}

    wait_until(lambda: found() == set(members))


def used(cluster, server, count=6):
    """The instances of some connects by the custom endpoint's name."""
    ids = set()
    for _ in range(count):
        options = {**options_of(server), "aurora_balance": "round_robin"}
        with aurora_router.connect(cluster.conninfo("custom:olap"), **options) as conn:
            ids.add(conn.placement.instance)
    return ids


def test_members_that_change_are_right_within_a_second_of_the_answer(cluster, api):
    with aurora_router.connect(cluster.conninfo("custom:olap"), **options_of(api)) as held:
        assert held.placement.instance == "demo-2", "by DNS"
        for static, excluded, members in (
            (("demo-2", "demo-3"), (), {"demo-2", "demo-3"}),
            (("demo-3",), (), {"demo-3"}),
            ((), ("demo-3",), {"demo-1", "demo-2"}),
        ):
            say(api, cluster, "ANY", static, excluded)
            wait_for_members(held, *members)
            assert time.monotonic() - api.answered_at < RIGHT_SECONDS
            assert used(cluster, api) == members
        assert held.placement.view.attributes_of("demo-1").zone == cluster.instance("demo-1").zone


def test_the_writer_promoted_inside_is_no_member_from_then_on(cluster, api):
    with aurora_router.connect(cluster.conninfo("writer"), **options_of(api)) as writer:
        say(api, cluster, "READER", ())
        assert used(cluster, api, 1) <= {"demo-2"}, "by DNS, or as the API says"
        before, target = cluster.writer, cluster.readers[0]
        wait_for_members(writer, *cluster.readers)
        try:
            cluster.failover(target)
            wait_until(lambda: writer.placement.view.writer == target)
            assert target not in used(cluster, api)
        finally:
            cluster.failover(before)


def test_a_pool_replaces_connections_to_instances_that_are_no_members(cluster, api):
    say(api, cluster, "ANY", ("demo-2",))
    conninfo = cluster.conninfo("custom:olap")
    with ConnectionPool(conninfo, kwargs=options_of(api), min_size=3) as pool:
        pool.wait(30.0)
        with pool.connection() as conn:
            wait_for_members(conn, "demo-2")
        say(api, cluster, "ANY", ("demo-3",))
        with pool.connection() as conn:
            wait_for_members(conn, "demo-3")
            assert conn.execute("SELECT 1").fetchone() == (1,), "a connection in use is left alone"
        with pool.connection() as conn:
            assert conn.placement.instance == "demo-3"
        wait_until(lambda: {each.placement.instance for each in list(pool._pool)} == {"demo-3"})


def test_without_permission_routing_goes_on_by_dns(cluster, api):
    api.fault = (403, "AccessDenied", "not authorized to perform: rds:DescribeDBClusterEndpoints")
    advice = []
    end = aurora_router.subscribe(lambda _, event: advice.append(str(event)))
    try:
        with aurora_router.connect(cluster.conninfo("custom:olap"), **options_of(api)):
            wait_until(lambda: any("AccessDenied" in each for each in advice))
            assert used(cluster, api) == {"demo-2"}
        assert len([each for each in advice if "AccessDenied" in each]) == 1
    finally:
        end()
