"""What the heartbeat makes of what it sees; no instance runs here."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_router_cluster.control.heartbeat import DIVERGED_AFTER, Heartbeat
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
        state = SimpleNamespace(writer=SimpleNamespace(available=True), clock=self.clock)
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
