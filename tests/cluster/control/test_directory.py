from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aurora_router_cluster.control.directory import Directory
from aurora_router_cluster.control.roster import Roster
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.postgres.binaries import Binaries
from aurora_router_cluster.storage.direct import DirectVolume

NAMES = Names("demo", "cx.eu-test-1.rds.aurora.test")


@pytest.fixture
def roster(account, tmp_path):
    """A roster of real records whose servers were never started."""
    binaries = Binaries(Path("/nowhere"), "18.6", "explicit")
    roster = Roster(NAMES, DirectVolume(binaries, account), binaries, account, tmp_path, Allocator())
    for _ in range(3):
        roster.make().state = "available"
    roster.writer = roster.instances["demo-1"]
    return roster


def hosts(roster, *names):
    return tuple(roster.instances[name].address.host for name in names)


def test_every_name_leads_where_it_should(roster):
    directory = Directory(roster, ttl=7)
    directory.changed()
    zone = directory.picture()
    assert zone.hosts == {
        NAMES.instance("demo-1"): hosts(roster, "demo-1"),
        NAMES.instance("demo-2"): hosts(roster, "demo-2"),
        NAMES.instance("demo-3"): hosts(roster, "demo-3"),
        NAMES.writer: hosts(roster, "demo-1"),
        NAMES.reader: hosts(roster, "demo-2", "demo-3"),
    }
    assert (zone.apex, zone.ttl) == ("eu-test-1.rds.aurora.test", 7)


def test_readers_that_are_not_available_are_left_out(roster):
    directory = Directory(roster)
    roster.instances["demo-2"].state = "unreachable"
    directory.changed()
    assert directory.picture().hosts[NAMES.reader] == hosts(roster, "demo-3")
    roster.instances["demo-3"].state = "stopped"
    directory.changed()
    assert directory.picture().hosts[NAMES.reader] == hosts(roster, "demo-1")


def test_without_delay_the_cluster_name_follows_at_once(roster):
    directory = Directory(roster)
    directory.changed()
    serial = directory.picture().serial
    roster.writer = roster.instances["demo-2"]
    directory.changed()
    assert directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-2")
    assert directory.picture().serial > serial


def test_between_two_writers_the_name_stays(roster):
    directory = Directory(roster)
    directory.changed()
    roster.writer = None
    directory.changed()
    assert directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-1")


async def test_with_a_delay_it_follows_later_and_to_the_last_writer(roster):
    directory = Directory(roster, delay=0.05)
    directory.changed()
    for name in ("demo-2", "demo-3"):
        roster.writer = roster.instances[name]
        directory.changed()
        assert directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-1")
    while directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-1"):  # noqa: ASYNC110 - a test may poll
        await asyncio.sleep(0.001)
    assert directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-3")


async def test_close_cancels_a_pending_change(roster):
    directory = Directory(roster, delay=0.01)
    directory.changed()
    roster.writer = roster.instances["demo-2"]
    directory.changed()
    directory.close()
    await asyncio.sleep(0.03)
    assert directory.picture().hosts[NAMES.writer] == hosts(roster, "demo-1")


def test_a_custom_endpoint_may_have_the_writer_as_a_member(roster):
    directory = Directory(roster)
    directory.changed()
    directory.create_custom("any", ["demo-1", "demo-3"], exclude=False)
    directory.create_custom("rest", ["demo-2"], exclude=True)
    zone = directory.picture()
    assert zone.hosts[NAMES.custom("any")] == hosts(roster, "demo-1", "demo-3")
    assert zone.hosts[NAMES.custom("rest")] == hosts(roster, "demo-3")


def test_a_member_that_was_removed_is_passed_over(roster):
    directory = Directory(roster)
    directory.create_custom("two", ["demo-2", "demo-3"], exclude=False)
    del roster.instances["demo-2"]
    directory.changed()
    assert directory.picture().hosts[NAMES.custom("two")] == hosts(roster, "demo-3")


def test_an_alias_may_be_replaced(roster):
    directory = Directory(roster)
    directory.add_cname("db.example.com", NAMES.writer)
    directory.add_cname("db.example.com", NAMES.reader)
    assert directory.picture().cnames == {"db.example.com": NAMES.reader}
