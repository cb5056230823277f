"""Reads with a causal token, on plain PostgreSQL of a simulation: three hosts, the writer first."""

from __future__ import annotations

import pytest

from aurora_router import CausalToken, CausalTokenRejected
from aurora_router.errors import NoInstanceAvailable
from aurora_router.model.causal_token import LogPosition, NoProof
from tests.flow.scene import Scene

LSN_PER_SECOND = 1000


class PlainScene(Scene):
    """PostgreSQL without Aurora's functions."""

    def __init__(self, readers=2, **made):
        super().__init__(readers=readers, aurora=False, **made)
        self.instances = self.cluster.instances
        self.hosts = "host=" + ",".join(each.address for each in self.instances.values()) + " dbname=app"

    def token(self, *, trusted=True, timeline=None, ahead=0):
        writer = next(each for each in self.instances.values() if each.writer)
        proof = LogPosition(writer.system, timeline or writer.timeline, self.cluster.durable_lsn + ahead)
        return CausalToken(proof, is_trusted=trusted)

    async def read(self, after, **options):
        """Which instance serves a read, and after how many seconds."""
        began = self.simulation.now
        connection = await self.process.connect(self.hosts, after=after, **{"aurora_role": "reader", **options})
        name, took = connection.instance.id, self.simulation.now - began
        connection.close()
        return name, took

    async def warm_up(self):
        for _ in range(4):
            (await self.process.connect(self.hosts, aurora_role="any")).close()

    def open_connections(self):
        return [each.id for each in self.instances.values() for _ in each.connections]


@pytest.fixture
def scene():
    return PlainScene()


def test_a_reader_that_is_behind_a_little_is_waited_for(scene):
    async def client():
        await scene.warm_up()
        name, took = await scene.read(scene.token())
        assert name != "demo-1"
        assert took >= 0.005, "lag is 10 ms, a dial takes less"
        return took

    assert scene.run(client()) < 0.05


def test_the_reader_that_has_replayed_serves(scene):
    """One of the two stopped replaying: reads go to the other one, whichever comes first."""
    scene.instances["demo-2"].lag = 60.0

    async def client():
        await scene.warm_up()
        return [await scene.read(scene.token()) for _ in range(6)]

    served = scene.run(client())
    assert {name for name, _ in served} == {"demo-3"}
    assert max(took for _, took in served) < 0.1


def test_reads_are_balanced_among_readers_that_have_replayed(scene):
    async def client():
        await scene.warm_up()
        token = scene.token()
        await scene.simulation.sleep(1.0)
        held = [await scene.process.connect(scene.hosts, after=token, aurora_role="reader") for _ in range(6)]
        return sorted(each.instance.id for each in held)

    assert scene.run(client()) == ["demo-2"] * 3 + ["demo-3"] * 3


@pytest.mark.parametrize("wait", [0.0, 0.2, 1.0])
def test_when_the_wait_is_over_the_writer_serves(scene, wait):
    for name in ("demo-2", "demo-3"):
        scene.instances[name].lag = 60.0

    async def client():
        await scene.warm_up()
        return await scene.read(scene.token(), aurora_causal_wait=wait)

    name, took = scene.run(client())
    assert name == "demo-1"
    assert wait <= took < wait + 0.2


def test_a_reader_that_falls_silent_is_waited_for_no_longer(scene):
    """It was connected, and behind; the writer serves when the wait is over, long before a query times out."""
    scene.instances["demo-2"].lag = scene.instances["demo-3"].lag = 60.0

    async def client():
        await scene.warm_up()
        for name in ("demo-2", "demo-3"):
            scene.simulation.at(scene.simulation.now + 0.1, lambda name=name: scene.cluster.hang(name))
        return await scene.read(scene.token(), aurora_causal_wait=0.4)

    name, took = scene.run(client())
    assert name == "demo-1"
    assert took < 2.0


def test_where_the_writer_may_not_serve_it_is_an_error(scene):
    for name in ("demo-2", "demo-3"):
        scene.instances[name].lag = 60.0

    async def client():
        await scene.warm_up()
        with pytest.raises(NoInstanceAvailable, match=r"10\.0\.0\.2: it is at .*aurora_reader_fallback=error"):
            await scene.read(scene.token(), aurora_reader_fallback="error")

    scene.run(client())


