from __future__ import annotations

import asyncio
import contextlib

import pytest

from aurora_router_cluster.errors import EngineError, NameTakenError
from aurora_router_cluster.hosts.link import HostLink, HostServer, serving

SECRET = "between us"


class Agent:
    """An agent that writes down what it was asked for, in order."""

    def __init__(self):
        self.done = []
        self.go_on = asyncio.Event()
        self.server = HostServer(SECRET, self.operations(), lambda: {"done": len(self.done)})

    def operations(self):
        return {"note": self.note, "slow": self.slow, "refuse": self.refuse, "break": lambda _f, _d: 1 / 0}

    def note(self, facts, data):
        self.done.append(facts.get("what", data))

    async def slow(self, facts, data):
        self.done.append("slow")
        await self.go_on.wait()
        return {"size": len(data)}

    def refuse(self, facts, data):
        raise NameTakenError("taken")


@contextlib.asynccontextmanager
async def pair(secret=SECRET, **calls):
    agent = Agent()
    async with serving(agent.server, "127.0.0.1", 0) as server:
        port = server.port
        link = HostLink("127.0.0.1", port, secret, **calls)
        link.start()
        try:
            yield agent, link
        finally:
            await link.close()


async def until(condition):
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the condition never came true")


async def test_requests_are_done_in_their_order_and_an_answer_finds_its_request():
    async with pair() as (agent, link):
        await link.await_connection(30)
        for number in range(50):
            _ = link.post("note", {"what": number})
        slow = asyncio.ensure_future(link.ask("slow", data=b"x" * 3_000_000, timeout=30))
        await until(lambda: "slow" in agent.done)
        for number in range(50, 100):
            _ = link.post("note", {"what": number})
        await link.ask("note", {"what": "last"}, timeout=30)
        assert agent.done == [*range(50), "slow", *range(50, 100), "last"]
        agent.go_on.set()
        assert (await slow).facts == {"size": 3_000_000}


async def test_what_goes_wrong_there_is_raised_here():
    async with pair() as (_, link):
        await link.await_connection(30)
        with pytest.raises(NameTakenError, match=r"^taken$"):
            await link.ask("refuse", timeout=30)
        with pytest.raises(EngineError, match="ZeroDivisionError"):
            await link.ask("break", timeout=30)
        with pytest.raises(EngineError, match="KeyError"):
            await link.ask("no such thing", timeout=30)
        with pytest.raises(EngineError, match=r"did not answer 'slow' within 0.05 s"):
            await link.ask("slow", timeout=0.05)


async def test_no_report_is_older_than_what_was_sent_last():
    seen = []
    async with pair(reported=lambda report: seen.append((report["done"], len(sent)))) as (_, link):
        sent = []
        await link.await_connection(30)
        for number in range(200):
            sent.append(number)
            _ = link.post("note", {"what": number})
            if number % 7 == 0:
                await asyncio.sleep(0.001)
        await link.ask("note", timeout=30)
        assert seen
        assert all(done >= known for done, known in seen)


async def test_another_secret_is_not_let_in_and_told_to_nobody():
    async with pair(secret="wrong") as (agent, link):
        with pytest.raises(EngineError, match="does it know the same secret"):
            await link.await_connection(0.5)
        with pytest.raises(EngineError, match="cannot be reached"):
            await link.ask("note", timeout=10)
        assert agent.done == []


async def test_an_agent_that_ends_is_gone_and_found_again():
    lost, introduced = [], []
    async with pair(lost=lost.append, introduced=lambda: introduced.append(1)) as (agent, link):
        await link.await_connection(30)
        port = link.port
        pending = link.post("slow")
        await until(lambda: agent.done)
        await agent.server.close()
        with pytest.raises(EngineError, match="ended"):
            await pending
        await until(lambda: lost and not link.connected)
        assert lost[0] is True
        again = Agent()
        async with serving(again.server, "127.0.0.1", port):
            await link.await_connection(30)
            await link.ask("note", {"what": "again"}, timeout=30)
            assert again.done == ["again"]
            assert len(introduced) == 2


async def test_one_that_says_nothing_is_silent_not_gone(monkeypatch):
    monkeypatch.setattr(HostLink, "patience", 0.2)
    lost, accepted = [], []
    server = await asyncio.start_server(lambda _reader, writer: accepted.append(writer), "127.0.0.1", 0)
    link = HostLink("127.0.0.1", server.sockets[0].getsockname()[1], SECRET, lost=lost.append)
    link.start()
    await until(lambda: lost)
    assert lost[0] is False
    assert not link.connected
    await link.close()
    for writer in accepted:
        writer.transport.abort()
    server.close()
