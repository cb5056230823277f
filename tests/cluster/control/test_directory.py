from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aurora_router_cluster.control.directory import Directory
from aurora_router_cluster.control.state import ClusterState
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.postgres.binaries import Binaries
from aurora_router_cluster.storage.direct import DirectVolume

NAMES = Names("demo", "cx.eu-test-1.rds.aurora.test")


@pytest.fixture
def state(account, tmp_path):
    """A state of real records whose servers were never started."""
    binaries = Binaries(Path("/nowhere"), "18.6", "explicit")
    state = ClusterState(NAMES, DirectVolume(binaries, account), binaries, account, tmp_path, Allocator())
    for _ in range(3):
        state.make().state = "available"
    state.writer = state.instances["demo-1"]
    return state


def hosts(state, *names):
    return tuple(state.instances[name].address.host for name in names)


def test_every_name_leads_where_it_should(state):
    directory = Directory(state, ttl=7)
    directory.on_state_change()
    zone = directory.picture()
    assert zone.hosts == {
        NAMES.instance("demo-1"): hosts(state, "demo-1"),
        NAMES.instance("demo-2"): hosts(state, "demo-2"),
        NAMES.instance("demo-3"): hosts(state, "demo-3"),
        NAMES.writer: hosts(state, "demo-1"),
        NAMES.reader: hosts(state, "demo-2", "demo-3"),
    }
    assert (zone.apex, zone.ttl) == ("eu-test-1.rds.aurora.test", 7)


def test_readers_that_are_not_available_are_left_out(state):
    directory = Directory(state)
    state.instances["demo-2"].state = "unreachable"
    directory.on_state_change()
    assert directory.picture().hosts[NAMES.reader] == hosts(state, "demo-3")
    state.instances["demo-3"].state = "stopped"
    directory.on_state_change()
    assert directory.picture().hosts[NAMES.reader] == hosts(state, "demo-1")


def test_without_delay_the_cluster_name_follows_at_once(state):
    directory = Directory(state)
    directory.on_state_change()
    serial = directory.picture().serial
    state.writer = state.instances["demo-2"]
    directory.on_state_change()
    assert directory.picture().hosts[NAMES.writer] == hosts(state, "demo-2")
    assert directory.picture().serial > serial


def test_between_two_writers_the_name_stays(state):
    directory = Directory(state)
    directory.on_state_change()
    state.writer = None
    directory.on_state_change()
    assert directory.picture().hosts[NAMES.writer] == hosts(state, "demo-1")


async def test_with_a_delay_it_follows_later_and_to_the_last_writer(state):
    directory = Directory(state, delay=0.05)
    directory.on_state_change()
    for name in ("demo-2", "demo-3"):
        state.writer = state.instances[name]
        directory.on_state_change()
        assert directory.picture().hosts[NAMES.writer] == hosts(state, "demo-1")
    while directory.picture().hosts[NAMES.writer] == hosts(state, "demo-1"):  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.001)
    assert directory.picture().hosts[NAMES.writer] == hosts(state, "demo-3")


async def test_close_cancels_a_pending_change(state):
    directory = Directory(state, delay=0.01)
    directory.on_state_change()
    state.writer = state.instances["demo-2"]
    directory.on_state_change()
    directory.close()
    await asyncio.sleep(0.03)
    assert directory.picture().hosts[NAMES.writer] == hosts(state, "demo-1")


def test_a_custom_endpoint_may_have_the_writer_as_a_member(state):
    directory = Directory(state)
    directory.on_state_change()
    directory.create_custom("any", ["demo-1", "demo-3"], exclude=False)
    directory.create_custom("rest", ["demo-2"], exclude=True)
    zone = directory.picture()
    assert zone.hosts[NAMES.custom("any")] == hosts(state, "demo-1", "demo-3")
    assert zone.hosts[NAMES.custom("rest")] == hosts(state, "demo-3")


def test_a_member_that_was_removed_is_passed_over(state):
    directory = Directory(state)
    directory.create_custom("two", ["demo-2", "demo-3"], exclude=False)
    del state.instances["demo-2"]
    directory.on_state_change()
    assert directory.picture().hosts[NAMES.custom("two")] == hosts(state, "demo-3")


def test_an_alias_may_be_replaced(state):
    directory = Directory(state)
    directory.add_cname("db.example.com", NAMES.writer)
    directory.add_cname("db.example.com", NAMES.reader)
    assert directory.picture().cnames == {"db.example.com": NAMES.reader}
