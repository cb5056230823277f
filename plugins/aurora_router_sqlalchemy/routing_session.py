"""Sessions in front of two engines: reads go to readers; writes, and the rest of their transaction, to the writer.

Theory. SQLAlchemy asks a session for the engine of each operation, by `Session.get_bind`, after the autoflush. So what
has to be known is known then: whether a flush runs, whether the transaction uses the writer, and the statement as an
object. No SQL is parsed: a statement is a read if it is a SELECT object that holds nothing that writes or locks. What
cannot be seen from outside (``text()``, a function that is executed by itself) goes to the writer, unless it is marked
with the execution option ``aurora_role="reader"``.

Invariants:

1. A transaction that used the writer stays there. Its reads see what it wrote, in the writer's snapshots.
2. A read is on a reader only if that session of the server has proven to have replayed all that this session, and
   the web request around it, wrote (`policy.causal`). Otherwise the transaction is the writer's.
3. Nothing that the reader's part of a transaction does can make the COMMIT of the writer's part look failed: a reader
   that is known to be lost is reported before the COMMIT, and one that is lost at its own COMMIT has nothing to lose.

A commit leaves a debt: the session has written more than its token proves. The debt is paid, by one round trip, by the
session's next transaction, which reads from the writer (the pool's checkout refuses an instance that this process knows
to be replaced, so it is the writer that has the commit, or a later one); in a web request by the commit itself, since
the answer has to carry the token. A session that writes and is closed pays nothing.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidRequestError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import ORMExecuteState, Session, SessionTransaction
from sqlalchemy.orm.context import FromStatement
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import BindParameter, ColumnClause
from sqlalchemy.sql.functions import next_value
from sqlalchemy.sql.selectable import GenerativeSelect, SelectBase, TableClause, TextualSelect
from sqlalchemy.util import await_only

from aurora_router import AuroraRouterError, CausalToken, StaleConnection, web
from aurora_router.logs import Logger
from aurora_router_sqlalchemy.causal import find_driver
from aurora_router_sqlalchemy.read_part import mark_read_part, unmark_read_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from sqlalchemy import URL
    from sqlalchemy.ext.asyncio import AsyncConnection

Role = Literal["writer", "reader"]
_ROLES = {"writer", "reader"}
_PROVEN = "aurora_router.proven"
_UNPROVABLE = CausalToken.parse("1n").trust()
"""Stands for writes that no reader can be shown to have: the writer serves."""
_LEAVES = (ColumnClause, TableClause, BindParameter)
"""What most statements consist of, and holds no further statement."""
logger = Logger("aurora_router.sqlalchemy")


class Kind(enum.Enum):
    """What a statement does, as far as its object shows."""

    READ = "it reads"
    WRITE = "it writes, or locks rows"
    UNKNOWN = "it cannot be seen from outside what it does"


def judge(clause: Any) -> Kind:
    """Return what a statement does, by the elements that it is made of."""
    clause = getattr(clause, "_resolved", clause)  # of a lambda_stmt
    if isinstance(clause, FromStatement):
        return judge(clause.element)
    if isinstance(clause, UpdateBase):
        return Kind.WRITE
    if not isinstance(clause, SelectBase):
        return Kind.UNKNOWN
    found = Kind.READ
    left: list[Any] = [clause]
    while left:
        each = left.pop()
        if isinstance(each, _LEAVES):
            continue
        if isinstance(each, (UpdateBase, next_value)):
            return Kind.WRITE
        if isinstance(each, GenerativeSelect) and each._for_update_arg is not None:  # noqa: SLF001 - no public name
            return Kind.WRITE
        if isinstance(each, TextualSelect):
            found = Kind.UNKNOWN
        left.extend(each.get_children())
    return found


@dataclass(slots=True)
class _Route:
    """Where the transaction of a session is.

    Attributes:
        writer: its connection to the writer, if it uses it.
        reader: its connection to a reader, likewise.
        proven: a connection that was proven for it, which the session does not close itself.
        is_substitute: whether the writer serves because no reader was proven.
        has_written: whether it may have written.
        is_read_only: whether it was begun as read-only: then it stays where it is.
    """

    writer: Connection | None = None
    reader: Connection | None = None
    proven: Connection | None = None
    is_substitute: bool = False
    has_written: bool = False
    is_read_only: bool = False


class RoutingSession(Session):
    """A `Session` in front of two engines, one for readers and one for the writer.

    SELECT statements go to a reader, until the transaction writes: a flush, an INSERT, UPDATE or DELETE, a SELECT … FOR
    UPDATE, ``text()``, ``session.connection()``. From then on all of it is the writer's. After a commit the session's
    reads go to a reader only if that one has replayed it. The execution option ``aurora_role`` ("writer" or "reader")
    says it of one statement, for what cannot be seen.

    Args:
        bind: the engine of the writer. A session that is bound to a `Connection` uses that one for everything.
        readers: the engine of the readers; None: all goes to the writer.
        role: "writer": all transactions are the writer's. "reader": the session only reads, ``text()`` included.
        after: what the session's reads must see, from elsewhere: a token of another process, for example.
        **options: those of `Session`; what ``binds`` gives an engine of its own is not routed.

    Raises:
        sqlalchemy.exc.ArgumentError: ``twophase=True``, or a role that does not exist.
    """

    def __init__(
        self,
        bind: Engine | Connection | None = None,
        *,
        readers: Engine | None = None,
        role: Role | None = None,
        after: CausalToken | None = None,
        **options: Any,
    ) -> None:
        if options.get("twophase"):
            raise ArgumentError(
                "a RoutingSession does not commit in two phases: its connection to a reader has nothing to prepare. "
                "Use a Session of the writer's engine for twophase=True"
            )
        if isinstance(readers, AsyncEngine):
            raise ArgumentError("readers= is an AsyncEngine: use an AsyncRoutingSession")
        super().__init__(bind, **options)
        self.readers = readers
        self.role: Role | None = _check_role(role)
        self._token = after
        self._has_debt = False
        self._route = _Route()

    # ---------------------------------------------------------------- where an operation goes

    def get_bind(
        self,
        mapper: Any = None,
        *,
        clause: Any = None,
        bind: Engine | Connection | None = None,
        **arguments: Any,
    ) -> Engine | Connection:
        """Return the engine or connection of an operation, as SQLAlchemy asks for it.

        Args:
            mapper: as for `Session.get_bind`.
            clause: the statement; None: a flush, or a connection for SQL of any kind.
            bind: returned as it is.
            **arguments: ``aurora_role``, and those of `Session.get_bind`.
        """
        is_executed = "aurora_role" in arguments
        role = _check_role(arguments.pop("aurora_role", None)) or self._find_role()
        found = super().get_bind(mapper, clause=clause, bind=bind, **arguments)
        if bind is not None or found is not self.bind or self.readers is None or isinstance(found, Connection):
            return found
        if not self.in_transaction() and (self._route.reader or self._route.writer) is not None:
            self._leave()  # its end raised an error
        route, kind = self._route, Kind.WRITE if self._flushing else judge(clause)
        if route.is_read_only:
            return cast("Connection", route.reader or route.writer)  # the server refuses what writes, as it says
        if kind is Kind.WRITE and role == "reader":
            raise InvalidRequestError(
                "a read was announced (aurora_role or role is 'reader'), and the statement, or flush, writes or locks: "
                "use 'writer', or leave it out"
            )
        is_read = role == "reader" or (role is None and kind is Kind.READ)
        if not is_read or route.writer is not None:
            route.has_written = route.has_written or not is_read
            return found
        return self._find_reader(self.readers, found, is_executed=is_executed)

    def connection(
        self,
        bind_arguments: Any = None,
        execution_options: Mapping[str, Any] | None = None,
    ) -> Connection:
        """Return the connection of this transaction: to the writer, unless it is said to read.

        That is said by ``execution_options={"aurora_role": "reader"}``, or ``{"postgresql_readonly": True}``: then the
        whole transaction is the reader's.
        """
        arguments, options = dict(bind_arguments or {}), dict(execution_options or {})
        role = options.pop("aurora_role", "reader" if options.get("postgresql_readonly") else None)
        arguments.setdefault("aurora_role", role)
        return super().connection(arguments, execution_options=options or None)

    def close(self) -> None:
        """Close the session, as `Session.close` does."""
        super().close()
        self._leave()

    def _find_role(self) -> Role | None:
        if self.role is not None:
            return self.role
        options = getattr(self, "execution_options", None)  # SQLAlchemy 2.1
        if not options:
            return None
        return _check_role(options.get("aurora_role", "reader" if options.get("postgresql_readonly") else None))

    def _find_reader(self, readers: Engine, writer: Engine, *, is_executed: bool) -> Engine | Connection:
        """Where a transaction reads that does not use the writer."""
        route = self._route
        if route.proven is not None or route.reader is not None:
            return route.proven or readers
        tokens = self._find_needed()
        if not tokens and not self._has_debt:
            return readers
        if not is_executed:
            return writer  # only asked, for the dialect of a statement that is shown: nothing is connected
        if not self._has_debt and _UNPROVABLE not in tokens:
            connection = readers.connect()
            try:
                if _has_replayed(connection, tokens):
                    route.proven = connection
                    return connection
            finally:
                if route.proven is not connection:
                    connection.close()
        route.is_substitute = True
        return writer

    # ---------------------------------------------------------------- a transaction's life

    def _join(self, connection: Connection) -> None:
        """A connection has joined the transaction; nothing was sent on it."""
        route = self._route
        route.is_read_only |= bool(connection.get_execution_options().get("postgresql_readonly"))
        if connection.engine is self.readers:
            route.reader = connection
            mark_read_part(connection)
        elif connection.engine is self.bind and self.readers is not None:
            route.writer = connection
            route.has_written = route.has_written or not route.is_substitute
            if route.is_substitute:
                self._join_substitute(connection)

    def _join_substitute(self, connection: Connection) -> None:
        """The writer serves in the place of a reader: pay the debt, or let the writer refuse a false token."""
        if self._has_debt:
            self._keep(_make_token(connection))
            return
        try:
            _has_replayed(connection, self._find_needed())
        except StaleConnection:
            connection.invalidate()
            raise

    def _check_reader(self) -> None:
        """Refuse to commit while a reader's part is broken, as SQLAlchemy does with the only part."""
        reader = self._route.reader
        if reader is not None and reader.invalidated:
            raise PendingRollbackError(
                "the connection to a reader was lost in this transaction, and a read on it failed: roll back. "
                "Nothing was committed"
            )

    def _commit_writes(self) -> None:
        """The transaction was committed, and its connections are still there."""
        route = self._route
        if route.writer is None or not route.has_written:
            return
        self._has_debt = True
        if web.is_in_request():
            self._keep(_make_token(route.writer))

    def _leave(self) -> None:
        """The transaction is over."""
        route, self._route = self._route, _Route()
        if route.reader is not None:
            unmark_read_part(route.reader)
        if route.proven is not None:
            route.proven.close()

    # ---------------------------------------------------------------- what has to be seen

    def _find_needed(self) -> list[CausalToken]:
        """The tokens that a reader must have replayed."""
        return [*dict.fromkeys(each for each in (self._token, web.current()) if each is not None)]

    def _keep(self, token: CausalToken) -> None:
        """Keep a token that covers all earlier ones."""
        self._token, self._has_debt = token, False
        web.keep(token)


