"""A source that asks the manager of a cluster for its members, beside SQL."""

from __future__ import annotations

import asyncio
import sys
import threading
import time

import pytest

from aurora_router.errors import NoInstanceAvailable
from aurora_router.flow.source import MembersFailed
from aurora_router.model.event import ConfigurationAdvice, InstanceAdded
from aurora_router.model.observation import Member, Members
from aurora_router.runtime.libpq_runtimes import BlockingRuntime, EventLoopRuntime
from aurora_router.runtime.sources import GROUP
from aurora_router.simulation import SimulatedProcess, WatchedProcess
from tests.flow.scene import Scene

MODULE = """
from aurora_router.sources import POSTGRESQL, Source

def members(hosts):
    return listing(hosts)

OPS = Source("ops", POSTGRESQL.sql, POSTGRESQL.read, complete=False, members=members)
"""


class ManagedScene(Scene):
    """Plain PostgreSQL with a manager that lists all instances, or what `lists` says."""

    def __init__(self, install, process=SimulatedProcess, **made):
        super().__init__(process, aurora=False, **made)
        sys.modules.pop("managed_source", None)
        install("managed_source", MODULE, GROUP, {"ops": "managed_source:OPS"})
        self.asked = []
        self.lists = self.all_members
        import managed_source

        managed_source.listing = self.answer

    def answer(self, hosts):
        self.asked.append((self.simulation.now, list(hosts)))
        return self.lists()

    def all_members(self, system=None, **about):
        system = system or next(iter(self.cluster.instances.values())).system
        return Members(tuple(self.member(id_, **about) for id_ in self.cluster.instances), system, complete=True)

    def member(self, id_, **about):
        leads = id_ == self.cluster.writer.id
        return Member(self.cluster.host(f"instance:{id_}"), self.cluster.port, leads=leads, **about)

    async def connect(self, first="demo-2", **options):
        return await self.process.connect(self.cluster.conninfo(f"instance:{first}", aurora_source="ops", **options))

    def advised(self):
        return [str(event) for _, _, event in self.process.events if isinstance(event, ConfigurationAdvice)]


def test_it_is_asked_where_the_hosts_given_do_not_suffice(install):
    scene = ManagedScene(install)

    async def client():
        return (await scene.connect("demo-2", aurora_role="writer")).instance.id

    assert scene.run(client()) == "demo-1"
    assert [hosts for _, hosts in scene.asked] == [[scene.cluster.host("instance:demo-2")]]


def test_it_is_not_asked_where_they_do(install):
    scene = ManagedScene(install)

    async def client():
        return (await scene.connect("demo-1", aurora_role="writer")).instance.id

    assert scene.run(client()) == "demo-1"
    assert scene.asked == []


def test_the_leader_that_it_names_is_asked_first(install):
    scene = ManagedScene(install, readers=6)

    async def client():
        before = scene.simulation.counts["dial"]
        conn = await scene.connect("demo-2", aurora_role="writer")
        return conn.instance.id, scene.simulation.counts["dial"] - before

    assert scene.run(client()) == ("demo-1", 2)


def test_a_leader_that_it_names_wrongly_costs_a_dial_and_no_more(install):
    scene = ManagedScene(install)
    hosts = {id_: scene.cluster.host(f"instance:{id_}") for id_ in scene.cluster.instances}
    listed = tuple(Member(host, scene.cluster.port, leads=id_ == "demo-3") for id_, host in hosts.items())
    scene.lists = lambda: Members(listed, scene.cluster.instances["demo-1"].system)

    async def client():
        return (await scene.connect("demo-2", aurora_role="writer")).instance.id

    assert scene.run(client()) == "demo-1"


def test_a_manager_of_another_cluster_is_not_believed(install):
    scene = ManagedScene(install)
    scene.lists = lambda: scene.all_members(system="of another")

    async def client():
        with pytest.raises(NoInstanceAvailable):
            await scene.connect("demo-2", aurora_role="writer", aurora_failover_timeout=3)

    scene.run(client())
    (advice,) = scene.advised()
    assert "asks the manager of another cluster: its data are of the system of another" in advice


