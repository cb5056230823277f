"""Watching a simulated cluster: a suspected writer, hangs, cuts, and what must not happen, on a virtual clock."""

from __future__ import annotations

import contextlib
import random
from dataclasses import replace
from itertools import pairwise

import psycopg
import pytest

from aurora_router.errors import NoInstanceAvailable, WriterUnavailable
from aurora_router.flow.hang_detector import STALE
from aurora_router.flow.monitor import ALONE_SECONDS, LINGER_SECONDS, SEARCH_SECONDS
from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.model.event import (
    ClaimRefused,
    ConnectionsCut,
    HangRefuted,
    HangSuspected,
    InstanceAdded,
    MonitorLockedOut,
    ProcessStalled,
    WriterConfirmed,
    WriteRefused,
    WriterSuspected,
)
from aurora_router.model.observation import MISSING_SECONDS
from aurora_router.policy import poll_interval
from aurora_router.policy.hang_detection import UNLIMITED, Limits
from aurora_router.policy.options import PROFILES
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.retry import LONGEST_WAIT
from aurora_router.simulation import (
    Cancelled,
    Condition,
    Network,
    SimulatedCluster,
    SimulatedProcess,
    Simulation,
    WatchedProcess,
)


class Scene:
    """A simulation with one cluster and one watched process."""

    def __init__(self, seed: int = 1, readers: int = 2) -> None:
        self.simulation = Simulation(seed)
        self.network = Network(self.simulation)
        self.cluster = SimulatedCluster(self.network, readers=readers)
        self.process = WatchedProcess(self.network)

    def run(self, procedure):
        try:
            result = self.simulation.run(procedure)
            for task in self.process.monitor_runtime.tasks:
                assert task.error is None or isinstance(task.error, Cancelled), task.error
            return result
        finally:
            self.simulation.close()

    def of(self, kind):
        return [(at, event) for at, _, event in self.process.events if isinstance(event, kind)]

    @property
    def now(self) -> float:
        return self.simulation.now


@pytest.fixture
def scene():
    return Scene()


def test_a_killed_writer_is_replaced_as_soon_as_the_new_one_says_so(scene):
    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.crash("demo-1")
        crashed = scene.now
        scene.simulation.at(crashed + 3.0, lambda: scene.cluster.failover("demo-2"))
        second = await scene.process.connect(scene.cluster.conninfo())
        late = scene.now - crashed - 3.0
        assert (first.instance.id, second.instance.id) == ("demo-1", "demo-2")
        assert 0 < late <= poll_interval.SHARE * 3.0 * (1 + poll_interval.JITTER) + 0.02
        second.close()
        first.close()

    scene.run(client())
    (_, doubted), *_ = scene.of(WriterSuspected)
    assert "demo-1" in doubted.reason
    assert [event.writer for _, event in scene.of(WriterConfirmed)] == ["demo-2"]


@pytest.mark.parametrize("slow", ["the new writer", "all"])
def test_a_slow_instance_is_heard_though_it_answers_later_than_a_ping_may_take(scene, slow):
    """The limit of a ping is for hangs: a look that is given up again and again would find no writer at all."""

    async def client():
        conninfo = scene.cluster.conninfo(aurora_refresh=3600)
        (await scene.process.connect(conninfo)).close()
        took = 2.5
        for id_, each in scene.cluster.instances.items():
            if slow != "the new writer" or id_ == "demo-2":
                each.accept_latency = took
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-2")
        began = scene.now
        second = await scene.process.connect(conninfo)
        assert second.instance.id == "demo-2"
        assert scene.now - began <= 3 * took + 3.0
        second.close()

    scene.run(client())
    ((_, settled),) = scene.of(WriterConfirmed)
    assert settled.writer == "demo-2"


