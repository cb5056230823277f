"""What the procedures of a transaction ask of the runtime, beyond what connecting does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from aurora_router.flow.runtime import ConnT, Rows, Runtime
from aurora_router.frozen import frozen
from aurora_router.policy.outcome import is_unreplicated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager


@frozen
class Notice:
    """A notice that came with an answer: its text, and the function of the server's source that raised it."""

    source_function: str | None
    message: str | None


@frozen
class Reply:
    """The answer to one message of the simple protocol.

    Attributes:
        rows: of the last statement that returned some.
        tags: command tags, one for each statement.
        notices: those that came with the answer.
    """

    rows: Rows
    tags: tuple[str, ...]
    notices: tuple[Notice, ...] = ()

    @property
    def replicated(self) -> bool:
        """Whether no wait for synchronous replication was cut short."""
        return not any(is_unreplicated(each.source_function, each.message) for each in self.notices)


@frozen
class Trouble:
    """What an exception from a user's work shows.

    Attributes:
        sqlstate: the server's code, where there is one in the chain of causes.
        connection: whether it is about the connection: libpq's or psycopg's, somewhere in the chain of causes.
    """

    sqlstate: str | None
    connection: bool


@dataclass(slots=True)
class TransactionRecord:
    """What libpq reported about a transaction while the work had its connection.

    Attributes:
        ended: whether no transaction was open at the end of an operation: the work ended it.
        rolled_back: whether that operation was the connection's own ``rollback()``.
        went_on: whether there was another operation after it.
    """

    ended: bool = False
    rolled_back: bool = False
    went_on: bool = False

    def note(self, *, idle: bool, rollback: bool = False) -> None:
        """Record the end of an operation: whether no transaction is open, and whether it was ``rollback()``."""
        if self.ended:
            self.went_on = True
        elif idle:
            self.ended, self.rolled_back = True, rollback


class SessionRuntime(Runtime[ConnT], Protocol[ConnT]):
    """A runtime whose connections run transactions."""

    async def execute(self, connection: ConnT, sql: str, seconds: float | None) -> Reply:
        """Send one message of the simple protocol and wait for the whole answer; None: as long as it takes.

        Raises:
            DialFailed: the server refused a statement (the connection is not `broken`), or the connection broke, or
                no answer came in time.
        """
        ...

    async def complete(self, act: Callable[[ConnT], Awaitable[None]], connection: ConnT) -> None:
        """Do something with a connection to its end, whatever interrupts the caller meanwhile; raises that afterwards.

        A cancellation waits for the end. Where an exception of a signal handler cuts it short, it is done once more.
        """
        ...

    async def rollback(self, connection: ConnT) -> None:
        """Roll back, as the driver does. Raises the driver's errors."""
        ...

    def is_broken(self, connection: ConnT) -> bool:
        """Whether the connection is closed or known to be lost."""
        ...

    def is_idle(self, connection: ConnT) -> bool:
        """Whether no transaction is open."""
        ...

    def is_aborted(self, connection: ConnT) -> bool:
        """Whether a transaction is open that can only be rolled back."""
        ...

    def is_busy(self, connection: ConnT) -> bool:
        """Whether a statement, a COPY or a pipeline is under way."""
        ...

    def modes(self, connection: ConnT) -> Modes:
        """The modes that the connection's attributes ask for."""
        ...

    def server_version(self, connection: ConnT) -> int:
        """Of the server, as libpq writes it: 150018."""
        ...

    def database(self, connection: ConnT) -> str:
        """The name of the database."""
        ...

    def trouble(self, error: BaseException) -> Trouble:
        """What an exception says."""
        ...

    def advise(self, connection: ConnT, text: str) -> None:
        """Publish advice about the cluster of a connection."""
        ...

    def watching(self, connection: ConnT) -> AbstractContextManager[TransactionRecord]:
        """Meanwhile, watch the status of the connection's transaction after each operation; asks no server."""
        ...

    def new_id(self) -> str:
        """Return a random UUID as text, which cannot be guessed."""
        ...

    def committing(self, connection: ConnT, send: Callable[[], Awaitable[None]]) -> AbstractContextManager[None]:
        """Meanwhile, let the connection's own ``commit`` be `send`."""
        ...


@frozen
class Modes:
    """Modes of a transaction; None leaves one to the server.

    Attributes:
        isolation: ``READ COMMITTED``, ``REPEATABLE READ``, ``SERIALIZABLE``, ``READ UNCOMMITTED``.
        read_only: whether it may write.
        deferrable: whether it waits for a safe snapshot.
    """

    isolation: str | None = None
    read_only: bool | None = None
    deferrable: bool | None = None

    def merge(self, other: Modes) -> Modes:
        """These where they are given, else the other ones."""
        return Modes(
            self.isolation if self.isolation is not None else other.isolation,
            self.read_only if self.read_only is not None else other.read_only,
            self.deferrable if self.deferrable is not None else other.deferrable,
        )

    @property
    def sql(self) -> str:
        """As BEGIN takes them."""
        parts = [f"ISOLATION LEVEL {self.isolation}"] if self.isolation is not None else []
        if self.read_only is not None:
            parts.append("READ ONLY" if self.read_only else "READ WRITE")
        if self.deferrable is not None:
            parts.append("DEFERRABLE" if self.deferrable else "NOT DEFERRABLE")
        return " ".join(parts)
