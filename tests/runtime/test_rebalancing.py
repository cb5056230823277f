"""Pools by custom endpoints: each is balanced over its own members, as they are known at that moment."""

from __future__ import annotations

import random
import time
from types import SimpleNamespace

import pytest

from aurora_router.model.description import CustomEndpoint, Description
from aurora_router.model.observation import Row, Topology
from aurora_router.policy.balance import select
from aurora_router.policy.route import route
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.rebalancing import find_rebalancer
from aurora_router.runtime.registry import Registry

DOMAIN = "c9akciq32.eu-west-1.rds.amazonaws.com"
ROWS = (Row("demo-1", writer=True, token=1), Row("demo-2"), Row("demo-3"), Row("demo-4"))


class Held:
    """A connection of a pool, as far as it counts here."""

    rebalancer = None
    closed = False

    def __init__(self, cluster, name, instance):
        args = read_connect_args(f"host={name}.cluster-custom-{DOMAIN} aurora_attributes=rds", {})
        chosen = route(args.request)
        self.endpoint = chosen.custom_endpoint
        given = {"loads": {}, "quarantine": cluster.state.health.quarantine, "now": 0.0, "rng": random.Random(0)}
        why = select(cluster.view, args.request.options, chosen.role, **given)
        self.placement = SimpleNamespace(instance=instance, pooled=False, _why=why, _cluster=cluster)
        cluster.track(instance, self)


@pytest.fixture
def cluster():
    request = read_connect_args(f"host=demo.cluster-{DOMAIN}", {}).request
    found = Registry().find(request, route(request))
    found.observe(Topology(ROWS, "demo-1", observer_is_writer=True), 0.0)
    return found


def describe(cluster, **members):
    endpoints = {name: CustomEndpoint(static=frozenset(each)) for name, each in members.items()}
    cluster.observe(Description("demo", {}, endpoints), time.monotonic())


def surplus(cluster, held):
    rebalancer = find_rebalancer(held)
    rebalancer._look(cluster, time.monotonic())
    return rebalancer._pace.surplus


def test_two_endpoints_are_two_groups(cluster):
    describe(cluster, olap={"demo-2"}, etl={"demo-3"})
    olap, etl = Held(cluster, "olap", "demo-2"), Held(cluster, "etl", "demo-3")
    assert find_rebalancer(olap) is not find_rebalancer(etl)
    assert find_rebalancer(olap) is find_rebalancer(Held(cluster, "olap", "demo-2"))
    assert surplus(cluster, olap) == surplus(cluster, etl) == frozenset()


def test_a_member_that_joins_gets_its_share(cluster):
    describe(cluster, olap={"demo-2"})
    held = [Held(cluster, "olap", "demo-2") for _ in range(4)]
    assert surplus(cluster, held[0]) == frozenset()
    describe(cluster, olap={"demo-2", "demo-4"})
    assert surplus(cluster, held[0]) == {"demo-2"}


def test_nothing_is_surplus_where_the_members_are_not_known(cluster):
    describe(cluster, olap={"demo-2", "demo-4"})
    held = [Held(cluster, "olap", "demo-2") for _ in range(4)]
    describe(cluster)
    assert surplus(cluster, held[0]) == frozenset()
