"""What the error that ends a connect says of how long it was tried, and why no longer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.flow.connect import connect
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.simulated.instance import Condition
from tests.flow.scene import Scene


def message_of(limit, until=None):
    """The error's first line: nothing serves; the connect may take `limit` seconds, and is wanted for `until`."""
    scene = Scene(readers=1)
    for instance in scene.cluster.instances.values():
        instance.condition = Condition.REFUSING
    wanted = None if until is None else lambda: scene.simulation.now - began < until
    args = read_connect_args(scene.cluster.conninfo("writer"), {"aurora_failover_timeout": limit})
    began = scene.simulation.now

    async def client():
        process, request = scene.process, replace(args.request, wanted=wanted)
        with pytest.raises(NoInstanceAvailable) as caught:
            await connect(process.runtime, process.home.find, request, args.sources)
        return str(caught.value).splitlines()[0]

    return scene.run(client())


def test_a_connect_that_is_not_wanted_any_more_says_how_long_it_was_tried():
    said = message_of(60.0, until=2.0)
    assert "could be connected (given up after 2" in said
    assert "s: the connection is not wanted any more): " in said
    assert "60 s" not in said


@pytest.mark.parametrize(
    ("limit", "said"),
    [(4.99993, "within 5 s: "), (0.5, "within 0.5 s: "), (2.04, "within 2 s: "), (0, "in one round: ")],
)
def test_the_rest_of_a_time_limit_is_said_without_its_fractions(limit, said):
    assert said in message_of(limit)
    assert limit == 0 or said in message_of(limit, until=100.0)


def test_a_query_of_the_topology_is_one_round():
    scene = Scene(readers=0)
    scene.cluster.instances["demo-1"].condition = Condition.REFUSING

    async def client():
        with pytest.raises(NoInstanceAvailable, match="could be connected in one round: "):
            await scene.process.topology(scene.cluster.conninfo("writer"))

    scene.run(client())


def test_a_cluster_without_a_host_is_said_to_have_none(monkeypatch):
    for variable in ("PGHOST", "PGHOSTADDR", "PGSERVICE"):
        monkeypatch.delenv(variable, raising=False)
    scene = Scene(readers=0)
    args = read_connect_args("dbname=x", {"aurora_failover_timeout": 0.5})

    async def client():
        process = scene.process
        with pytest.raises(
            NoInstanceAvailable, match=r"local socket \(the call, PGHOST and the service name no host\)"
        ):
            await connect(process.runtime, process.home.find, args.request, args.sources)

    scene.run(client())
