"""A writer, its log in memory and the endpoint, around real engines; for the tests of both ends of the protocol."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import psycopg

from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.postgres import binaries, settings, template
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.engine import Engine
from aurora_router_cluster.wire.endpoint import WalEndpoint
from aurora_router_cluster.wire.handshake import Login
from aurora_router_cluster.wire.replication import parse_lsn
from aurora_router_cluster.wire.scram import ScramVerifier
from aurora_router_cluster.wire.source import Timeline
from aurora_router_cluster.wire.walreceiver import WalReceiver, WriterAddress
from tests.cluster.wire.memory import MemoryLog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECRET = "0123-replication-secret"
USER = "aurora_storage"


def installed() -> dict[int, binaries.Binaries]:
    """The newest of each major version that this machine has."""
    account, found = Account.default(), dict[int, binaries.Binaries]()
    for place, source in binaries._places():
        try:
            one = binaries.reachable(binaries.inspect(place, source), account)
        except BinariesError:
            continue
        found.setdefault(one.major, one)
    return found


async def until(condition: Callable[[], object], what: str, timeout: float = 30.0) -> None:
    """Wait for a condition that is cheap to test."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.005)


def ask(engine: Engine, sql: str) -> str | None:
    """One value from an instance, as text; None while it takes no connections or has not replayed the table."""
    try:
        with psycopg.connect(
            host=str(engine.home), port=engine.port, user=settings.SUPERUSER, dbname="postgres", autocommit=True
        ) as connection:
            cursor = connection.execute(sql)
            row = cursor.fetchone() if cursor.description else None
    except (psycopg.OperationalError, psycopg.errors.UndefinedTable):
        return None
    return None if row is None else str(row[0])


async def asked(engine: Engine, sql: str) -> str | None:
    return await asyncio.to_thread(ask, engine, sql)


async def until_asked(engine: Engine, sql: str, wanted: str, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while (got := await asked(engine, sql)) != wanted:
        assert time.monotonic() < deadline, f"{engine.name}: {sql} is {got!r}, not {wanted!r}\n{engine.log_tail(40)}"
        await asyncio.sleep(0.01)


class Rig:
    """One cluster over a `MemoryLog`: what is received is durable unless `held`."""

    def __init__(self, home: Path, programs: binaries.Binaries) -> None:
        self.home = home
        self.programs = programs
        self.account = Account.default()
        self.engines: dict[str, Engine] = {}
        self.receiver: WalReceiver | None = None
        self.held = False

    async def open(self) -> None:
        self.template = await asyncio.to_thread(template.ensure, self.programs, self.account)
        control = template.control_data(self.programs, self.account, self.template)
        segment = int(control["Bytes per WAL segment"])
        redo = parse_lsn(control["Latest checkpoint's REDO location"])
        identifier = int(control["Database system identifier"])
        self.log = MemoryLog(identifier, redo - redo % segment, segment, self.programs.version)
        self.endpoint = WalEndpoint(self.log, keepalive=0.2)
        self.port = await self.endpoint.listen_tcp(Login(USER, ScramVerifier.from_password(SECRET)))

    async def engine(self, name: str, *, standby: bool, secret: str = SECRET, **extra: str) -> Engine:
        engine = Engine(name, self.home / name, self.programs, self.account, port=5432)
        await engine.clone(self.template)
        target = (
            f"host=127.0.0.1 port={self.port} user={USER} password={secret} application_name={name} sslmode=disable"
        )
        common = {"synchronous_standby_names": "aurora_storage", "primary_conninfo": target, **extra}
        engine.configure(common, standby=standby)
        self.engines[name] = engine
        engine.start()
        return engine

    async def attach(self, writer: Engine, timeline: int = 1) -> WalReceiver:
        address = WriterAddress(writer.home / f".s.PGSQL.{writer.port}", settings.SUPERUSER)
        self.receiver = receiver = await WalReceiver.connect(address, self.sink)
        identity = await receiver.identify_system()
        assert identity.system_identifier == self.log.system_identifier
        await receiver.create_slot("aurora_storage")
        await receiver.start(self.log.end, timeline, flushed=self.log.end, slot="aurora_storage")
        return receiver

    def sink(self, lsn: int, data: bytes) -> None:
        self.log.append(lsn, data)
        if not self.held:
            self.advance()

    def advance(self) -> None:
        """Make everything durable, and let the writer know."""
        self.log.advance(self.log.end)
        if self.receiver is not None:
            end = self.log.end
            self.receiver.report(end, end, end)

    async def promote(self, name: str, timeline: int) -> tuple[Engine, int]:
        """Promote a reader that has replayed all durable log and attach to it, without its history file yet.

        The former writer has ended. What it sent last may not have been read yet: its receiver ends before the end of
        the log is looked at.
        """
        engine = self.engines[name]
        if self.receiver is not None:
            await self.receiver.close()
            self.receiver = None
        end = self.log.durable_lsn
        await until_asked(engine, f"select pg_last_wal_replay_lsn() - '0/0' >= {end}", "True")
        await engine.promote()
        self.log.truncate(end)
        self.log.add_timeline(Timeline(timeline, end))
        await self.attach(engine, timeline)
        return engine, end

    async def publish(self, timeline: int, start: int) -> bytes:
        """Store the history file of the timeline, so that readers may go there."""
        assert self.receiver is not None
        address = WriterAddress(self.receiver._target.address, settings.SUPERUSER)
        second = await WalReceiver.connect(address, lambda lsn, data: None, application_name="registry")
        history = await second.timeline_history(timeline)
        await second.close()
        self.log.add_timeline(Timeline(timeline, start, history))
        return history

    async def close(self) -> None:
        if self.receiver is not None:
            await self.receiver.close()
        for engine in self.engines.values():
            engine.kill()
        await self.endpoint.close()
