"""The driver against the local RDS API of a reference cluster: the same facts by SQL, DNS and HTTP."""

from __future__ import annotations

import time

import pytest

import aurora_router
from aurora_router.attributes import CustomEndpoint
from aurora_router.checking import stale
from aurora_router.policy import describe_schedule
from aurora_router.runtime.registry import REGISTRY
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(name="described", readers=2, auto=False, api=True) as cluster:
        yield cluster


@pytest.fixture
def options(cluster, monkeypatch):
    """How to ask the API, every tenth of a second, with the keys that it printed."""
    monkeypatch.setattr(describe_schedule, "INTERVAL", 0.1)
    monkeypatch.setattr("aurora_router.runtime.monitor.DESCRIBE_SECONDS", 0.05)
    for name, value in cluster.api.environment(cluster.region).items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)
    yield {"aurora_attributes": "rds", "aurora_rds_endpoint": cluster.api.url, "aurora_refresh": "0.2"}
    REGISTRY.reset()


def wait_until(condition):
    until = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_zones_classes_and_tiers_are_those_of_the_cluster(cluster, options):
    with aurora_router.connect(cluster.conninfo("writer"), **options) as conn:
        wait_until(lambda: conn.placement.view.attributes)
        for each in cluster.instances:
            found = conn.placement.view.attributes_of(each.name)
            assert (found.zone, found.tier) == (each.zone, each.tier)
            assert found.instance_class.startswith("db.")


def test_a_custom_endpoint_that_is_changed_while_it_is_used(cluster, options):
    cluster.create_custom_endpoint("olap", ["described-2"])
    try:
        with aurora_router.connect(cluster.conninfo("custom:olap"), **options) as conn:
            assert conn.placement.instance == "described-2"
            wait_until(lambda: "olap" in conn.placement.view.endpoints)
            cluster.modify_custom_endpoint("olap", ["described-3"])
            other = CustomEndpoint(static=frozenset({"described-3"}))
            wait_until(lambda: conn.placement.view.endpoints.get("olap") == other)
            assert stale(conn).endswith("no member of the custom endpoint olap any more")
            with aurora_router.connect(cluster.conninfo("custom:olap"), **options) as next_one:
                assert next_one.placement.instance == "described-3"
    finally:
        cluster.delete_custom_endpoint("olap")


def test_the_own_zone_is_preferred(cluster, options, monkeypatch):
    reader = cluster.instance(cluster.readers[0])
    monkeypatch.setenv("AURORA_ZONE", reader.zone)
    wanted = {**options, "aurora_zones": "own", "aurora_role": "reader"}
    with aurora_router.connect(cluster.conninfo("reader"), **wanted) as first:
        wait_until(lambda: first.placement.view.own_zone == reader.zone)
        for _ in range(4):
            with aurora_router.connect(cluster.conninfo("reader"), **wanted) as conn:
                assert conn.placement.instance == reader.name


@pytest.mark.parametrize(("serverless", "pause"), [("0..8", 240.0), ("0.5..8", None)])
def test_whether_instances_pause_is_what_the_api_reports(serverless, pause, monkeypatch):
    monkeypatch.setattr("aurora_router.runtime.monitor.DESCRIBE_SECONDS", 0.05)
    more = {} if pause is None else {"pause_after": pause}
    with LocalCluster.start(name="pausing", readers=0, auto=False, api=True, serverless=serverless, **more) as cluster:
        for name, value in cluster.api.environment(cluster.region).items():
            if name.startswith("AWS_"):
                monkeypatch.setenv(name, value)
        asked = {"aurora_attributes": "rds", "aurora_rds_endpoint": cluster.api.url}
        with aurora_router.connect(cluster.conninfo("writer"), **asked) as conn:
            wait_until(lambda: conn.placement.view.attributes)
            assert conn.placement.view.auto_pause == pause
    REGISTRY.reset()