class AsyncRoutingSession(AsyncSession):
    """An `AsyncSession` in front of two engines; see `RoutingSession`, which does its work.

    Args:
        bind: the engine of the writer. A session that is bound to an `AsyncConnection` uses that one for everything.
        readers: the engine of the readers; None: all goes to the writer.
        role: "writer": all transactions are the writer's. "reader": the session only reads, ``text()`` included.
        after: what the session's reads must see, from elsewhere: a token of another process, for example.
        **options: those of `AsyncSession`; a ``sync_session_class`` is a subclass of `RoutingSession`.

    Raises:
        sqlalchemy.exc.ArgumentError: as for `RoutingSession`, or `readers` is not an `AsyncEngine`.
    """

    sync_session_class = RoutingSession

    def __init__(
        self,
        bind: AsyncEngine | AsyncConnection | None = None,
        *,
        readers: AsyncEngine | None = None,
        role: Role | None = None,
        after: CausalToken | None = None,
        **options: Any,
    ) -> None:
        if readers is not None and not isinstance(readers, AsyncEngine):
            raise ArgumentError("readers= of an AsyncRoutingSession is an AsyncEngine")
        sync = None if readers is None else readers.sync_engine
        super().__init__(bind, readers=sync, role=role, after=after, **options)


# ---------------------------------------------------------------- the two engines


