"""A client program that is controlled through its standard input: many workers, failover after failover.

``python leaking.py threads|tasks CONNINFO WORKERS``; it answers each line with one of JSON. ``round``: every worker
writes until it has succeeded once; ``rest``: what the process holds when it has come to rest; ``exit``: the time. Its
pools have a fixed size: one that grows under load would look like a leak.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg

import aurora_router
from aurora_router.pool import AsyncConnectionPool, ConnectionPool

PATIENCE = 300.0
INSERT = "INSERT INTO ledger VALUES (%s)"
SETTLED = 12.0
"""After so many seconds the monitor has closed those of its connections that were not needed."""


def held() -> dict[str, float]:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    process = Path("/proc/self")
    lines = (process / "smaps_rollup").read_text().splitlines()
    private = sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))
    return {
        "threads": len(list((process / "task").iterdir())),
        "files": len(list((process / "fd").iterdir())),
        "kb": private,
    }


def rest() -> dict[str, float]:
    """What is held when nothing has changed for a while."""
    deadline, since, before = time.monotonic() + PATIENCE, time.monotonic(), held()
    while time.monotonic() - since < SETTLED and time.monotonic() < deadline:
        time.sleep(0.5)
        now = held()
        if (now["threads"], now["files"]) != (before["threads"], before["files"]):
            since = time.monotonic()
        before = now
    return before


def commands():
    for line in sys.stdin:
        yield line.strip()


def said(**what) -> None:
    print(json.dumps(what), flush=True)


class Threads:
    """Threads; every other one takes its connections from a pool."""

    def __init__(self, conninfo: str, workers: int) -> None:
        self.conninfo, self.workers = conninfo, workers
        self.pool = ConnectionPool(conninfo, min_size=8, max_size=8, kwargs={"autocommit": True}, timeout=PATIENCE)

    def write(self, number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if number % 2:
                    with self.pool.connection() as connection:
                        connection.execute(INSERT, [number])
                else:
                    with aurora_router.connect(self.conninfo, autocommit=True) as connection:
                        connection.execute(INSERT, [number])
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def run(self) -> None:
        for command in commands():
            if command == "round":
                threads = [threading.Thread(target=self.write, args=[number]) for number in range(self.workers)]
                for each in threads:
                    each.start()
                for each in threads:
                    each.join()
                said(done=True)
            elif command == "rest":
                said(**rest())
            else:
                break
        self.pool.close()


class Tasks:
    """Tasks of one event loop; every tenth connects by itself."""

    def __init__(self, conninfo: str, workers: int) -> None:
        self.conninfo, self.workers = conninfo, workers

    async def write(self, pool, few, number: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if number % 10:
                    async with pool.connection() as connection:
                        await connection.execute(INSERT, [number])
                else:
                    async with (
                        few,
                        await aurora_router.AsyncConnection.connect(self.conninfo, autocommit=True) as connection,
                    ):
                        await connection.execute(INSERT, [number])
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.02)
            else:
                return

    async def main(self) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))  # or it adds threads when it likes
        few, given = asyncio.Semaphore(10), {"autocommit": True}
        async with AsyncConnectionPool(
            self.conninfo, min_size=16, max_size=16, kwargs=given, timeout=PATIENCE, open=False
        ) as pool:
            while True:
                command = await asyncio.to_thread(sys.stdin.readline)
                if command.strip() == "round":
                    await asyncio.gather(*(self.write(pool, few, number) for number in range(self.workers)))
                    said(done=True)
                elif command.strip() == "rest":
                    said(**await asyncio.to_thread(rest))
                else:
                    return

    def run(self) -> None:
        asyncio.run(self.main())


if __name__ == "__main__":
    kind, conninfo, workers = sys.argv[1:]
    {"threads": Threads, "tasks": Tasks}[kind](conninfo, int(workers)).run()
    said(at=time.monotonic())