@pytest.mark.parametrize(
    ("error", "says"),
    [(MembersFailed("nothing answers: check aurora_ops"), "nothing answers: check aurora_ops; until that changes"),
     (KeyError("x"), r"aurora_source=ops could not list members: KeyError: 'x'")],
)  # fmt: skip
def test_one_that_fails_is_advised_of_once_and_routing_goes_on(install, error, says):
    scene = ManagedScene(install, WatchedProcess)

    def fail():
        raise error

    scene.lists = fail

    async def client():
        conn = await scene.connect("demo-1", aurora_role="writer")
        await scene.simulation.sleep(60.0)
        return conn.instance.id, (await scene.connect("demo-1", aurora_role="writer")).instance.id

    assert scene.run(client()) == ("demo-1", "demo-1")
    assert 4 <= len(scene.asked) <= 8
    (advice,) = scene.advised()
    assert says in advice


def test_the_monitor_learns_members_that_join(install):
    scene = ManagedScene(install, WatchedProcess)

    async def client():
        conn = await scene.connect("demo-1", aurora_role="writer")
        scene.cluster.add("demo-9")
        await scene.simulation.sleep(15.0)
        return conn

    scene.run(client())
    added = [event.id for _, _, event in scene.process.events if isinstance(event, InstanceAdded)]
    assert f"{scene.cluster.host('instance:demo-9')}:{scene.cluster.port}" in added


def test_a_failover_does_not_wait_for_it(install):
    """The manager is down, too; the members that are known are asked by SQL."""
    scene = ManagedScene(install, WatchedProcess)

    def fail():
        raise MembersFailed("it is down, too")

    async def client():
        await scene.connect("demo-2", aurora_role="writer")
        await scene.simulation.sleep(15.0)
        scene.lists = fail
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-3")
        began = scene.simulation.now
        conn = await scene.connect("demo-2", aurora_role="writer")
        return conn.instance.id, scene.simulation.now - began

    instance, seconds = scene.run(client())
    assert instance == "demo-3"
    assert seconds < 0.5


def test_reads_avoid_what_it_keeps_from_reads_while_others_are_there(install):
    scene = ManagedScene(install)
    reserved = {"demo-3"}
    scene.lists = lambda: Members(
        tuple(scene.member(id_, serves_reads=id_ not in reserved) for id_ in scene.cluster.instances),
        next(iter(scene.cluster.instances.values())).system,
    )

    async def client():
        await scene.connect("demo-1", aurora_role="reader")
        found = {(await scene.connect("demo-1", aurora_role="reader")).instance.id for _ in range(4)}
        scene.cluster.crash("demo-2")
        return found

    assert scene.run(client()) == {"demo-2"}


# ---------------------------------------------------------------- the runtimes


def test_the_event_loop_goes_on_while_a_function_blocks():
    runtime = EventLoopRuntime(None, None)
    ended, ticks = threading.Event(), []

    async def main():
        async def tick():
            while not ended.is_set():
                ticks.append(threading.get_ident())
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        found = await runtime.call(lambda: (time.sleep(0.3), threading.get_ident())[1], 5.0)
        ended.set()
        await ticking
        return found

    assert asyncio.run(main()) != threading.get_ident()
    assert len(ticks) > 3


def test_a_function_that_blocks_too_long_is_given_up():
    runtime, release = EventLoopRuntime(None, None), threading.Event()

    async def main():
        with pytest.raises(TimeoutError, match=r"no answer within 0.1 s"):
            await runtime.call(release.wait, 0.1)

    try:
        asyncio.run(main())
    finally:
        release.set()


@pytest.mark.parametrize("runtime", [EventLoopRuntime(None, None), BlockingRuntime(None, None)])
def test_what_a_function_raises_is_raised(runtime):
    def fail():
        raise MembersFailed("why")

    async def main():
        with pytest.raises(MembersFailed, match="why"):
            await runtime.call(fail, 1.0)

    asyncio.run(main())