def test_a_refused_write_has_the_writer_asked_and_once_a_second_at_most(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        cluster = conn.result.cluster
        for _ in range(10):
            cluster.record_refused_write("demo-1", conn.generation, scene.now)
            await scene.process.runtime.sleep(0.05)
        assert cluster.suspected_at is None, "the writer was asked and says that it is one"
        assert cluster.view.writer == "demo-1"
        assert conn.current
        await scene.process.runtime.sleep(1.0)
        cluster.record_refused_write("demo-1", conn.generation, scene.now)
        await scene.process.runtime.sleep(0.05)
        conn.close()

    scene.run(client())
    assert [event.id for _, event in scene.of(WriteRefused)] == ["demo-1"] * 2
    assert len(scene.of(WriterSuspected)) == len(scene.of(WriterConfirmed)) == 2


def test_a_write_that_a_demoted_writer_refuses_finds_the_new_one(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        cluster = conn.result.cluster
        scene.cluster.failover("demo-2")
        cluster.record_refused_write("demo-1", conn.generation, scene.now)
        refused = scene.now
        while cluster.view.writer != "demo-2":
            assert scene.now - refused < 1.0
            await scene.process.runtime.sleep(0.01)
        cluster.record_refused_write("demo-1", conn.generation, scene.now + 2.0)
        conn.close()

    scene.run(client())
    assert len(scene.of(WriteRefused)) == 1, "what the view knows already is no news"


def test_a_refused_write_that_nobody_watches_has_the_next_connect_ask(scene):
    process = SimulatedProcess(scene.network)

    async def client():
        conninfo = scene.cluster.conninfo(aurora_refresh=3600)
        conn = await process.connect(conninfo)
        await process.connect(conninfo, aurora_role="reader")  # from now on, role reports are believed
        asked = scene.simulation.counts["ask"]
        await process.connect(conninfo)
        assert scene.simulation.counts["ask"] == asked
        conn.result.cluster.record_refused_write("demo-1", conn.generation, scene.now)
        await process.connect(conninfo)
        assert scene.simulation.counts["ask"] > asked
        asked = scene.simulation.counts["ask"]
        await process.connect(conninfo)
        assert scene.simulation.counts["ask"] == asked

    scene.run(client())


@pytest.mark.parametrize("stale", [False, True])
def test_a_writer_of_which_nothing_was_ever_heard_is_found_by_the_given_name(scene, stale):
    """The new writer joined after the last look, and the instances that are left do not know it, or are not there."""

    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        for reader in ("demo-2", "demo-3"):
            if stale:
                scene.cluster.freeze_view(reader)
            else:
                scene.cluster.crash(reader)
        scene.cluster.add("demo-4")
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-4")
        began = scene.now
        second = await scene.process.connect(scene.cluster.conninfo())
        assert second.instance.id == "demo-4"
        took = scene.now - began
        assert SEARCH_SECONDS < took < 2 * SEARCH_SECONDS if stale else took < 3 * ALONE_SECONDS
        second.close()
        first.close()

    scene.run(client())
    assert [event.writer for _, event in scene.of(WriterConfirmed)] == ["demo-4"]


def test_the_name_of_a_connect_that_waits_is_searched_too(scene):
    """The monitor knows one name, by which the writer of now cannot be found; a waiting connect has another one."""

    async def client():
        first = await scene.process.connect(scene.cluster.conninfo("reader"))
        for reader in ("demo-2", "demo-3"):
            scene.cluster.freeze_view(reader)
        scene.cluster.add("demo-4")
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-4")
        began = scene.now
        second = await scene.process.connect(scene.cluster.conninfo())
        assert second.instance.id == "demo-4"
        assert scene.now - began < 2 * SEARCH_SECONDS
        second.close()
        first.close()

    scene.run(client())


@pytest.mark.parametrize("stale", [False, True])
def test_a_given_name_that_refuses_the_watch_leaves_the_search_to_the_users(scene, stale):
    """The new writer joined after the last look; the monitor has an old password, a waiting user the new one."""

    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        for reader in ("demo-2", "demo-3"):
            if stale:
                scene.cluster.freeze_view(reader)
            else:
                scene.cluster.crash(reader)
        added = scene.cluster.add("demo-4")
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-4")
        added.condition = Condition.REJECTING
        began = scene.now
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await scene.process.connect(scene.cluster.conninfo())
        searched = 2 * SEARCH_SECONDS if stale else 3 * ALONE_SECONDS
        assert scene.now - began < searched + scene.network.dns.ttl + LONGEST_WAIT
        added.condition = Condition.WELL
        second = await scene.process.connect(scene.cluster.conninfo())
        assert second.instance.id == "demo-4"
        second.close()
        first.close()

    scene.run(client())
    assert len(scene.of(MonitorLockedOut)) == 1


def test_a_path_is_examined_on_the_session_that_there_is():
    """The monitor has one with the new writer, which then accepts no other: a hang is noticed all the same."""
    scene = Scene(readers=1)
    scene.cluster.aurora = False
    hosts = ",".join(each.address for each in scene.cluster.instances.values())

    async def client():
        conninfo = f"host={hosts} port=5432 dbname=app aurora_role=writer"
        first = await scene.process.connect(conninfo)
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-2")
        again = await scene.process.connect(conninfo)
        assert again.instance.id == "demo-2"
        again.instance.accept_latency = 3600.0
        await scene.simulation.sleep(0.5)
        scene.cluster.hang("demo-2")
        began = scene.now
        scene.simulation.at(began + 10.0, again.breaks)  # at last, the operating system gives up
        with pytest.raises(DialFailed):
            await scene.process.execute(again)
        assert scene.now - began < again.limits.noticed + 0.1
        for each in (first, again):
            each.close()

    scene.run(client())


@pytest.mark.parametrize("profile", ["default", "aggressive", "patient"])
def test_a_hung_writer_is_noticed_in_time_and_its_statement_woken(scene, profile):
    options = PROFILES[profile]
    limits = Limits(options.hang_grace, options.ping_timeout)

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_profile=profile))
        scene.cluster.hang("demo-1")
        hung = scene.now
        scene.simulation.at(hung + 0.1, lambda: scene.cluster.failover("demo-2", zombie=True))
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert limits.grace + limits.ping < scene.now - hung <= limits.noticed + 0.05
        again = await scene.process.connect(scene.cluster.conninfo(aurora_profile=profile))
        assert again.instance.id == "demo-2"
        again.close()

    scene.run(client())
    assert [event.count for _, event in scene.of(ConnectionsCut)] == [1]


@pytest.mark.case
@pytest.mark.parametrize("phase", [0.0, 0.01, 0.1, 0.24])
def test_the_strictest_connection_decides_whichever_connection_the_watch_began_with(scene, phase):
    strict = Limits(PROFILES["aggressive"].hang_grace, PROFILES["aggressive"].ping_timeout)
    conninfo = scene.cluster.conninfo()

    async def client():
        lax = await scene.process.connect(conninfo, aurora_profile="patient")
        await scene.simulation.sleep(1.0 + phase)
        conn = await scene.process.connect(conninfo, aurora_profile="aggressive")
        scene.cluster.hang("demo-1")
        hung = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert scene.now - hung <= strict.noticed + 0.05
        lax.close()
        conn.close()

    scene.run(client())


@pytest.mark.case
def test_a_strict_connection_that_was_closed_makes_nobody_impatient(scene):
    conninfo = scene.cluster.conninfo()

    async def client():
        conn = await scene.process.connect(conninfo, aurora_profile="aggressive")
        lax = await scene.process.connect(conninfo, aurora_profile="patient")
        conn.close()
        await scene.simulation.sleep(0.3)
        waits = scene.simulation.spawn(scene.process.execute(lax, 20.0))
        await scene.simulation.sleep(4.0)
        scene.cluster.hang("demo-1")
        await scene.simulation.sleep(1.0)
        scene.cluster.heal("demo-1")
        await waits.wait()
        lax.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)


@pytest.mark.case
def test_a_connection_that_is_not_to_be_watched_makes_nobody_suspect(scene):
    """Neither does it relax what the others ask for."""
    strict = Limits(PROFILES["aggressive"].hang_grace, PROFILES["aggressive"].ping_timeout)

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(), aurora_profile="aggressive")
        other = await scene.process.connect(scene.cluster.conninfo(), aurora_profile="aggressive")
        other.limits = UNLIMITED  # as with aurora_monitor=off
        scene.simulation.spawn(scene.process.execute(other, 2.0))
        await scene.simulation.sleep(1.0)
        assert not scene.of(HangSuspected)
        scene.cluster.hang("demo-1")
        hung = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert scene.now - hung <= strict.noticed + 0.05
        conn.close()
        other.close()

    scene.run(client())


