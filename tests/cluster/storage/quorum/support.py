"""A cluster without control plane: engines over a quorum volume, in the test's own event loop."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg

from aurora_router_cluster.postgres.endpoints import EngineAddress
from aurora_router_cluster.postgres.engine import Engine, State
from aurora_router_cluster.storage.quorum import QuorumVolume


async def until(condition, what: str, timeout: float = 20.0) -> None:
    """Wait until `condition` (a function, or a coroutine function) is true."""
    deadline = time.monotonic() + timeout
    while True:
        result = condition()
        if asyncio.iscoroutine(result):
            result = await result
        if result:
            return
        assert time.monotonic() < deadline, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.002)


class Cluster:
    """Engines, one of them the writer, over one quorum volume."""

    def __init__(self, binaries, account, directory, *, sync: bool = False, **options: Any) -> None:
        options.setdefault("retention", 0.0)  # no history is kept
        self.binaries, self.account, self.directory = binaries, account, directory
        self.volume = QuorumVolume(binaries, account, directory / "storage", sync=sync, **options)
        self.engines: dict[str, Engine] = {}
        self.writer: Engine | None = None
        self._connections: list[psycopg.AsyncConnection[Any]] = []

    def address(self, engine: Engine) -> EngineAddress:
        return EngineAddress(engine.name, engine.home, engine.port, "postgres", engine.data)

    async def start(self, template, readers: int = 1) -> None:
        await self.volume.open(template)
        self.writer = await self.make("writer")
        self.writer.configure(self.volume.writer_settings(), standby=False)
        self.writer.start()
        names = [f"reader-{i}" for i in range(1, readers + 1)]
        await asyncio.gather(*(self.add_reader(name) for name in names))
        await self.writer.wait(State.READY)
        await self.volume.attach(self.address(self.writer))

    async def make(self, name: str) -> Engine:
        engine = Engine(name, self.directory / name, self.binaries, self.account)
        self.engines[name] = engine
        engine.make_home()
        await self.volume.seed(self.address(engine), None)
        return engine

    async def add_reader(self, name: str) -> Engine:
        engine = await self.make(name)
        await self.start_reader(engine)
        return engine

    async def start_reader(self, engine: Engine) -> None:
        engine.configure(self.volume.reader_settings(engine.name, None), standby=True)
        engine.start()
        await engine.wait()

    async def connect(self, engine: Engine | None = None, **options: Any) -> psycopg.AsyncConnection[Any]:
        engine = engine or self.writer
        connection = await psycopg.AsyncConnection.connect(
            host=str(engine.home), port=engine.port, user="postgres", dbname="postgres", autocommit=True, **options
        )
        self._connections.append(connection)
        return connection

    async def fail_over(self, candidate: Engine) -> dict[str, float]:
        """Fence, recover, replay, promote, attach; returns the seconds of each phase."""
        watcher = await self.connect(candidate)
        times, last = {}, time.perf_counter()

        def lap(name: str) -> None:
            nonlocal last
            now = time.perf_counter()
            times[name], last = now - last, now

        point = await self.volume.recover()
        lap("recover")
        replayed = "select coalesce(pg_last_wal_replay_lsn() - '0/0', 0) >= %s"
        await until(lambda: value(watcher, replayed, point.lsn), f"{candidate.name} replays to {point.lsn:#x}")
        lap("replay")
        await candidate.promote()
        lap("promote")
        await self.volume.attach(self.address(candidate))
        lap("attach")
        self.writer = candidate
        return times

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()
        for engine in self.engines.values():
            engine.kill()
        await self.volume.close()


async def value(connection, query: str, *parameters) -> Any:
    """The first column of the first row."""
    row = await (await connection.execute(query, parameters)).fetchone()
    return row[0]
