"""What the heartbeat makes of what it sees; no instance runs here."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from aurora_router_cluster.control import heartbeat as heartbeat_module
from aurora_router_cluster.control.heartbeat import DISPUTED_AFTER, DIVERGED_AFTER, Heartbeat
from aurora_router_cluster.control.instance import Instance
from aurora_router_cluster.control.sampling import LogClock
from aurora_router_cluster.postgres.addresses import Address
from aurora_router_cluster.postgres.engine import Engine


@pytest.fixture
def reader(tmp_path):
    return Instance(
        Engine("demo-2", tmp_path, None, None), "eu-test-1a", 1, Address("127.0.0.1", 5432), state="available"
    )


class Watched:
    """A reader beside a writer whose log grows by 100 bytes with each look."""

    def __init__(self, reader, monkeypatch) -> None:
        self.reader = reader
        self.now = 1000.0
        self.written = 10_000
        self.clock = LogClock()
        monkeypatch.setattr("aurora_router_cluster.control.instance.time.monotonic", lambda: self.now)
        self.durable = None
        volume = SimpleNamespace(durable_lsn=lambda: self.durable)
        state = SimpleNamespace(writer=SimpleNamespace(available=True), clock=self.clock, volume=volume)
        self.heartbeat = Heartbeat(state, None, interval=0.2, auto=True)

    def look(self, received, applied, *, streaming, after=0.2):
        self.now += after
        self.written += 100
        self.clock.observe(self.now, self.written)
        row = ("t", str(received), str(applied), None, "0", "0", "0", "3", "t" if streaming else "f", "0")
        self.reader._on_answer([row])
        return self.heartbeat._is_diverged(self.reader)


@pytest.fixture
def watched(reader, monkeypatch):
    return Watched(reader, monkeypatch)


@pytest.mark.case
def test_a_reader_that_replays_what_it_received_needs_no_stream(watched):
    """PostgreSQL starts its stream again only when it has replayed what it has: a break is no reason to rebuild it."""
    applied = 1_000
    while applied < 9_000:
        applied += 100
        assert not watched.look(9_000, applied, streaming=False)
    assert watched.now > 1000.0 + 2 * DIVERGED_AFTER


@pytest.mark.parametrize("streaming", [True, False])
def test_a_reader_that_neither_receives_nor_replays_has_diverged_after_a_while(watched, streaming):
    looks = 1
    while not watched.look(9_000, 9_000, streaming=streaming):
        looks += 1
    assert DIVERGED_AFTER < looks * 0.2 < DIVERGED_AFTER + 1.0
    assert not watched.look(9_100, 9_000, streaming=streaming)


@pytest.mark.parametrize("streaming", [True, False])
def test_a_supervisor_that_stood_still_finds_no_reader_is_diverged(watched, streaming):
    """It is the supervisor that sends the log: that none came while it stood still is no evidence about the reader."""
    assert not watched.look(9_000, 9_000, streaming=streaming)
    assert not watched.look(9_000, 9_000, streaming=streaming)
    for _ in range(3):
        assert not watched.look(9_000, 9_000, streaming=streaming, after=4.0)
    assert not watched.look(9_100, 9_000, streaming=True)


def test_while_no_commit_is_durable_a_reader_that_has_all_that_is_has_not_diverged(watched):
    watched.durable = 9_000
    for _ in range(40):
        assert not watched.look(9_000, 9_000, streaming=True)
    watched.durable = 9_100
    assert watched.look(9_000, 9_000, streaming=True)


def test_storage_nodes_may_obey_another_epoch_for_a_while(monkeypatch):
    now, volume = [100.0], SimpleNamespace(disputed=True)
    monkeypatch.setattr(heartbeat_module.time, "monotonic", lambda: now[0])
    heartbeat = Heartbeat(SimpleNamespace(volume=volume), None, interval=0.2, auto=True)
    assert not heartbeat._is_disputed()
    now[0] += DISPUTED_AFTER - 0.1
    assert not heartbeat._is_disputed()
    volume.disputed = False
    assert not heartbeat._is_disputed()
    volume.disputed = True
    now[0] += 0.2
    assert not heartbeat._is_disputed()
    now[0] += DISPUTED_AFTER
    assert heartbeat._is_disputed()


async def test_it_beats_on_after_a_beat_that_failed(reader, caplog):
    """Once the supervisor had no descriptor left for a moment, and nothing was replaced or repaired any more."""
    looks = []

    def write_status():
        looks.append(1)
        if len(looks) < 3:
            raise OSError(24, "Too many open files", "/proc")

    state = SimpleNamespace(
        writer=None, readers=[], instances={}, write_status=write_status, lock=asyncio.Lock(),
        pace=SimpleNamespace(detection=1e9), clock=LogClock(),
    )  # fmt: skip
    heartbeat = Heartbeat(state, None, interval=0.001, auto=True)
    heartbeat.start()
    try:
        while len(looks) < 6 and not heartbeat._pulse.done():  # noqa: ASYNC110 - it is the loop that is looked at
            await asyncio.sleep(0.001)
    finally:
        await heartbeat.close()
    assert len(looks) >= 6
    assert caplog.text.count("a heartbeat failed") == 2


async def test_a_repair_that_fails_in_any_way_is_tried_again_later(caplog):
    heartbeat = Heartbeat(SimpleNamespace(), None, interval=0.2, auto=True)

    async def repair():
        raise RuntimeError("not foreseen")

    heartbeat._begin("demo-1", repair())
    await heartbeat._repairs["demo-1"]
    assert "demo-1: a repair failed" in caplog.text
    assert "not foreseen" in caplog.text
    heartbeat._begin("demo-1", repair())  # too early: it is not begun
    assert heartbeat._repairs["demo-1"].done()
