"""One reader's connection to the endpoint: the sending side of physical replication.

After the start-up (`handshake`) a connection is in one of three states:

| state | event | action | next |
|---|---|---|---|
| idle | START_REPLICATION | CopyBothResponse | streaming |
| streaming | the log grew | XLogData up to the limit of `TimelineView` | streaming |
| streaming | all of an ended timeline is sent | CopyDone | ending |
| streaming | the client's CopyDone | CopyDone, two CommandComplete | idle |
| ending | the client's CopyDone | the next timeline as a row, two CommandComplete | idle |

Invariant: no byte at or above `LogSource.durable_lsn` is ever written to the socket; the bytes of one START_REPLICATION
are contiguous; each message ends at the end of a record or of a page (see `replication.message_size`). At most one slow
read is under way per connection, and nothing is produced while the transport's buffer is above its high-water mark.
COPY mode is entered even if there is nothing left on an old timeline: pg_receivewal and the standby's walreceiver take
no other answer.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.lsn import format_lsn
from aurora_router_cluster.wire import commands as c
from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire import replication as r
from aurora_router_cluster.wire.errors import ErrorFields, LogRemovedError, ProtocolError
from aurora_router_cluster.wire.handshake import Login, Phase, ServerHandshake
from aurora_router_cluster.wire.hub import ReaderStatus

if TYPE_CHECKING:
    from aurora_router_cluster.wire.hub import Hub
    from aurora_router_cluster.wire.source import TimelineView

log = logging.getLogger(__name__)

SEND_SIZE: Final = 128 << 10
"""Most log in one message, in bytes, as PostgreSQL has it (MAX_SEND_SIZE)."""
HIGH_WATER: Final = 1 << 20
COMMAND_LIMIT: Final = 1 << 16
START_UP_SECONDS: Final = 5.0
"""How long a client may take to log in."""
RETRY_SECONDS: Final = 0.05
"""Pause before old log is asked for again that no node could give."""


class State(Enum):
    """Where a connection stands."""

    START_UP = auto()
    IDLE = auto()
    STREAMING = auto()
    ENDING = auto()
    CLOSED = auto()


class WalSender(asyncio.Protocol):
    """Protocol of one connection; made by `WalEndpoint`.

    Args:
        hub: the endpoint.
        login: what clients of this listener must authenticate with; None: nothing.
    """

    def __init__(self, hub: Hub, login: Login | None) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._parser = m.MessageParser(startup=True, limit=COMMAND_LIMIT)
        self._handshake = ServerHandshake(login, hub.source.server_version, id(self))
        self._transport: asyncio.Transport | None = None
        self._state = State.START_UP
        self._paused = False
        self._reading: asyncio.Task[None] | None = None
        self._timeline = 0
        self._sent = 0
        self._status = r.StandbyStatus(0, 0, 0, 0.0, reply=False)
        self.feedback: r.HotStandbyFeedback | None = None
        self.since = self._replied = self._loop.time()
        self._asked = False
        self._gone = asyncio.Event()

    @property
    def starting(self) -> bool:
        """Whether it has not logged in yet."""
        return self._state is State.START_UP

    # ---- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Register the connection."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=HIGH_WATER)
        self._hub.admit(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio calls it by this name
        """Forget the connection; a slow read under way is cancelled."""
        self._state = State.CLOSED
        self._gone.set()
        self._hub.dismiss(self)
        if self._reading is not None:
            self._reading.cancel()
        if self.feedback is not None:
            self._hub.feedback_changed()

    def pause_writing(self) -> None:
        """The socket is full."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket has room again."""
        self._paused = False
        self.pump()

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        try:
            self._parser.feed(data)
            while self._state is not State.CLOSED and (message := self._parser.next_message()) is not None:
                self._receive(message)
        except ProtocolError as error:
            self._fatal("08P01", str(error))

    def _receive(self, message: m.Message) -> None:
        if self._state is State.START_UP:
            self._start_up(message)
        elif message.kind == b"d" and self._state in (State.STREAMING, State.ENDING):
            self._from_standby(message.body)
        elif message.kind == b"Q" and self._state is State.IDLE:
            self._command(message.body)
        elif message.kind == b"c" and self._state in (State.STREAMING, State.ENDING):
            self._end_copy()
        elif message.kind == b"X":
            self.close()
        elif message.kind not in (b"d", b"c"):  # a late status after the end of COPY is legal and without use
            raise ProtocolError(f"a message of kind {message.kind!r} is not expected while {self._state.name.lower()}")

    def _start_up(self, message: m.Message) -> None:
        self._write(self._handshake.receive(message))
        self._parser.startup = self._handshake.phase is Phase.START
        if self._handshake.phase is Phase.READY:
            self._state = State.IDLE
        elif self._handshake.phase is Phase.CLOSED:
            self.close()

    # ---- commands

    def _command(self, body: bytes) -> None:
        command = c.parse_command(body.rstrip(b"\0").decode(errors="replace"))
        if isinstance(command, c.IdentifySystem):
            self._identify()
        elif isinstance(command, c.TimelineHistory):
            self._history(command.timeline)
        elif isinstance(command, c.Show):
            self._show(command.name)
        elif isinstance(command, c.StartReplication):
            self._start_replication(command)
        else:
            self._error("0A000", f"the log endpoint does not do {command.command}", command.hint)

    def _identify(self) -> None:
        source = self._hub.source
        columns = (("systemid", m.OID_TEXT), ("timeline", m.OID_INT8), ("xlogpos", m.OID_TEXT), ("dbname", m.OID_TEXT))
        values = (source.system_identifier, self._hub.view().current, format_lsn(source.durable_lsn))
        row = [str(value).encode() for value in values]
        self._answer("IDENTIFY_SYSTEM", columns, [*row, None])

    def _history(self, timeline: int) -> None:
        content = self._hub.view().history(timeline)
        name = f"{timeline:08X}.history"
        if content is None:
            self._error("58P01", f'could not open file "{name}": it is not stored', "")
            return
        columns = (("filename", m.OID_TEXT), ("content", m.OID_TEXT))
        self._answer("TIMELINE_HISTORY", columns, [name.encode(), content])

    def _show(self, name: str) -> None:
        known = {
            "wal_segment_size": _size_text(self._hub.source.segment_size),
            "data_directory_mode": "0700",
            "server_version": self._hub.source.server_version,
        }
        if name not in known:
            self._error("42704", f'unrecognized configuration parameter "{name}"', f"known here: {', '.join(known)}")
            return
        self._answer("SHOW", ((name, m.OID_TEXT),), [known[name].encode()])

    def _start_replication(self, command: c.StartReplication) -> None:
        view = self._hub.view()
        timeline = view.current if command.timeline is None else command.timeline
        refusal = self._refusal(view, timeline, command.lsn)
        if refusal is not None:
            self._error(*refusal, "")
            return
        self._timeline, self._sent, self._state = timeline, command.lsn, State.STREAMING
        self._write(m.COPY_BOTH)
        self.pump()

    def _refusal(self, view: TimelineView, timeline: int, lsn: int) -> tuple[str, str] | None:
        source, end = self._hub.source, view.end_of(timeline)
        if not view.shows(timeline):
            return "55000", f"requested timeline {timeline} is not in this log's history"
        if lsn < source.first_lsn:
            first = format_lsn(source.first_lsn)
            return "58P01", f"requested log at {format_lsn(lsn)} has been removed; the oldest stored is {first}"
        if end is not None and lsn > end[1]:
            return (
                "55000",
                f"requested start {format_lsn(lsn)} is not on timeline {timeline}, which ends at {format_lsn(end[1])}",
            )
        if lsn > source.durable_lsn:
            return (
                "55000",
                f"requested start {format_lsn(lsn)} is above the durable end {format_lsn(source.durable_lsn)}",
            )
        return None

    # ---- streaming

    def _from_standby(self, body: bytes) -> None:
        self._replied, self._asked = self._loop.time(), False
        status = r.parse_from_standby(body)
        if isinstance(status, r.StandbyStatus):
            self._status = status
            if status.reply and self._state is State.STREAMING:
                self._write(r.keepalive(self._sent))
        elif status != self.feedback:
            self.feedback = status
            self._hub.feedback_changed()

    def _end_copy(self) -> None:
        row = b""
        if self._state is State.STREAMING:
            self._write(m.COPY_DONE)
        else:
            end = self._hub.view().end_of(self._timeline)
            assert end is not None, "a timeline that has ended stays ended"
            columns = (("next_tli", m.OID_INT8), ("next_tli_startpos", m.OID_TEXT))
            values = [str(end[0]).encode(), format_lsn(end[1]).encode()]
            row = m.row_description(columns) + m.data_row(values)
        self._state = State.IDLE
        tags = m.command_complete("START_STREAMING") + m.command_complete("START_REPLICATION")
        self._write(row + tags + m.READY_FOR_QUERY)

    def pump(self) -> None:
        """Send whatever may be sent now; called whenever the durable end, the timelines or the socket moved."""
        source = self._hub.source
        while self._state is State.STREAMING and not self._paused and self._reading is None:
            view = self._hub.view()
            limit = view.limit(self._timeline, source.durable_lsn)
            room = limit - self._sent
            if room <= 0:
                self._maybe_end_timeline(view)
                return
            data = source.read_tail(self._sent, min(room, SEND_SIZE)) or b""
            size = r.message_size(self._sent, len(data), limit)
            if not size:
                self._reading = self._loop.create_task(self._read_old(limit))
                return
            self._push(data if size == len(data) else data[:size])

    def _maybe_end_timeline(self, view: TimelineView) -> None:
        end = view.end_of(self._timeline)
        if end is not None and self._sent >= end[1]:
            self._state = State.ENDING
            self._write(m.COPY_DONE)

    def _push(self, data: bytes) -> None:
        header = r.xlog_data_header(self._sent, self._hub.source.durable_lsn, len(data))
        self._sent += len(data)
        self._write(b"".join((header, data)))

    async def _read_old(self, limit: int) -> None:
        try:
            data = await self._read_message(limit)
            if not data:
                await asyncio.sleep(RETRY_SECONDS)
        except LogRemovedError as error:
            self._fatal("58P01", f"requested log has been removed: {error}")
            return
        except Exception as error:  # any failure of the log ends this reader, visibly, not the endpoint
            log.warning("reading the log at %s for a reader failed", format_lsn(self._sent), exc_info=True)
            self._fatal("58030", f"reading the log at {format_lsn(self._sent)} failed: {error}")
            return
        finally:
            self._reading = None
        if self._state is State.STREAMING and data:
            self._push(data)
        self.pump()

    async def _read_message(self, limit: int) -> bytes:
        """Read the log of one message, in as many pieces as it comes; empty if a piece cannot be had just now."""
        data = b""
        wanted = min(limit - self._sent, SEND_SIZE)
        while piece := await self._hub.source.read(self._sent + len(data), wanted - len(data)):
            data += piece
            if size := r.message_size(self._sent, len(data), limit):
                return data[:size]
        return b""

    # ---- upkeep

    def tick(self, now: float, timeout: float) -> None:
        """Send a keepalive and drop a peer that is silent for `timeout` seconds or never finishes its start-up."""
        if self._state is State.START_UP and now - self.since > min(timeout, START_UP_SECONDS):
            self._fatal("08P01", "the start-up took too long")
        elif self._state in (State.STREAMING, State.ENDING):
            silent = now - self._replied
            if silent > timeout:
                log.info("reader %s is silent for %.1f s: dropped", self._name(), silent)
                self.abort()
            elif self._state is State.STREAMING and not self._paused:
                ask = silent > timeout / 2 and not self._asked
                self._asked = self._asked or ask
                self._write(r.keepalive(self._sent, reply=ask))

    def status(self) -> ReaderStatus | None:
        """What is known of the reader; None while it does not stream."""
        if self._state not in (State.STREAMING, State.ENDING):
            return None
        s = self._status
        return ReaderStatus(
            self._name(),
            self._timeline,
            self._sent,
            s.written,
            s.flushed,
            s.applied,
            self.feedback,
        )

    def close(self) -> None:
        """Close after what is written has been sent."""
        self._state = State.CLOSED
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._state = State.CLOSED
        if self._transport is not None:
            self._transport.abort()

    async def stop(self) -> None:
        """Close at once and wait until the connection and a read under way are gone."""
        self.abort()
        reading = self._reading
        if reading is not None:
            reading.cancel()
            await asyncio.wait({reading})
        await self._gone.wait()

    def _name(self) -> str:
        return self._handshake.parameters.get("application_name", "")

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _answer(self, tag: str, columns: tuple[tuple[str, int], ...], row: list[bytes | None]) -> None:
        rows = m.row_description(columns) + m.data_row(row)
        self._write(rows + m.command_complete(tag) + m.READY_FOR_QUERY)

    def _error(self, sqlstate: str, text: str, hint: str) -> None:
        self._write(m.error_response(ErrorFields("ERROR", sqlstate, text, hint=hint)) + m.READY_FOR_QUERY)

    def _fatal(self, sqlstate: str, text: str) -> None:
        if self._state is not State.CLOSED:
            self._write(m.error_response(ErrorFields("FATAL", sqlstate, text)))
            self.close()


def _size_text(size: int) -> str:
    """A segment size the way PostgreSQL shows it: pg_receivewal reads the number and the unit."""
    return f"{size >> 30}GB" if size % (1 << 30) == 0 else f"{size >> 20}MB"
