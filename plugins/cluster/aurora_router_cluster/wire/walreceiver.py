"""Replication client of the writer: the storage as its synchronous standby.

    receiver = await WalReceiver.connect(WriterAddress(socket_path, "postgres"), sink)
    identity = await receiver.identify_system()
    await receiver.create_slot("aurora_storage")
    await receiver.start(lsn, timeline, flushed=durable, slot="aurora_storage")
    receiver.report(written, flushed, applied)      # whenever the quorum moved
    end = await receiver.ended

The log of each socket read goes to `sink` as one contiguous piece. The writer acknowledges a commit when `report`
covers it (`flushed` for synchronous_commit=on), so `report` writes to the socket at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import struct
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.timeouts import wait_at_most
from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire.errors import (
    AuthenticationError,
    ConnectionLostError,
    ProtocolError,
    ServerError,
    WireError,
)
from aurora_router_cluster.wire.scram import MECHANISM, ScramClient

if TYPE_CHECKING:
    from collections.abc import Callable

DUPLICATE_OBJECT: Final = "42710"
_SLOT_NAME = re.compile(r"[a-z0-9_]{1,63}")

Row = list["bytes | None"]


@dataclass(frozen=True, slots=True)
class WriterAddress:
    """How to reach the server that sends the log.

    Attributes:
        address: path of its Unix socket, or (host, port).
        user: role with the REPLICATION right.
        password: for SCRAM-SHA-256; None if the server trusts us.
    """

    address: Path | tuple[str, int]
    user: str
    password: str | None = None


@dataclass(frozen=True, slots=True)
class SystemIdentity:
    """Answer to IDENTIFY_SYSTEM."""

    system_identifier: int
    timeline: int
    lsn: int


class EndReason(Enum):
    """Why a stream ended."""

    CLOSED = "closed here"
    SHUTDOWN = "the server ended it in order"
    TIMELINE = "the timeline ended there"
    FAILED = "it failed"


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """How the connection ended.

    Attributes:
        reason: in one word.
        error: what went wrong; None unless FAILED.
    """

    reason: EndReason
    error: WireError | None = None


class WalReceiver(asyncio.Protocol):
    """One replication connection; make it with `connect`.

    Attributes:
        ended: a future that is done when the connection is gone, whatever the cause. It never has an exception.
    """

    def __init__(
        self, target: WriterAddress, application_name: str, sink: Callable[[int, bytes], None], interval: float
    ) -> None:
        self._target = target
        self._name = application_name
        self._sink = sink
        self._interval = interval
        self._loop = asyncio.get_running_loop()
        self._decoder = r.StreamDecoder(self._receive)
        self._scram = ScramClient(target.password) if target.password is not None else None
        self._verified = False
        self._handlers: dict[bytes, Callable[[bytes], None]] = {
            b"d": self._on_stream,
            b"R": self._authenticate,
            b"D": self._on_row,
            b"Z": self._on_ready,
            b"W": self._on_copy,
            b"E": self._on_error,
            b"c": self._on_copy_done,
            b"C": self._on_complete,
        }
        self._transport: asyncio.Transport | None = None
        self._reply: asyncio.Future[list[Row]] = self._loop.create_future()
        self._rows: list[Row] = []
        self._error: ServerError | None = None
        self._streaming = False
        self._end: StreamEnd | None = None
        self._positions = (0, 0, 0)
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[StreamEnd] = self._loop.create_future()

    @classmethod
    async def connect(
        cls,
        target: WriterAddress,
        sink: Callable[[int, bytes], None],
        *,
        application_name: str = "aurora_storage",
        status_interval: float = 1.0,
        timeout: float = 10.0,
    ) -> WalReceiver:
        """Connect and authenticate.

        Args:
            target: the writer.
            sink: called with (lsn, log) for every piece; if it raises, the connection ends with that error.
            application_name: as in the writer's ``synchronous_standby_names``.
            status_interval: seconds between periodic status updates.
            timeout: seconds for the whole start-up.

        Raises:
            ConnectionLostError: no connection, or it ended, or the time is up.
            AuthenticationError: the server refused us.
            ServerError: any other refusal, e.g. SQLSTATE 57P03 while it starts up.
            ScramError: a SCRAM exchange failed.
        """
        receiver = cls(target, application_name, sink, status_interval)
        try:
            await wait_at_most(timeout, receiver._establish())
        except BaseException as error:
            receiver._finish(StreamEnd(EndReason.CLOSED))
            if isinstance(error, WireError) or not isinstance(error, (OSError, asyncio.TimeoutError)):
                raise
            reason = str(error) or f"no answer within {timeout:g} s"
            raise ConnectionLostError(f"no replication connection to {target.address}: {reason}") from error
        return receiver

    async def _establish(self) -> None:
        loop = asyncio.get_running_loop()
        address = self._target.address
        if isinstance(address, Path):
            await loop.create_unix_connection(lambda: self, str(address))
        else:
            await loop.create_connection(lambda: self, *address)
        await self._reply

    # ---- commands

    async def identify_system(self) -> SystemIdentity:
        """Ask for the server's identity, its timeline and its flushed position.

        Raises:
            WireError: any of the tree, as all commands here.
        """
        values = [text or b"" for text in (await self._query("IDENTIFY_SYSTEM"))[0]]
        return SystemIdentity(int(values[0]), int(values[1]), r.parse_lsn(values[2].decode()))

    async def timeline_history(self, timeline: int) -> bytes:
        """Fetch the content of a timeline's history file; a server has none for timeline 1."""
        return (await self._query(f"TIMELINE_HISTORY {timeline:d}"))[0][1] or b""

    async def create_slot(self, name: str) -> bool:
        """Create a physical slot that reserves log at once; False if it was there.

        Raises:
            ValueError: the name has other characters than a-z, 0-9 and _.
        """
        try:
            await self._query(f"CREATE_REPLICATION_SLOT {_slot(name)} PHYSICAL RESERVE_WAL")
        except ServerError as error:
            if error.sqlstate != DUPLICATE_OBJECT:
                raise
            return False
        return True

    async def start(self, lsn: int, timeline: int, *, flushed: int, slot: str | None = None) -> None:
        """Begin streaming at `lsn`; returns when the server has agreed.

        Args:
            lsn: end of what was received before, in bytes.
            timeline: the server's.
            flushed: up to where that is durable: reported until `report` says more, and commits up to there are
                acknowledged by it.
            slot: a replication slot that keeps the log.
        """
        self._decoder.position = lsn
        self._positions = (flushed, flushed, flushed)
        chosen = f"SLOT {_slot(slot)} " if slot is not None else ""
        await self._query(f"START_REPLICATION {chosen}PHYSICAL {format_lsn(lsn)} TIMELINE {timeline:d}")
        self._tick()

    async def _query(self, sql: str) -> list[Row]:
        if self._end is not None:
            raise self._end.error or ConnectionLostError("the replication connection is closed")
        if self._streaming or not self._reply.done():
            raise ProtocolError(f"{sql.split(maxsplit=1)[0]} while the connection is streaming or another command runs")
        self._rows, self._error = [], None
        self._reply = self._loop.create_future()
        self._write(m.query(sql))
        return await self._reply

    # ---- while streaming

    @property
    def received(self) -> int:
        """End of the log that was handed to the sink."""
        return self._decoder.position

    def report(self, written: int, flushed: int, applied: int) -> None:
        """Report to the writer how far the log is written, quorum-durable, and applied; sent at once if it moved."""
        positions = (written, flushed, applied)
        if positions != self._positions:
            self._positions = positions
            self._send_status()

    def feedback(self, feedback: r.HotStandbyFeedback) -> None:
        """Pass on the oldest transactions that the readers need, so that the writer keeps their rows."""
        if self._streaming:
            self._write(r.hot_standby_feedback(feedback))

    def hold(self, hold: bool) -> None:  # noqa: FBT001  the two calls are each other's inverse
        """Stop reading, so that the writer is held back by its full socket, or read on."""
        if self._transport is not None and not self._transport.is_closing():
            if hold:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    async def close(self) -> None:
        """Close the connection and wait until it is gone; safe to call twice."""
        self._finish(StreamEnd(EndReason.CLOSED))
        await self.ended

    def _send_status(self) -> None:
        if self._streaming:
            self._write(r.standby_status(*self._positions))

    def _tick(self) -> None:
        if self._streaming:
            self._send_status()
            self._timer = self._loop.call_later(self._interval, self._tick)

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the start-up packet."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        parameters = {
            "user": self._target.user,
            "database": "replication",
            "replication": "true",
            "application_name": self._name,
        }
        transport.write(m.startup_packet(parameters))

    def data_received(self, data: bytes) -> None:
        """Hand on the log of one socket read as one piece."""
        try:
            start, log = self._decoder.feed(data)
            if log:
                self._sink(start, log)
        except WireError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001  a sink that fails must not leave the writer with a silent standby
            failure = WireError(f"the log's sink failed: {error}")
            failure.__cause__ = error
            self._fail(failure)

    def connection_lost(self, exc: Exception | None) -> None:
        """Settle everything that waits."""
        if self._end is None:
            cause = self._error or ConnectionLostError(f"the server ended the replication connection: {exc or 'EOF'}")
            self._end = StreamEnd(EndReason.FAILED, cause)
        self._streaming = False
        if self._timer is not None:
            self._timer.cancel()
        self._settle(self._end.error or ConnectionLostError("the replication connection is closed"))
        if not self.ended.done():
            self.ended.set_result(self._end)

    # ---- messages

    def _receive(self, message: m.Message) -> None:
        handle = self._handlers.get(message.kind)
        if handle is not None:
            handle(message.body)

    def _on_stream(self, body: bytes) -> None:
        if r.parse_from_sender(body).reply:
            self._send_status()

    def _on_row(self, body: bytes) -> None:
        self._rows.append(m.parse_row(body))

    def _on_ready(self, _body: bytes) -> None:
        self._settle(self._error)

    def _on_copy(self, _body: bytes) -> None:
        self._streaming = True
        self._settle(None)

    def _on_error(self, body: bytes) -> None:
        fields = m.parse_error(body)
        self._error = AuthenticationError(fields) if fields.sqlstate[:2] == "28" else ServerError(fields)
        if self._streaming:
            self._fail(self._error)

    def _on_copy_done(self, _body: bytes) -> None:
        if self._streaming:
            self._finish(StreamEnd(EndReason.TIMELINE))

    def _on_complete(self, _body: bytes) -> None:
        if self._streaming:
            self._finish(StreamEnd(EndReason.SHUTDOWN))

    def _authenticate(self, body: bytes) -> None:
        (code,) = struct.unpack_from(">I", body)
        if code == 0:
            if self._scram is not None and not self._verified:
                raise ProtocolError("the server let us in without proving that it knows the secret")
            return
        if self._scram is None:
            raise ProtocolError("the server asks for a password and none was given: trust the role on its Unix socket")
        if code == 10 and MECHANISM.encode() in body[4:].split(b"\0"):
            self._write(m.sasl_initial_response(MECHANISM, self._scram.first()))
        elif code == 11:
            self._write(m.sasl_response(self._scram.final(body[4:])))
        elif code == 12:
            self._scram.verify(body[4:])
            self._verified = True
        else:
            raise ProtocolError(f"the server asks for authentication method {code}; {MECHANISM} is known here")

    def _settle(self, error: WireError | None) -> None:
        if self._reply.done():
            return
        if error is None:
            self._reply.set_result(self._rows)
        else:
            self._reply.set_exception(error)

    def _fail(self, error: WireError) -> None:
        self._settle(error)
        self._finish(StreamEnd(EndReason.FAILED, error))

    def _finish(self, end: StreamEnd) -> None:
        self._streaming = False
        if self._end is None:
            self._end = end
        if self._transport is not None and not self._transport.is_closing():
            with contextlib.suppress(OSError):
                self._transport.write(m.TERMINATE)
            self._transport.close()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _slot(name: str) -> str:
    if _SLOT_NAME.fullmatch(name) is None:
        raise ValueError(f"{name!r} is not a slot name: 1 to 63 of a-z, 0-9 and _")
    return name