class Engines(NamedTuple):
    """The engines of a cluster, for ``sessionmaker(writer, class_=RoutingSession, readers=readers)``."""

    writer: Engine
    readers: Engine


class AsyncEngines(NamedTuple):
    """The same for asyncio: ``async_sessionmaker(writer, class_=AsyncRoutingSession, readers=readers)``."""

    writer: AsyncEngine
    readers: AsyncEngine


def create_engines(url: str | URL, *, reader_options: Mapping[str, Any] | None = None, **options: Any) -> Engines:
    """Create the engine of a cluster's writer, and that of its readers, from one URL.

    Args:
        url: of ``postgresql+aurora://``, any endpoint of the cluster; its ``aurora_…`` options count for both.
        reader_options: options of `create_engine` for the readers alone, which replace those of both.
        **options: those of `create_engine`, for both.

    Raises:
        sqlalchemy.exc.ArgumentError: the URL is of another dialect, or a role is given already.
    """
    writer, readers = _split(url, options, reader_options or {})
    return Engines(create_engine(writer, **options), create_engine(readers, **{**options, **(reader_options or {})}))


def create_async_engines(
    url: str | URL, *, reader_options: Mapping[str, Any] | None = None, **options: Any
) -> AsyncEngines:
    """Create the same engines for asyncio; see `create_engines`."""
    writer, readers = _split(url, options, reader_options or {})
    for_readers = {**options, **(reader_options or {})}
    return AsyncEngines(create_async_engine(writer, **options), create_async_engine(readers, **for_readers))