def test_after_a_failover_an_old_token_sends_to_the_writer_at_once(scene):
    async def client():
        await scene.warm_up()
        old = scene.token()
        scene.cluster.failover("demo-2")
        await scene.simulation.sleep(5.0)
        with_old = await scene.read(old)
        with_new = await scene.read(scene.token())
        return with_old, with_new

    (with_old, took), (with_new, _) = scene.run(client())
    assert with_old == "demo-2"
    assert took < 0.2, "no wait would help"
    assert with_new in {"demo-1", "demo-3"}


@pytest.mark.parametrize("trusted", [True, False])
def test_a_position_beyond_the_writer_is_refused(scene, trusted):
    """One that was not signed is refused before any reader is waited for."""

    async def client():
        await scene.warm_up()
        began = scene.simulation.now
        with pytest.raises(CausalTokenRejected, match="has not reached"):
            await scene.read(scene.token(trusted=trusted, ahead=100 * LSN_PER_SECOND), aurora_causal_wait=3)
        return scene.simulation.now - began

    took = scene.run(client())
    assert took >= 3 if trusted else took < 0.1


def test_an_honest_token_without_a_signature_is_waited_for(scene):
    async def client():
        await scene.warm_up()
        return await scene.read(scene.token(trusted=False))

    name, took = scene.run(client())
    assert name != "demo-1"
    assert took < 0.1


@pytest.mark.parametrize("ahead", [0, 100 * LSN_PER_SECOND])
def test_a_writer_that_may_not_serve_is_asked_about_a_token_without_a_signature(scene, ahead):
    async def client():
        await scene.warm_up()
        return await scene.read(scene.token(trusted=False, ahead=ahead), aurora_reader_fallback="error")

    if ahead:
        with pytest.raises(CausalTokenRejected, match="has not reached"):
            scene.run(client())
    else:
        name, took = scene.run(client())
        assert name != "demo-1"
        assert took < 0.1


def test_a_token_of_another_cluster_is_refused(scene):
    token = CausalToken(LogPosition("999", 1, 1), is_trusted=True)

    async def client():
        await scene.warm_up()
        for role in ("reader", "writer"):
            with pytest.raises(CausalTokenRejected, match="another cluster"):
                await scene.read(token, aurora_role=role)

    scene.run(client())


def test_a_writer_that_was_replaced_is_not_taken_for_the_writer(scene):
    """The token is of a timeline that this process has not heard of: another process has been there already."""

    async def client():
        await scene.warm_up()
        token = scene.token(timeline=2)
        scene.simulation.at(scene.simulation.now + 3.0, lambda: scene.cluster.failover("demo-2"))
        return await scene.read(token)

    name, took = scene.run(client())
    assert name == "demo-2"
    assert took >= 3.0


def test_a_token_without_a_proof_sends_to_the_writer_at_once(scene):
    async def client():
        await scene.warm_up()
        return await scene.read(CausalToken(NoProof()))

    name, took = scene.run(client())
    assert name == "demo-1"
    assert took < 0.1


def test_a_pinned_reader_is_not_left(scene):
    scene.instances["demo-2"].lag = 60.0

    async def client():
        await scene.warm_up()
        host = scene.instances["demo-2"].address
        with pytest.raises(NoInstanceAvailable, match="the name is that of certain instances"):
            await scene.process.connect(
                f"host={host} dbname=app", after=scene.token(), aurora_role="reader", aurora_failover_timeout=1
            )

    scene.run(client())


@pytest.mark.parametrize("lag", [0.01, 60.0])
def test_nothing_stays_open(scene, lag):
    for name in ("demo-2", "demo-3"):
        scene.instances[name].lag = lag

    async def client():
        before = len(scene.open_connections())
        for trusted in (True, False):
            await scene.read(scene.token(trusted=trusted))
            with pytest.raises(CausalTokenRejected):
                await scene.read(scene.token(trusted=trusted, ahead=10**9))
        return len(scene.open_connections()) - before

    assert scene.run(client()) == 0


def test_on_aurora_a_log_position_proves_nothing():
    scene = Scene(readers=2)
    token = CausalToken(LogPosition(scene.cluster.instances["demo-1"].system, 1, 1), is_trusted=True)

    async def client():
        return (await scene.process.connect(scene.cluster.conninfo("reader"), after=token)).instance.id

    assert scene.run(client()) == "demo-1"