def test_a_long_statement_of_a_living_server_is_left_alone(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        await scene.process.execute(conn, 30.0)
        conn.close()

    scene.run(client())
    pings = [at for at, _ in scene.of(HangSuspected)]
    assert 10 <= len(pings) <= 30
    assert min(b - a for a, b in pairwise(pings)) >= 1.0
    assert len(scene.of(HangRefuted)) == len(pings)
    assert not scene.of(ConnectionsCut)


def test_a_refusal_is_a_sign_of_life(scene):
    """Too many connections: the ping cannot log in, and no connection is cut."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.instances["demo-1"].condition = Condition.FULL
        await scene.process.execute(conn, 5.0)
        conn.close()

    scene.run(client())
    assert scene.of(HangRefuted)
    assert not scene.of(ConnectionsCut)


@pytest.mark.case
@pytest.mark.parametrize("condition", ["RESETTING", "REFUSING", "STARTING", "STOPPING", "HANGING", "FULL"])
def test_a_failed_dial_says_nothing_of_established_connections(scene, condition):
    """A handshake that is reset (by a load balancer, a firewall, a worker that dies) leaves a pool as it is."""

    async def client():
        pool = [await scene.process.connect(scene.cluster.conninfo()) for _ in range(20)]
        scene.cluster.instances["demo-1"].condition = Condition[condition]
        late = scene.simulation.spawn(scene.process.connect(scene.cluster.conninfo()))
        await scene.simulation.sleep(2.0)
        scene.cluster.heal("demo-1")
        late = await late.wait()
        await scene.simulation.sleep(2.0)
        assert [each.current and not each.broken for each in pool] == [True] * 20
        for each in (late, *pool):
            each.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)


def test_a_failed_dial_cuts_no_connection_of_an_older_generation(scene):
    """A reader was promoted: its connections are stale for a pool, and stay usable for those that have them."""

    async def client():
        held = [await scene.process.connect(scene.cluster.conninfo("reader")) for _ in range(6)]
        kept = [each for each in held if each.instance.id == "demo-2"]
        assert kept
        scene.cluster.failover("demo-2")
        writer = await scene.process.connect(scene.cluster.conninfo())
        assert writer.instance.id == "demo-2"
        scene.cluster.instances["demo-2"].condition = Condition.RESETTING
        late = scene.simulation.spawn(scene.process.connect(scene.cluster.conninfo()))
        await scene.simulation.sleep(2.0)
        assert not any(each.current or each.broken for each in kept)
        scene.cluster.heal("demo-2")
        for each in (await late.wait(), writer, *held):
            each.close()

    scene.run(client())
    assert "demo-2" not in [each.id for each in scene.of(ConnectionsCut)]


@pytest.mark.case
@pytest.mark.parametrize("kernel", [True, False], ids=["TCP_INFO", "samples"])
def test_a_postmaster_that_stands_still_costs_no_connection_that_is_served(scene, kernel):
    """New connections get no answer for four seconds; those that exist go on."""

    async def busy(conn, seconds):
        until = scene.now + 8.0
        while scene.now < until:
            await scene.process.execute(conn, seconds)
            await scene.simulation.sleep(0.01 if kernel else 0.3)  # samples see what lasts for a quarter of a second

    async def client():
        pool = [await scene.process.connect(scene.cluster.conninfo()) for _ in range(3)]
        if not kernel:
            for each in pool:
                each.heard_at = None
        work = [
            scene.simulation.spawn(busy(each, seconds)) for each, seconds in zip(pool, (0.3, 0.4, 1.7), strict=True)
        ]
        await scene.simulation.sleep(0.5)
        scene.cluster.instances["demo-1"].condition = Condition.HANGING
        await scene.simulation.sleep(4.0)
        scene.cluster.heal("demo-1")
        for each in work:
            await each.wait()
        assert all(each.current for each in pool)
        for each in pool:
            each.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)


@pytest.mark.case
def test_a_path_whose_question_was_reset_is_asked_about_again(scene):
    """One dial that fails by accident must not keep a hang from being noticed for half a minute."""
    limits = Limits(1.0, 1.0)
    address = scene.cluster.instances["demo-1"].address

    async def client():
        conn = await scene.process.connect(f"host={address} port=5432 dbname=app")
        scene.cluster.instances["demo-1"].condition = Condition.RESETTING
        await scene.simulation.sleep(0.4)
        scene.cluster.heal("demo-1")
        await scene.simulation.sleep(1.0)
        scene.cluster.hang("demo-1")
        hung = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert scene.now - hung <= limits.noticed + 0.05
        conn.close()

    scene.run(client())


@pytest.mark.case
@pytest.mark.parametrize("last", ["writer", "reader"])
def test_a_new_writer_of_unknown_place_is_reached_by_the_clusters_name(scene, last):
    """Whichever name the last user came by."""
    scene.cluster.dns_delay = 0.5
    places = ",".join(f"{id_}={scene.cluster.host(f'instance:{id_}')}" for id_ in ("demo-1", "demo-2"))

    async def client():
        options = {"aurora_instance_host": places}
        first = await scene.process.connect(scene.cluster.conninfo(), **options)
        other = await scene.process.connect(scene.cluster.conninfo(last), **options)
        await scene.simulation.sleep(2.0)
        scene.cluster.crash("demo-1")
        scene.simulation.at(scene.now + 1.0, lambda: scene.cluster.failover("demo-3"))
        began = scene.now
        again = await scene.process.connect(scene.cluster.conninfo(), **options)
        assert again.instance.id == "demo-3"
        assert scene.now - began < 1.0 + 0.5 + 1.0
        began = scene.now
        more = await scene.process.connect(scene.cluster.conninfo(), **options)
        assert more.instance.id == "demo-3"
        assert scene.now - began < 0.1
        for each in (first, other, again, more):
            each.close()

    scene.run(client())
    assert [event.writer for _, event in scene.of(WriterConfirmed)] == ["demo-3"]


@pytest.mark.case
@pytest.mark.parametrize("idle", [1.0, 13.0, 35.0])
def test_a_postmaster_that_stands_still_costs_no_statement_that_sends_nothing(scene, idle):
    """A session that the monitor opened in time answers, though no new one begins."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        await scene.simulation.sleep(idle)
        work = scene.simulation.spawn(scene.process.execute(conn, 6.0))
        await scene.simulation.sleep(0.5)
        scene.cluster.instances["demo-1"].condition = Condition.HANGING
        await scene.simulation.sleep(2.6)
        scene.cluster.heal("demo-1")
        await work.wait()
        conn.close()

    scene.run(client())
    assert scene.of(HangRefuted)
    assert not scene.of(ConnectionsCut)


@pytest.mark.parametrize("login", [1.2, 1.5, 2.0, 4.0])
def test_a_login_that_takes_longer_than_a_ping_is_no_hang(scene, login):
    """The server sends its first bytes at once, and then waits for LDAP, or for a login trigger."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.instances["demo-1"].login_latency = login
        await scene.process.execute(conn, 10.0)
        before = scene.simulation.counts["dial"]
        await scene.process.execute(conn, 5.0)
        assert scene.simulation.counts["dial"] == before, "by now there is a session, which answers every ping"
        conn.close()

    scene.run(client())
    assert scene.of(HangRefuted)
    assert not scene.of(ConnectionsCut)
    assert not scene.of(WriterSuspected)


@pytest.mark.parametrize("target", ["writer", "custom:some", "hosts"])
@pytest.mark.parametrize("silence", [1.2, 2.0, 3.0])
def test_a_server_that_is_silent_at_first_in_every_session_is_no_hang(scene, silence, target):
    """It looks up the names of its clients before it reads anything (``log_hostname``), and a name server is slow."""

    async def client():
        server = scene.cluster.instances["demo-1"]
        server.accept_latency = silence
        scene.cluster.customs["some"] = ("demo-1",)
        hosts = f"host={server.address} dbname=app"
        conn = await scene.process.connect(hosts if target == "hosts" else scene.cluster.conninfo(target))
        await scene.process.execute(conn, 10.0)
        conn.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)
    assert not scene.of(WriterSuspected)


def test_a_hang_is_noticed_in_time_after_logins_that_take_longer_than_a_ping(scene):
    """From the last byte on."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.instances["demo-1"].login_latency = 2.0
        work = scene.simulation.spawn(scene.process.execute(conn, 60.0))
        await scene.simulation.sleep(1.9)  # while it is being pinged
        hung = scene.now
        scene.cluster.hang("demo-1")
        with pytest.raises(DialFailed):
            await work.wait()
        assert scene.now - hung <= Limits(1.0, 1.0).noticed + 0.05

    scene.run(client())


def test_a_kernel_that_accepts_is_no_sign_of_life(scene):
    """Nothing but bytes of the server counts: a frozen one has a backlog, which its kernel fills."""
    heard = []

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.hang("demo-1")
        began = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        address = scene.cluster.instances["demo-1"].address
        at = scene.process.monitor_runtime.dial_heard_at(Target("demo-1", None, 5432, (address,)))
        heard.append(at is not None and at > began)

    scene.run(client())
    assert heard == [False]


@pytest.mark.case
@pytest.mark.parametrize("profile", ["default", "aggressive"])
def test_a_lost_packet_is_no_hang(scene, profile):
    """The kernel sends it again after a second, which is all of a ping's time: other tries are under way by then."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_profile=profile))
        await scene.simulation.sleep(2.0)
        scene.network.losses = 2  # the session that is made ready, and the first dial of the ping
        await scene.process.execute(conn, 4.0)
        assert not scene.network.losses
        conn.close()

    scene.run(client())
    assert scene.of(HangRefuted)
    assert not scene.of(ConnectionsCut)


@pytest.mark.parametrize("profile", ["default", "aggressive"])
def test_a_client_without_a_free_port_takes_no_instance_for_hung(scene, profile):
    """The pings cannot be sent, and nothing that was not sent is silence."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_profile=profile))
        for each in scene.cluster.instances.values():
            each.condition = Condition.EXHAUSTED
        await scene.process.execute(conn, 6.0)
        for each in scene.cluster.instances.values():
            each.condition = Condition.WELL
        await scene.process.execute(conn, 6.0)
        conn.close()

    scene.run(client())
    assert scene.of(HangSuspected)
    for kind in (ConnectionsCut, WriterSuspected, MonitorLockedOut):
        assert not scene.of(kind)


def test_a_hang_is_noticed_once_there_is_a_port_again(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.instances["demo-1"].silent = True
        scene.cluster.instances["demo-1"].condition = Condition.EXHAUSTED
        scene.simulation.at(scene.now + 6.0, lambda: scene.cluster.hang("demo-1"))
        began = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert 6.0 < scene.now - began < 6.0 + 2.0 * conn.limits.noticed
        conn.close()

    scene.run(client())
    assert scene.of(ConnectionsCut)


def test_short_connections_with_statements_of_a_moment_open_one_session_in_half_a_minute(scene):
    """The monitor's session is closed when no connection needs it, and not opened again for each."""

    async def client():
        dials = []
        for _ in range(20):
            conn = await scene.process.connect(scene.cluster.conninfo())
            before = scene.simulation.counts["dial"]
            await scene.process.execute(conn, 0.7)
            conn.close()
            await scene.simulation.sleep(0.5)
            dials.append(scene.simulation.counts["dial"] - before)
        assert sum(dials) == 2, dials  # the other one checks the role report of a reader

    scene.run(client())


def test_statements_of_a_moment_open_no_session(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        await scene.simulation.sleep(1.0)
        before = scene.simulation.counts["dial"]
        for _ in range(300):
            await scene.process.execute(conn, 0.03)
            await scene.simulation.sleep(0.003)
        assert scene.simulation.counts["dial"] == before
        conn.close()

    scene.run(client())


@pytest.mark.parametrize("profile", ["default", "aggressive"])
def test_a_hang_is_noticed_in_time_by_a_process_whose_other_connections_were_served(scene, profile):
    options = PROFILES[profile]
    limits = Limits(options.hang_grace, options.ping_timeout)
    cut = []

    async def busy(conn, seconds):
        with contextlib.suppress(DialFailed):
            while True:
                await scene.process.execute(conn, seconds)
                await scene.simulation.sleep(0.01)
        cut.append(scene.now)

    async def client():
        conninfo = scene.cluster.conninfo(aurora_profile=profile)
        pool = [await scene.process.connect(conninfo) for _ in range(3)]
        work = [
            scene.simulation.spawn(busy(each, seconds)) for each, seconds in zip(pool, (0.02, 0.4, 9.0), strict=True)
        ]
        await scene.simulation.sleep(3.3)
        hung = scene.now
        scene.cluster.hang("demo-1")
        for each in work:
            await each.wait()
        assert max(cut) - hung <= limits.noticed + 0.05

    scene.run(client())


@pytest.mark.case
def test_a_silent_pooler_is_no_hung_instance(scene):
    """Its server connections are busy, so the probe is not answered; the statements are."""
    scene.network.listen("10.9.9.9", 6432, scene.cluster, scene.cluster.instances["demo-1"])

    async def client():
        pool = [await scene.process.connect("host=10.9.9.9 port=6432 dbname=app") for _ in range(2)]
        await scene.simulation.sleep(1.0)
        scene.cluster.instances["demo-1"].condition = Condition.HANGING
        work = [scene.simulation.spawn(scene.process.execute(each, 4.0)) for each in pool]
        for each in work:
            await each.wait()
        for each in pool:
            each.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)


def test_a_hang_is_noticed_where_an_address_leads_straight_to_the_server(scene):
    address = scene.cluster.instances["demo-1"].address

    async def client():
        conn = await scene.process.connect(f"host={address} port=5432 dbname=app")
        await scene.simulation.sleep(1.0)
        scene.cluster.hang("demo-1")
        hung = scene.now
        with pytest.raises(DialFailed):
            await scene.process.execute(conn)
        assert scene.now - hung < 2.5

    scene.run(client())


def test_an_answer_that_waits_to_be_read_is_no_hang(scene):
    """The user's event loop is blocked: its connection looks as if it waited for the server."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        conn.waiting = conn.unread = True
        scene.cluster.instances["demo-1"].condition = Condition.HANGING
        await scene.simulation.sleep(10.0)
        assert not conn.broken
        conn.close()

    scene.run(client())
    assert not scene.of(HangSuspected)


def test_a_short_stop_is_survived(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.hang("demo-1")
        scene.simulation.at(scene.now + 1.4, lambda: scene.cluster.heal("demo-1"))
        await scene.process.execute(conn)
        conn.close()

    scene.run(client())
    assert scene.of(HangSuspected)
    assert not scene.of(ConnectionsCut)


def test_a_starved_process_blames_itself(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        watch = conn.result.cluster.monitor
        conn.waiting = True
        await scene.simulation.sleep(0.8)
        watch.hangs.sample(late=5.0)
        assert conn.waiting_since == scene.now
        await scene.simulation.sleep(0.9)
        assert not scene.of(HangSuspected)
        scene.cluster.hang("demo-1")
        await scene.simulation.sleep(0.5)
        assert scene.of(HangSuspected)
        watch.hangs.sample(late=5.0)
        await scene.simulation.sleep(0.9)
        assert not scene.of(ConnectionsCut), "the ping was silent while this process did not attend"
        conn.waiting = False
        conn.close()

    scene.run(client())
    assert len(scene.of(ProcessStalled)) == 2


def test_a_dial_that_ends_after_its_instance_was_replaced_is_not_handed_out(scene):
    """It hung, another became the writer, it woke up and still believes: its report at start-up is not enough."""

    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        former = scene.cluster.instances["demo-1"]
        former.accept_latency = 4.0
        late = scene.simulation.spawn(scene.process.connect(scene.cluster.conninfo()))
        await scene.simulation.sleep(1.0)
        scene.cluster.failover("demo-2", zombie=True)
        first.result.cluster.suspect_writer("a test", scene.now)
        second = await scene.process.connect(scene.cluster.conninfo())
        third = await late.wait()
        assert (second.instance.id, third.instance.id) == ("demo-2", "demo-2")
        for each in (first, second, third):
            each.close()

    scene.run(client())


@pytest.mark.case
@pytest.mark.parametrize("silent", ["dial", "query"])
def test_a_dial_that_is_under_way_when_its_instance_hangs_ends_with_the_failover(scene, silent):
    """The hang is noticed by a statement; the dial would wait for its own five seconds."""
    took = {}

    async def dial(pause):
        await scene.simulation.sleep(pause)
        began = scene.now
        conn = await scene.process.connect(scene.cluster.conninfo())
        took[pause] = scene.now - began
        assert conn.instance.id == "demo-2"
        conn.close()

    async def client():
        held = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.instances["demo-1"].reports_standby = False
        dials = [scene.simulation.spawn(dial(pause)) for pause in (0.0, 0.1, 0.5, 1.5)]
        if silent == "query":
            await scene.simulation.sleep(0.0021)  # dialled, and not yet asked
        scene.cluster.hang("demo-1")
        scene.simulation.at(scene.now + 1.0, lambda: scene.cluster.failover("demo-2", zombie=True))
        with pytest.raises(DialFailed):
            await scene.process.execute(held)
        for each in dials:
            await each.wait()
        held.close()

    scene.run(client())
    assert max(took.values()) <= 2.5, took
    assert max(took.values()) > 2.0


def test_a_former_writer_that_does_not_know_it_is_no_reader(scene):
    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.failover("demo-2", zombie=True)
        first.result.cluster.suspect_writer("a test", scene.now)
        (await scene.process.connect(scene.cluster.conninfo())).close()
        readers = [await scene.process.connect(scene.cluster.conninfo("reader")) for _ in range(6)]
        assert {each.instance.id for each in readers} == {"demo-3"}
        for each in (first, *readers):
            each.close()

    scene.run(client())


def test_failures_of_others_do_not_keep_a_process_dialling(scene):
    """Two connects without a monitor, and no instance to be found: each failure is news to the other."""
    process = SimulatedProcess(scene.network)

    async def client():
        first = await process.connect(scene.cluster.conninfo())
        for each in scene.cluster.instances.values():
            each.condition = Condition.STARTING
        before = scene.simulation.counts["dial"]
        tasks = [scene.simulation.spawn(process.connect(scene.cluster.conninfo())) for _ in range(5)]
        await scene.simulation.sleep(10.0)
        assert scene.simulation.counts["dial"] - before < 5 * 4 * 60
        for each in scene.cluster.instances.values():
            each.condition = Condition.WELL
        for task in tasks:
            (await task.wait()).close()
        first.close()

    scene.run(client())


@pytest.mark.parametrize("target", ["instance:demo-2", "instance:demo-1", "writer"])
@pytest.mark.parametrize("clients", [1, 3])
def test_the_waits_of_a_connect_grow_though_the_writer_answers_the_monitor(scene, target, clients):
    """It has a session; the instance that is wanted accepts no new one. What the failures cause is no news to them."""
    wanted = "demo-1" if target == "writer" else target.removeprefix("instance:")

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        await scene.process.execute(conn, 0.5)  # so that the monitor has a session
        scene.cluster.instances[wanted].condition = Condition.REFUSING
        if wanted != "demo-1":
            scene.cluster.instances[wanted].drop_connections()
        await scene.simulation.sleep(1.0)
        tries = []
        connects = [
            scene.simulation.spawn(scene.process.connect(scene.cluster.conninfo(target, aurora_failover_timeout=12)))
            for _ in range(clients)
        ]
        for each in connects:
            try:
                await each.wait()
            except NoInstanceAvailable as error:
                tries.append(len(error.attempts))
        assert len(tries) == clients
        assert max(tries) <= 50
        conn.close()

    scene.run(client())
    suspicions = len(scene.of(WriterSuspected))
    assert suspicions <= (2 if wanted == "demo-2" else 50 * clients)


def test_the_topology_is_looked_at_while_all_is_well(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_refresh=10))
        scene.cluster.add("demo-9")
        began = scene.now
        await scene.simulation.sleep(14.0)
        added = [at for at, event in scene.of(InstanceAdded) if event.id == "demo-9"]
        assert 10.0 * (1 - poll_interval.JITTER) <= added[0] - began <= 10.0 * (1 + poll_interval.JITTER) + 0.5
        conn.close()

    scene.run(client())
    assert not scene.of(WriterSuspected)


def test_a_refresh_without_an_answer_is_a_doubt(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_refresh=1))
        scene.cluster.crash("demo-1")
        scene.simulation.at(scene.now + 4.0, lambda: scene.cluster.failover("demo-3"))
        await scene.simulation.sleep(8.0)
        assert conn.result.cluster.view.writer == "demo-3"
        conn.close()

    scene.run(client())
    assert scene.of(WriterConfirmed)


def test_a_lost_reader_comes_back_into_use(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.crash("demo-2")
        readers = {(await scene.process.connect(scene.cluster.conninfo("reader"))).instance.id for _ in range(6)}
        assert readers == {"demo-3"}
        await scene.simulation.sleep(20.0)
        cluster = conn.result.cluster
        assert cluster.state.health.quarantine.remaining("demo-2", scene.now) > 0
        scene.cluster.heal("demo-2")
        await scene.simulation.sleep(2.0)
        assert cluster.state.health.quarantine.remaining("demo-2", scene.now) == 0
        last = await scene.process.connect(scene.cluster.conninfo("reader"))
        assert last.instance.id == "demo-2"

    scene.run(client())
    assert len(scene.of(WriterConfirmed)) >= 1, "the writer confirmed itself while the reader was down"


def test_a_former_writer_is_asked_until_it_is_heard_as_a_reader(scene):
    """A connect found the new writer by itself, so that the monitor never noticed that the former one was down."""

    async def client():
        first = await scene.process.connect(scene.cluster.conninfo())
        cluster = first.result.cluster
        await scene.simulation.sleep(0.5)
        assert not cluster.suspected_at
        scene.cluster.crash("demo-1")
        scene.cluster.failover("demo-2")
        second = await scene.process.connect(scene.cluster.conninfo("instance:demo-2"))
        await scene.simulation.sleep(3.0)
        assert cluster.view.writer == "demo-2"
        assert not scene.of(WriterSuspected)
        assert dict(cluster.view.yielded_at) == {}
        back = scene.now
        scene.cluster.heal("demo-1")
        await scene.simulation.sleep(1.5)
        assert back < dict(cluster.view.yielded_at)["demo-1"]
        asked = len(scene.process.monitor_runtime.tasks)
        await scene.simulation.sleep(3.0)
        assert len(scene.process.monitor_runtime.tasks) == asked, "it was heard, so that it is asked no more"
        second.close()
        first.close()

    scene.run(client())


def test_where_all_other_instances_have_just_joined_the_names_are_asked_at_once(scene):
    """So the answer of the new writer seems to be of another cluster."""

    async def client():
        scene.cluster.remove("demo-3")
        first = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.dns_delay = SEARCH_SECONDS / 2
        scene.cluster.add("demo-4")
        scene.cluster.hang("demo-1")
        scene.cluster.failover("demo-2")
        scene.cluster.instances.pop("demo-1")  # it is in no row, and leaves its address silent
        began = scene.now
        second = await scene.process.connect(scene.cluster.conninfo())
        assert second.instance.id == "demo-2"
        assert scene.now - began < 1.0 + ALONE_SECONDS / 2, "a ping's time: the name led to the silent one at first"
        second.close()
        first.close()

    scene.run(client())


@pytest.mark.parametrize("dials", [True, False], ids=["new session", "old session"])
def test_a_dial_of_the_monitor_that_succeeds_brings_an_instance_back_into_use(scene, dials):
    """It was avoided since a user's dial failed. An answer on an old session does not show that it accepts dials."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        cluster = conn.result.cluster
        cluster.suspect_writer("a test: so all are asked, and have a session", scene.now)
        await scene.simulation.sleep(1.0)
        if dials:
            scene.cluster.instances["demo-2"].drop_connections()
        cluster.record_failure("demo-2", scene.now, 30.0, scene.now)
        cluster.suspect_writer("a test: all are asked again", scene.now)
        await scene.simulation.sleep(1.0)
        assert (cluster.state.health.quarantine.remaining("demo-2", scene.now) == 0) is dials
        conn.close()

    scene.run(client())


def test_idle_connections_to_a_demoted_writer_are_cut_and_readers_survive(scene):
    async def client():
        writer = await scene.process.connect(scene.cluster.conninfo())
        readers = [await scene.process.connect(scene.cluster.conninfo("reader")) for _ in range(2)]
        scene.cluster.failover("demo-2", zombie=True)
        scene.cluster.instances["demo-1"].writer = False
        again = await scene.process.connect(scene.cluster.conninfo())
        await scene.simulation.sleep(1.0)
        assert again.instance.id == "demo-2"
        assert writer.broken
        assert not any(each.broken for each in readers)
        for each in (again, *readers):
            each.close()

    scene.run(client())
    assert [event.reason for _, event in scene.of(ConnectionsCut)] == [STALE]


def test_connections_to_a_removed_instance_end_when_idle(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_refresh=1))
        reader = await scene.process.connect(scene.cluster.conninfo("reader", aurora_refresh=1))
        gone = scene.cluster.instances.pop(reader.instance.id)
        reader.waiting = True
        await scene.simulation.sleep(3.0)
        assert gone.id in conn.result.cluster.view.instances, "it may be restarting"
        await scene.simulation.sleep(MISSING_SECONDS + 1.0)
        assert gone.id not in conn.result.cluster.view.instances
        assert not reader.broken, "a statement that is under way may end"
        reader.waiting = False
        await scene.simulation.sleep(1.0)
        assert reader.broken
        conn.close()

    scene.run(client())


def test_a_watch_that_is_not_let_in_leaves_the_search_to_the_users(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        for each in scene.cluster.instances.values():
            each.condition = Condition.REJECTING
        cluster = conn.result.cluster
        cluster.suspect_writer("a test", scene.now)
        await scene.simulation.sleep(1.0)
        assert not cluster.is_monitored
        assert cluster.suspected_at is None
        for each in scene.cluster.instances.values():
            each.condition = Condition.WELL
        scene.cluster.failover("demo-3")
        again = await scene.process.connect(scene.cluster.conninfo())
        assert again.instance.id == "demo-3"
        assert cluster.is_monitored, "the user that logged in passed on how"
        again.close()
        conn.close()

    scene.run(client())
    assert len(scene.of(MonitorLockedOut)) == 1


@pytest.mark.case
def test_only_an_instance_whose_place_is_unknown_is_left_out(scene):
    """A map that lacks a reader: the others are asked, and a failover is found as with a whole one."""
    places = {each.id: f"{each.address}:5432" for each in scene.cluster.instances.values()}
    hosts = ",".join(f"{id_}={place}" for id_, place in places.items() if id_ != "demo-3")

    async def client():
        conninfo = scene.cluster.conninfo(aurora_instance_host=hosts)
        conn = await scene.process.connect(conninfo)
        cluster = conn.result.cluster
        scene.cluster.crash("demo-1")
        scene.simulation.at(scene.now + 2.0, lambda: scene.cluster.failover("demo-2"))
        began = scene.now
        again = await scene.process.connect(conninfo)
        assert again.instance.id == "demo-2"
        assert scene.now - began < 2.2
        assert cluster.is_monitored
        for each in (conn, again):
            each.close()

    scene.run(client())
    assert not scene.of(MonitorLockedOut)


@pytest.mark.case
@pytest.mark.parametrize("host", ["10.0.0.1", "10.9.9.9", "db.internal"])
@pytest.mark.parametrize("readers", [0, 1])
def test_plain_postgresql_is_not_doubted_whatever_it_is_called(host, readers):
    """Its own address, a load balancer's address, a name: with short connections all the time."""
    scene = Scene(readers=readers)
    scene.cluster.aurora = False
    writer = scene.cluster.instances["demo-1"]
    scene.network.listen("10.9.9.9", 5432, scene.cluster, writer)
    scene.network.dns.pin("db.internal", writer.address)

    async def client():
        conninfo = f"host={host} port=5432 dbname=app aurora_refresh=3"
        held = await scene.process.connect(conninfo)
        while scene.now < 12.0:
            (await scene.process.connect(conninfo)).close()
            await scene.simulation.sleep(0.5)
        held.close()

    scene.run(client())
    for kind in (WriterSuspected, MonitorLockedOut, ConnectionsCut):
        assert not scene.of(kind)


@pytest.mark.case
def test_a_watch_whose_password_was_changed_holds_up_no_user(scene):
    """It is refused by the first instance that it asks; a user with the new password does not dial the dead writer."""

    async def client():
        held = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.hang("demo-1")
        hung = scene.now
        for id_ in ("demo-2", "demo-3"):
            scene.simulation.at(hung + 1.9, lambda id_=id_: refuse(id_, Condition.REJECTING))
            scene.simulation.at(hung + 2.3, lambda id_=id_: refuse(id_, Condition.WELL))  # it comes with the new one
        scene.simulation.at(hung + 1.0, lambda: scene.cluster.failover("demo-2", zombie=True))
        with pytest.raises(DialFailed):
            await scene.process.execute(held)
        await scene.simulation.sleep(hung + 2.35 - scene.now)
        again = await scene.process.connect(scene.cluster.conninfo())
        assert again.instance.id == "demo-2"
        assert scene.now - hung < 2.5
        await scene.simulation.sleep(1.0)
        assert again.result.cluster.is_monitored, "a user got in, so it asks again"
        again.close()
        held.close()

    def refuse(id_, condition):
        scene.cluster.instances[id_].condition = condition

    scene.run(client())
    assert len(scene.of(MonitorLockedOut)) == 1


def test_the_monitor_hears_only_of_connects_that_are_news(scene, monkeypatch):
    heard = []

    async def connect(role, **options):
        conn = await scene.process.connect(scene.cluster.conninfo(role), **options)
        return conn, [heard.pop() for _ in list(heard)]

    async def client():
        first, _ = await connect("writer")
        monitor = first.result.cluster.monitor
        original = monitor.on_user_connected
        monkeypatch.setattr(monitor, "on_user_connected", lambda access: (heard.append(access), original(access)))
        assert [len((await connect(role))[1]) for role in ("writer", "reader", "reader", "writer")] == [0, 1, 0, 1]
        strict, news = await connect("writer", aurora_hang_grace=0.2)
        assert len(news) == 1
        strict.close()
        await scene.simulation.sleep(3.0)  # the samples are those of the others again
        assert [len((await connect("writer", aurora_hang_grace=0.2))[1]) for _ in range(2)] == [1, 0]
        monitor.record_lockout("demo-2", Fault(FaultKind.REJECTED, "28P01", "no"), scene.now)
        assert len((await connect("writer", aurora_hang_grace=0.2))[1]) == 1, "the password may be new"

    scene.run(client())


@pytest.mark.parametrize("late", [True, False])
def test_a_refusal_of_the_login_of_before_locks_nobody_out(scene, late):
    """A dial with the old password was under way when a user came with the new one."""

    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        monitor = conn.result.cluster.monitor
        dialled_before = scene.now
        await scene.simulation.sleep(0.5)
        monitor.on_user_connected(replace(monitor.access, params="another password"))
        refusal = Fault(FaultKind.REJECTED, "28P01", "no")
        monitor.record_lockout("demo-2", refusal, dialled_before if late else scene.now)
        assert monitor.is_locked_out("demo-2") is not late
        conn.close()

    scene.run(client())
    assert len(scene.of(MonitorLockedOut)) == (0 if late else 1)


def test_one_instance_that_refuses_the_watch_is_left_out_for_a_while(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        cluster = conn.result.cluster
        scene.cluster.instances["demo-3"].condition = Condition.REJECTING
        before = scene.simulation.counts["dial"]
        scene.cluster.crash("demo-2")
        for _ in range(10):
            cluster.suspect_writer("a test", scene.now)
            await scene.simulation.sleep(3.0)
            assert cluster.suspected_at is None
            assert cluster.is_monitored
        assert scene.simulation.counts["dial"] - before < 60
        conn.close()

    scene.run(client())


def test_it_ends_when_nobody_needs_it(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        cluster = conn.result.cluster
        await scene.simulation.sleep(60.0)
        assert cluster.monitor is not None
        conn.close()
        await scene.simulation.sleep(LINGER_SECONDS + 0.5)
        assert cluster.monitor is None
        await scene.simulation.sleep(20.0)
        assert scene.cluster.open_connections == 0

    scene.run(client())


def test_its_own_connections_are_closed_when_unused(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo(aurora_refresh=1000))
        conn.result.cluster.suspect_writer("a test", scene.now)
        await scene.simulation.sleep(1.0)
        assert scene.cluster.open_connections == 4
        await scene.simulation.sleep(15.0)
        assert scene.cluster.open_connections == 1
        conn.close()

    scene.run(client())


def test_a_failover_that_lasts_too_long_is_told(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        scene.cluster.crash("demo-1")
        began = scene.now
        with pytest.raises(WriterUnavailable) as caught:
            await scene.process.connect(scene.cluster.conninfo(aurora_failover_timeout=5))
        assert 5.0 <= scene.now - began < 6.0
        assert caught.value.sqlstate == "08001"
        assert caught.value.before.writer == "demo-1"
        assert any(isinstance(event, WriterSuspected) for _, event in caught.value.trail)
        conn.close()

    scene.run(client())


def test_an_address_that_another_instance_took_over_tells_nothing_of_the_first(scene):
    async def client():
        conn = await scene.process.connect(scene.cluster.conninfo())
        two, three = scene.cluster.instances["demo-2"], scene.cluster.instances["demo-3"]
        scene.network.listen(two.address, scene.cluster.port, scene.cluster, three)
        conn.result.cluster.suspect_writer("a test", scene.now)
        await scene.simulation.sleep(1.0)
        assert "demo-2" in conn.result.cluster.monitor.unhealthy
        conn.close()

    scene.run(client())


class Fate:
    """What befalls a cluster, and a control plane that puts it right."""

    def __init__(self, cluster: SimulatedCluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.blamed: set[str] = set()

    def harm(self) -> None:
        id_ = self.rng.choice(sorted(self.cluster.instances))
        kind = self.rng.choice(["crash", "hang", "restart", "failover", "zombie"])
        self.blamed.add(id_)
        if kind in {"failover", "zombie"}:
            self._promote(zombie=kind == "zombie")
        elif kind == "restart":
            self.cluster.restart(id_, self.rng.uniform(0.1, 3.0))
        else:
            getattr(self.cluster, kind)(id_)

    def _promote(self, *, zombie: bool) -> None:
        living = [each.id for each in self.cluster.readers if each.condition is Condition.WELL]
        if living:
            self.blamed.update({self.cluster.writer.id, living[0]})
            self.cluster.failover(living[0], zombie=zombie)

    def repair(self) -> None:
        """A writer that answers, all others readers of it, and all views up to date."""
        if self.cluster.writer.condition is not Condition.WELL:
            self._promote(zombie=True)
        for each in self.cluster.instances.values():
            if each is not self.cluster.writer and each.writer:
                each.drop_connections()
                each.writer, each.lag = False, 0.01
            self.cluster.thaw_view(each.id)
            each.condition, each.silent = Condition.WELL, False


async def use(scene: Scene, rng: random.Random, role: str) -> None:
    """Connect, work, connect again, until the end."""
    while scene.now < 40.0:
        conn = await scene.process.connect(scene.cluster.conninfo(role))
        with contextlib.suppress(DialFailed):
            for _ in range(rng.randrange(1, 30)):
                await scene.process.execute(conn, rng.choice([0.0, 0.0, 0.1, 2.0]))
                await scene.simulation.sleep(rng.uniform(0, 0.2))
        conn.close()


@pytest.mark.bulk
@pytest.mark.parametrize("seed", range(60))
def test_any_order_of_faults(seed):
    """A writer is found after every history; no connection is cut but to an instance that was hung or changed."""
    scene, rng = Scene(seed, readers=3), random.Random(seed)
    fate = Fate(scene.cluster, rng)

    async def main() -> None:
        for _ in range(4):
            at = rng.uniform(1.0, 30.0)
            scene.simulation.at(at, fate.harm)
            scene.simulation.at(at + rng.uniform(0.05, 6.0), fate.repair)
        scene.simulation.at(38.0, fate.repair)
        roles = ("writer", "writer", "reader", "reader")
        for task in [scene.simulation.spawn(use(scene, rng, role)) for role in roles]:
            await task.wait()
        conn = await scene.process.connect(scene.cluster.conninfo())
        assert conn.instance is scene.cluster.writer
        conn.close()
        await scene.simulation.sleep(70.0)
        assert scene.cluster.open_connections == 0

    scene.run(main())
    for _, event in scene.of(ConnectionsCut):
        assert event.id in fate.blamed, (seed, event)


def test_a_new_writer_that_refuses_the_monitor_is_left_to_the_users():
    """The password has changed: another instance still answers on a session that the monitor has from before."""
    scene = Scene()

    async def main():
        conn = await scene.process.connect(scene.cluster.conninfo())
        await scene.simulation.sleep(1.0)
        scene.cluster.instances["demo-2"].condition = Condition.REJECTING
        scene.cluster.instances["demo-2"].accept_latency = 0.05  # demo-3 answers before
        scene.cluster.failover("demo-2", zombie=True)
        scene.cluster.hang("demo-1")
        conn.result.cluster.suspect_writer("a connection broke", scene.simulation.now)
        began = scene.simulation.now
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await scene.process.connect(scene.cluster.conninfo())  # because a user connected, not after the whole time
        assert scene.simulation.now - began < SEARCH_SECONDS + 6.0
        assert scene.of(MonitorLockedOut)
        scene.cluster.instances["demo-2"].condition = Condition.WELL
        again = await scene.process.connect(scene.cluster.conninfo())
        assert again.instance.id == "demo-2"
        assert again.result.cluster.is_monitored

    scene.run(main())


def test_a_zombie_of_a_time_that_was_missed_cuts_nothing(scene):
    """The writer lost its role and got it back, unnoticed: the one between shows more log than is known of it."""
    scene.cluster.instances["demo-2"].condition = Condition.REFUSING

    async def client():
        old = await scene.process.connect(scene.cluster.conninfo())
        cluster = old.result.cluster
        await scene.simulation.sleep(1.0)
        cluster.suspect_writer("a test: so all are asked", scene.now)
        await scene.simulation.sleep(1.0)
        reader = await scene.process.connect(scene.cluster.conninfo("reader"))  # so that the monitor goes on
        old.close()
        scene.cluster.failover("demo-2")
        await scene.simulation.sleep(3.0)
        scene.cluster.failover("demo-1", zombie=True)
        held = await scene.process.connect(scene.cluster.conninfo())
        assert held.instance.id == "demo-1"
        scene.cluster.heal("demo-2")
        await scene.simulation.sleep(5.0)
        assert cluster.view.writer == "demo-1"
        held.close()
        reader.close()

    scene.run(client())
    assert not scene.of(ConnectionsCut)
    assert {event.claimed for _, event in scene.of(ClaimRefused)} == {"demo-2"}