def _split(url: str | URL, options: Mapping[str, Any], reader_options: Mapping[str, Any]) -> tuple[URL, URL]:
    """The URLs of both engines."""
    given = make_url(url)
    if given.drivername not in {"postgresql+aurora", "postgresql+aurora_async"}:
        raise ArgumentError(f"the URL is one of postgresql+aurora://, and not of {given.drivername}://")
    arguments = [each.get("connect_args") or {} for each in (options, reader_options)]
    if any("aurora_role" in each for each in (given.query, *arguments)):
        raise ArgumentError("leave out aurora_role: each of the two engines has a role of its own")
    writer = given.difference_update_query(["aurora_reader_fallback"]).update_query_dict({"aurora_role": "writer"})
    return writer, given.update_query_dict({"aurora_role": "reader"})


def _check_role(role: object) -> Role | None:
    if role is not None and role not in _ROLES:
        raise ArgumentError(f"a role is 'writer' or 'reader' (aurora_role, role), and not {role!r}")
    return cast("Role | None", role)


def _has_replayed(connection: Connection, tokens: Iterable[CausalToken]) -> bool:
    """Whether a connection has replayed all of the tokens. The last proof is kept with the driver's connection.

    Raises:
        CausalTokenRejected: the connection is the writer's, and it contradicts a token.
        StaleConnection: the writer that the connection leads to was replaced.
    """
    info, tokens = connection.info, list(tokens)
    if info.get(_PROVEN) == tokens:
        return True
    driver = find_driver(connection)
    for token in tokens:
        answer = driver.has_replayed(token)
        if not (await_only(answer) if connection.dialect.is_async else answer):
            return False
    info[_PROVEN] = tokens
    return True


def _make_token(connection: Connection) -> CausalToken:
    """A token of a connection without an open transaction on the server; one that nothing proves where that fails.

    The writes that it stands for are committed, so that no error may leave here.
    """
    try:
        made = find_driver(connection).causal_token()
        return cast("CausalToken", await_only(made) if connection.dialect.is_async else made)
    except Exception as error:  # noqa: BLE001 - see above
        level = logging.WARNING if isinstance(error, (AuroraRouterError, TypeError)) else logging.INFO
        text = "no causal token after a commit, so the session goes on reading from the writer: %s"
        logger.log_once(level, f"{connection.engine.url} {type(error).__name__}", text, error)
        return _UNPROVABLE


def _on_execute(state: ORMExecuteState) -> None:
    """Pass the execution option on to `RoutingSession.get_bind`, which is not given it."""
    state.bind_arguments.setdefault("aurora_role", state.execution_options.get("aurora_role"))


def _on_begin(session: RoutingSession, transaction: SessionTransaction, connection: Connection) -> None:
    if transaction.parent is None:
        session._join(connection)  # noqa: SLF001 - the listeners are a part of the class


def _on_before_commit(session: RoutingSession) -> None:
    session._check_reader()  # noqa: SLF001


def _on_commit(session: RoutingSession) -> None:
    if not session.in_nested_transaction():  # the end of a savepoint commits nothing
        session._commit_writes()  # noqa: SLF001


def _on_end(session: RoutingSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None:
        session._leave()  # noqa: SLF001


LISTENERS: dict[str, Callable[..., Any]] = {
    "do_orm_execute": _on_execute,
    "after_begin": _on_begin,
    "before_commit": _on_before_commit,
    "after_commit": _on_commit,
    "after_transaction_end": _on_end,
}
"""SQLAlchemy's events of a session by which it routes."""
for _name, _listener in LISTENERS.items():
    event.listen(RoutingSession, _name, _listener)
