"""The runtimes of transactions (`flow.session.SessionRuntime`), blocking and on asyncio, and their causal tokens."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import pq

from aurora_router import errors, observe
from aurora_router.errors import AuroraRouterError
from aurora_router.flow.session import Modes, Notice, Reply, TransactionRecord, Trouble
from aurora_router.forks import IMPORTING
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.psycopg_errors import CommitOutcomeUnknown
from aurora_router.runtime import libpq, sockets
from aurora_router.runtime.blocking import run
from aurora_router.runtime.exchange import READ, exchange
from aurora_router.runtime.libpq_runtimes import BlockingRuntime, EventLoopRuntime, wait_until_ready
from aurora_router.runtime.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Iterator

    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.runtime.connect_args import ConnectArgs

SyncT = TypeVar("SyncT", bound="psycopg.Connection[Any]")
AsyncT = TypeVar("AsyncT", bound="psycopg.AsyncConnection[Any]")

_Field = pq.DiagnosticField
_CHAIN = 16
"""How far a chain of causes is followed; chains may be circular."""


class _Session:
    """What both runtimes know of a psycopg connection without asking the server."""

    __slots__ = ()

    def is_broken(self, connection: Any) -> bool:
        """Whether the connection is closed or known to be lost."""
        return bool(connection.closed)

    def is_idle(self, connection: Any) -> bool:
        """Whether no transaction is open."""
        return bool(connection.pgconn.transaction_status == pq.TransactionStatus.IDLE)

    def is_aborted(self, connection: Any) -> bool:
        """Whether a transaction is open that can only be rolled back."""
        return bool(connection.pgconn.transaction_status == pq.TransactionStatus.INERROR)

    def is_busy(self, connection: Any) -> bool:
        """Whether a statement, a COPY or a pipeline is under way."""
        pgconn = connection.pgconn
        active = pgconn.transaction_status == pq.TransactionStatus.ACTIVE
        return bool(active or pgconn.pipeline_status != pq.PipelineStatus.OFF)

    def modes(self, connection: Any) -> Modes:
        """The modes that the connection's attributes ask for."""
        level = connection.isolation_level
        isolation = None if level is None else psycopg.IsolationLevel(level).name.replace("_", " ")
        return Modes(isolation, connection.read_only, connection.deferrable)

    def server_version(self, connection: Any) -> int:
        """Of the server, as libpq writes it."""
        return int(connection.pgconn.server_version)

    def database(self, connection: Any) -> str:
        """The name of the database."""
        return str(connection.pgconn.db.decode())

    def trouble(self, error: BaseException) -> Trouble:
        """What an exception, or one that it was raised from, says; SQLAlchemy keeps the driver's as ``orig``.

        One that was merely being handled meanwhile (``__context__``) says nothing: the work has dealt with it. Nor does
        what is behind an error that says that a transaction may be committed, an inner one of the work's for example.
        """
        sqlstate, connection = None, False
        following: BaseException | None = error
        for _ in range(_CHAIN):
            if following is None or isinstance(following, (errors.TransactionEnded, errors.CommitOutcomeUnknown)):
                break
            if isinstance(following, psycopg.Error):
                sqlstate = sqlstate or following.sqlstate
                connection = connection or isinstance(following, (psycopg.OperationalError, psycopg.InterfaceError))
                connection = connection or following.sqlstate == "25006"
            inner = getattr(following, "orig", None)
            following = inner if isinstance(inner, BaseException) else following.__cause__
        return Trouble(sqlstate, connection)

    def advise(self, connection: Any, text: str) -> None:
        """Publish advice; a connection that was not made by ``connect`` is of no known cluster."""
        placement = getattr(connection, "placement", None)
        if placement is not None:
            placement.publish(ConfigurationAdvice(text))
        else:
            observe.publish(connection.info.host, ConfigurationAdvice(text))

    def new_id(self) -> str:
        """A random UUID as text."""
        return str(uuid.uuid4())


