"""A node behind a loopback socket: the same answers as without one, and no answer where there can be none."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import pytest

from aurora_router_cluster.rpc import framing, proof
from aurora_router_cluster.rpc.proof import Identity
from aurora_router_cluster.rpc.server import MOST_STRANGERS
from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused
from aurora_router_cluster.storage.core.extents import Extent
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.journal import DiskJournal
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.remote import RemoteNode
from aurora_router_cluster.storage.server import NodeServer
from tests.cluster.storage.quorum.support import until

BASE = 100
CHARTER = Charter(History((EpochStart(1, BASE),)), Membership.of(range(6)))


class Sink:
    def __init__(self) -> None:
        self.news: asyncio.Queue = asyncio.Queue()

    def on_ack(self, node, group, scl):
        self.news.put_nowait(("acked", node, group, scl))

    def on_refusal(self, node, promised):
        self.news.put_nowait(("refused", node, promised))


class Place:
    """A node, its server, and the address that stays its own."""

    def __init__(self, directory) -> None:
        self.directory = directory
        self.node: StorageNode | None = None
        self.server: NodeServer | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.address = probe.getsockname()

    async def start(self, secret="secret", number=3):
        self.node = StorageNode(number, DiskJournal(self.directory, sync=False))
        self.server = NodeServer(self.node, secret)
        await self.server.listen_on(socket.create_server(self.address))

    async def stop(self):
        if self.server is not None:
            await self.server.close()
            await self.node.close()
            self.server = None


@pytest.fixture
async def place(tmp_path):
    made = Place(tmp_path / "node")
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def remote(place):
    made = RemoteNode(3, "secret")
    made.connect(*place.address)
    await asyncio.wait_for(made.wait_connected(), 30)
    yield made
    await made.disconnect()


async def test_it_answers_as_the_node_does(place, remote):
    state = await remote.format(CHARTER)
    assert state == await place.node.state()
    assert (await remote.promise(2)).promised == 2
    charter = Charter(CHARTER.history.extend(2, BASE), CHARTER.membership)
    await remote.adopt(2, charter)
    extents = [Extent(0, BASE, BASE, b"0123456789"), Extent(0, BASE + 10, BASE + 10, b"abcdef")]
    assert (await remote.fill(2, extents)).scls == {0: BASE + 16}
    assert list(await remote.pull(2, 0, BASE, 1 << 20)) == extents
    assert list(await remote.spans(0, BASE)) == [(e.prev, e.start, e.end) for e in extents]
    assert await remote.read(2, BASE + 8, 4) == b"89ab"
    assert await remote.state() == await place.node.state()
    assert await remote.find_damage() == (0, [])
    await remote.rewrite_metadata()


async def test_a_refusal_comes_back_as_one(remote):
    await remote.format(CHARTER)
    await remote.promise(7)
    with pytest.raises(Refused, match="has promised epoch 7") as caught:
        await remote.promise(7)
    assert caught.value.promised == 7


async def test_log_is_acknowledged_or_refused_to_the_sink_that_sent_it(remote):
    await remote.format(CHARTER)
    old, new = Sink(), Sink()
    remote.append(1, BASE, Extent(0, BASE, BASE, b"abc"), old)
    assert await asyncio.wait_for(old.news.get(), 30) == ("acked", 3, 0, BASE + 3)
    await remote.promise(2)
    await remote.adopt(2, Charter(CHARTER.history.extend(2, BASE + 3), CHARTER.membership))
    remote.append(1, BASE, Extent(0, BASE + 3, BASE + 3, b"zombie"), old)
    assert await asyncio.wait_for(old.news.get(), 30) == ("refused", 3, 2)
    remote.append(2, BASE, Extent(0, BASE + 3, BASE + 3, b"d"), new)
    assert await asyncio.wait_for(new.news.get(), 30) == ("acked", 3, 0, BASE + 4)
    assert remote.scls == {0: BASE + 4}
    assert old.news.empty()


async def test_a_node_that_went_away_fails_at_once_and_is_found_again(place):
    ups: list[int] = []
    remote = RemoteNode(3, "secret", ups.append)
    remote.connect(*place.address)
    try:
        await asyncio.wait_for(remote.wait_connected(), 30)
        await remote.format(CHARTER)
        await place.stop()
        await until(lambda: not remote.connected, "the connection has ended")
        with pytest.raises(NodeUnavailable, match="no connection"):
            await remote.state()
        await place.start()
        await asyncio.wait_for(remote.wait_connected(), 30)
        assert (await remote.state()).promised == 1
        assert ups == [3, 3]
    finally:
        await remote.disconnect()
    with pytest.raises(NodeUnavailable, match="it is down"):
        await remote.state()


@pytest.mark.parametrize(("secret", "number"), [("guess", 3), ("secret", 4)])
async def test_who_does_not_know_the_secret_or_means_another_node_gets_nowhere(place, secret, number):
    stranger = RemoteNode(number, secret)
    stranger.connect(*place.address)
    try:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(stranger.wait_connected(), 0.3)
        with pytest.raises(NodeUnavailable):
            await stranger.state()
    finally:
        await stranger.disconnect()


async def test_requests_before_the_proof_end_the_connection(place):
    reader, writer = await asyncio.open_connection(*place.address)
    try:
        hello = await reader.readexactly(framing.HEADER.size + 32)
        assert framing.HEADER.unpack_from(hello)[1] == framing.HELLO
        writer.write(framing.frame(framing.REQUEST, 1, framing.pack({"op": "state"})))
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    finally:
        writer.close()


async def test_a_node_that_says_nothing_is_given_up_after_the_deadline():
    answers = []

    async def mute(reader, writer):
        """Authenticate, and then say nothing."""
        answers.append(writer)
        theirs = proof.nonce()
        writer.write(framing.frame(framing.HELLO, 3, theirs))
        claim = await reader.readexactly(framing.HEADER.size + 64)
        ours = claim[framing.HEADER.size : framing.HEADER.size + 32]
        writer.write(
            framing.frame(framing.PROOF, 3, proof.prove("secret", proof.SERVER, Identity("node", 3), theirs, ours))
        )

    server = await asyncio.start_server(mute, "127.0.0.1", 0)
    remote = RemoteNode(3, "secret")
    remote.connect(*server.sockets[0].getsockname())
    try:
        await asyncio.wait_for(remote.wait_connected(), 30)
        with pytest.raises(NodeUnavailable, match=r"did not answer 'state' within 0\.05 s"):
            await remote.ask("state", timeout=0.05)
    finally:
        await remote.disconnect()
        for writer in answers:
            writer.close()
        server.close()


async def test_a_cancellation_that_is_swallowed_does_not_keep_the_connection_up(monkeypatch):
    """As `asyncio.wait_for` does before Python 3.12 where an exception comes at the same moment."""
    trying = asyncio.Event()

    async def introduce(*_):
        trying.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise ConnectionResetError("at the same moment") from None

    async def wait_for(awaitable, _seconds):
        return await awaitable

    monkeypatch.setattr(RemoteNode, "_introduce", introduce)
    monkeypatch.setattr("aurora_router_cluster.rpc.client.asyncio.wait_for", wait_for)
    remote = RemoteNode(1, "secret")
    remote.connect("127.0.0.1", 1)
    await trying.wait()
    ending = asyncio.create_task(remote.disconnect())
    done, _ = await asyncio.wait([ending], timeout=5)
    assert done


async def test_callers_that_prove_nothing_are_few(place, remote):
    strangers = [await asyncio.open_connection(*place.address) for _ in range(60)]
    await until(lambda: len(place.server.callers) == MOST_STRANGERS + 1, "the oldest ones were cut")
    assert await remote.format(CHARTER)
    for _, writer in strangers:
        writer.close()