@contextmanager
def _listening(pgconn: pq.abc.PGconn) -> Iterator[list[Notice]]:
    """Collect the notices that come meanwhile, and pass them on.

    At libpq's own hook: psycopg's handlers are not called in a client_encoding that Python does not know.
    """
    heard: list[Notice] = []
    usual = pgconn.notice_handler

    def hear(result: pq.abc.PGresult) -> None:
        function, message = map(result.error_field, (_Field.SOURCE_FUNCTION, _Field.MESSAGE_PRIMARY))
        heard.append(Notice(_ascii(function), _ascii(message)))
        if usual is not None:
            usual(result)

    pgconn.notice_handler = hear
    try:
        yield heard
    finally:
        pgconn.notice_handler = usual


def _ascii(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii", "replace")


@contextmanager
def _instead(connection: Any, **methods: Callable[..., Any]) -> Iterator[None]:
    """Let a connection's own methods be others: an attribute of the object hides the method of its class."""
    for name, method in methods.items():
        setattr(connection, name, method)
    try:
        yield
    finally:
        for name in methods:
            delattr(connection, name)


def _note(connection: Any, record: TransactionRecord, *, rollback: bool) -> None:
    record.note(idle=connection.pgconn.transaction_status == pq.TransactionStatus.IDLE, rollback=rollback)


class BlockingSessions(_Session, BlockingRuntime[SyncT]):
    """Transactions of blocking connections."""

    __slots__ = ()

    async def execute(self, connection: SyncT, sql: str, seconds: float | None) -> Reply:
        """Send one message and wait for the whole answer."""
        with _listening(connection.pgconn) as heard:
            reply = _drive(connection.pgconn, exchange(connection.pgconn, sql), seconds)
        return replace(reply, notices=tuple(heard))

    async def complete(self, act: Callable[[SyncT], Awaitable[None]], connection: SyncT) -> None:
        """Do something to its end; once more where an exception of a signal handler cuts it short."""
        try:
            await act(connection)
        except BaseException:
            if getattr(connection, "_pool", None) is not None:  # psycopg_pool has not taken it back yet
                connection.close()
            with suppress(Exception):
                await act(connection)
            raise

    async def rollback(self, connection: SyncT) -> None:
        """Roll back."""
        connection.rollback()

    @contextmanager
    def committing(self, connection: SyncT, send: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Meanwhile, let the connection's own ``commit`` be `send`."""

        async def run_send() -> None:
            await send()

        with _instead(connection, commit=lambda: run(run_send())):
            yield

    @contextmanager
    def watching(self, connection: SyncT) -> Iterator[TransactionRecord]:
        """Meanwhile, watch the status of the connection's transaction after each operation."""
        record, wait, rollback, rolling = TransactionRecord(), connection.wait, connection.rollback, False

        def wait_and_note(*args: Any, **kwargs: Any) -> Any:
            try:
                return wait(*args, **kwargs)
            finally:
                _note(connection, record, rollback=rolling)

        def roll_back() -> None:
            nonlocal rolling
            rolling = True
            try:
                rollback()
            finally:
                rolling = False

        with _instead(connection, wait=wait_and_note, rollback=roll_back):
            yield record


class EventLoopSessions(_Session, EventLoopRuntime[AsyncT]):
    """Transactions of asyncio connections."""

    __slots__ = ()

    async def execute(self, connection: AsyncT, sql: str, seconds: float | None) -> Reply:
        """Send one message and wait for the whole answer."""
        steps = exchange(connection.pgconn, sql)
        with _listening(connection.pgconn) as heard:
            try:
                reply = await wait_at_most(seconds, _await_steps(connection.pgconn, steps))
            except asyncio.TimeoutError:
                raise libpq.new_timeout("answer", seconds or 0.0) from None
        return replace(reply, notices=tuple(heard))

    async def complete(self, act: Callable[[AsyncT], Awaitable[None]], connection: AsyncT) -> None:
        """Do something to its end, in a task of its own, which no cancellation of the caller reaches."""

        async def run_act() -> None:
            await act(connection)

        task, cancelled = asyncio.ensure_future(run_act()), None
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            return task.result()
        if not task.cancelled():
            task.exception()  # so that it does not count as never retrieved
        raise cancelled

    async def rollback(self, connection: AsyncT) -> None:
        """Roll back."""
        await connection.rollback()

    @contextmanager
    def committing(self, connection: AsyncT, send: Callable[[], Awaitable[None]]) -> Iterator[None]:
        """Meanwhile, let the connection's own ``commit`` be `send`."""
        with _instead(connection, commit=send):
            yield

    @contextmanager
    def watching(self, connection: AsyncT) -> Iterator[TransactionRecord]:
        """Meanwhile, watch the status of the connection's transaction after each operation."""
        record, wait, rollback, rolling = TransactionRecord(), connection.wait, connection.rollback, False

        async def wait_and_note(*args: Any, **kwargs: Any) -> Any:
            try:
                return await wait(*args, **kwargs)
            finally:
                _note(connection, record, rollback=rolling)

        async def roll_back() -> None:
            nonlocal rolling
            rolling = True
            try:
                await rollback()
            finally:
                rolling = False

        with _instead(connection, wait=wait_and_note, rollback=roll_back):
            yield record


class TransactionToken:
    """The causal token of one call of ``run_transaction``.

    Args:
        report: is given the token in the end; None: no token is wanted, and nothing is done.
        args: of the router.
        sessions: do the I/O.
    """

    def __init__(
        self,
        report: Callable[[CausalToken], None] | None,
        args: ConnectArgs,
        sessions: BlockingSessions[Any] | EventLoopSessions[Any],
    ) -> None:
        self._report = report
        self._args = args
        self._sessions = sessions
        self._made: tuple[CausalToken, CommitToken | None] | None = None

    @property
    def hooks(self) -> tuple[Any, Any]:
        """What a transaction calls after its COMMIT, and in the end: nothing where no token is wanted."""
        return (None, None) if self._report is None else (self.make, self.report)

    async def make(self, connection: Any, commit: CommitToken | None) -> None:
        """Make the token on the connection of a transaction that has committed, whose commit token is `commit`.

        Nothing that fails here is an error of the transaction: then the token is one without a proof.
        """
        with IMPORTING:
            from aurora_router.flow import causal  # noqa: PLC0415 - few transactions need a causal token
            from aurora_router.model.causal_token import CausalToken, NoProof  # noqa: PLC0415

        args, sessions = self._args, self._sessions
        method = args.request.options.causal
        found = causal.find_token(commit, method)
        if found is None and sessions.is_idle(connection):
            with suppress(psycopg.Error, AuroraRouterError):
                found = await causal.make_token(
                    sessions, connection, method, args.causal_methods, args.nameless, args.causal_lacking
                )
        self._made = (found or CausalToken(NoProof(), is_trusted=True), commit)

    def report(self) -> None:
        """Report the token of what was committed.

        Raises:
            CommitOutcomeUnknown: the user's function failed; the transaction is committed.
        """
        if self._report is None or self._made is None:
            return
        found, commit = self._made
        try:
            self._report(found)
        except Exception as error:
            why = f"the transaction is committed, and on_causal failed: {type(error).__name__}: {error}"
            raise CommitOutcomeUnknown(why, token=commit) from error


def _drive(pgconn: pq.abc.PGconn, steps: Generator[int, None, Reply], seconds: float | None) -> Reply:
    """Do the steps of an exchange, blocking."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        try:
            events = next(steps)
        except StopIteration as done:
            reply: Reply = done.value
            return reply
        left = None if deadline is None else deadline - time.monotonic()
        if not sockets.wait(pgconn.socket, events, left):
            raise libpq.new_timeout("answer", seconds or 0.0)


async def _await_steps(pgconn: pq.abc.PGconn, steps: Generator[int, None, Reply]) -> Reply:
    """Do the steps of an exchange, on the running loop."""
    while True:
        try:
            events = next(steps)
        except StopIteration as done:
            reply: Reply = done.value
            return reply
        await wait_until_ready(pgconn.socket, writable=events != READ)
