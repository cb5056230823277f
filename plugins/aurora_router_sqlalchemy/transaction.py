"""``run_transaction`` for SQLAlchemy: a transaction that commits once, also when the answer to COMMIT is lost.

The work is done on SQLAlchemy's own objects, and SQLAlchemy commits, with its flushes, hooks and events. Underneath,
`aurora_router.Router.run_transaction` has begun the transaction on the driver's connection with a mark, and sends the
COMMIT when SQLAlchemy asks that connection for it. A COMMIT whose answer is lost is resolved before SQLAlchemy gets an
answer: where it is committed, ``commit()`` succeeds, ``after_commit`` is called and objects are persistent; where not,
``commit()`` fails and ``after_rollback`` is called, as after any COMMIT that fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from sqlalchemy import Engine, event
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.util import greenlet_spawn

import aurora_router

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import psycopg
    from sqlalchemy import Connection

    SyncSource = Engine | sessionmaker[Any] | Session
    AsyncSource = AsyncEngine | async_sessionmaker[Any] | AsyncSession

T = TypeVar("T")


def run_transaction(
    source: SyncSource,
    work: Callable[[Any], T],
    *,
    isolation: str | psycopg.IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    on_token: Callable[[aurora_router.CommitToken], None] | None = None,
    on_causal: Callable[[aurora_router.CausalToken], None] | None = None,
) -> T:
    """Run ``work(connection)`` or ``work(session)`` in a transaction that commits once.

    It is run again where it is proven not to have committed: `work` may be called several times. It neither commits
    nor rolls back (savepoints by ``begin_nested`` are welcome).

    Args:
        source: an engine (`work` gets a `Connection`), a sessionmaker (a new `Session` for each attempt, closed after
            it), or a `Session` (rolled back between attempts).
        work: does its SQL.
        isolation: as for `aurora_router.Router.run_transaction`, like the rest; None: as SQLAlchemy has set it.
        read_only: whether it only reads.
        deferrable: whether it waits for a safe snapshot.
        on_token: is given the token of each attempt.
        on_causal: is given the causal token of what was committed, for `connect_after`.

    Returns:
        What the `work` returned that was committed.

    Raises:
        CommitOutcomeUnknown: it is not known whether it committed.
        TypeError: the engine is not one of ``postgresql+aurora``.
        sqlalchemy.exc.InvalidRequestError: the session has begun a transaction already, or uses a second engine.
        Exception: what the work, SQLAlchemy or psycopg raised; it did not commit.
    """
    place: _Place = _OfEngine(source) if isinstance(source, Engine) else _OfSession(source)
    driver = place.getconn()
    try:
        router = aurora_router.Router.of(_check_class(driver, aurora_router.Connection))
    except BaseException:
        place.putconn(driver)
        raise
    return router.run_transaction(
        lambda _: work(place.begin()),
        isolation=isolation,
        read_only=read_only,
        deferrable=deferrable,
        pool=_First(place, driver),
        commit=place.commit,
        on_token=on_token,
        on_causal=on_causal,
        resolver=lambda: aurora_router.Router(**_parameters(place.connection, place.driver)),
    )


async def run_transaction_async(
    source: AsyncSource,
    work: Callable[[Any], Awaitable[T]],
    *,
    isolation: str | psycopg.IsolationLevel | None = None,
    read_only: bool | None = None,
    deferrable: bool | None = None,
    on_token: Callable[[aurora_router.CommitToken], None] | None = None,
    on_causal: Callable[[aurora_router.CausalToken], None] | None = None,
) -> T:
    """Run ``await work(connection)`` or ``await work(session)`` in a transaction that commits once.

    Takes an `AsyncEngine`, an async_sessionmaker or an `AsyncSession`; otherwise like `run_transaction`.
    """
    place = _find_async_place(source)
    driver = await place.getconn()
    try:
        router = aurora_router.AsyncRouter.of(_check_class(driver, aurora_router.AsyncConnection))
    except BaseException:
        await place.putconn(driver)
        raise

    async def run_work(_: Any) -> T:
        return await work(await place.begin())

    async def resolver() -> aurora_router.AsyncRouter:
        return aurora_router.AsyncRouter(**await greenlet_spawn(_parameters, place.connection, place.driver))

    return await router.run_transaction(
        run_work,
        isolation=isolation,
        read_only=read_only,
        deferrable=deferrable,
        pool=_AsyncFirst(place, driver),
        commit=place.commit,
        on_token=on_token,
        on_causal=on_causal,
        resolver=resolver,
    )


def _check_class(driver: Any, wanted: type[Any]) -> Any:
    if not isinstance(driver, wanted):
        raise TypeError(
            f"run_transaction needs an engine of postgresql+aurora://, whose connections are {wanted.__name__} of "
            f"aurora_router; this one gave a {type(driver).__module__}.{type(driver).__name__}"
        )
    return driver


def _parameters(connection: Connection, driver: Any) -> dict[str, Any]:
    """The parameters with which the engine of a connection would connect now: its ``do_connect`` hooks are asked.

    They start from those that `driver`, a connection of that engine, was made with.
    """
    dialect = connection.dialect
    conninfo, parameters = driver.origin
    arguments, parameters = [conninfo], dict(parameters)
    for hook in dialect.dispatch.do_connect:
        made = hook(dialect, None, arguments, parameters)
        if made is not None:
            conninfo, parameters = cast("Any", getattr(made, "driver_connection", made)).origin
            made.close()
            return {**parameters, "conninfo": conninfo}
    return {**parameters, "conninfo": arguments[0] if arguments else ""}


# ---------------------------------------------------------------- where SQLAlchemy does its work


class _Place(Protocol):
    """One of SQLAlchemy's objects at a time, as a pool of its driver's connections.

    Attributes:
        connection: SQLAlchemy's connection of the attempt.
        driver: the driver's connection under it.
    """

    connection: Connection
    driver: Any

    def getconn(self) -> Any: ...
    def putconn(self, conn: Any) -> None: ...
    def begin(self) -> Any: ...
    def commit(self) -> None: ...


class _OfEngine:
    """A connection of an engine, for each attempt."""

    connection: Connection
    driver: Any

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def getconn(self) -> Any:
        self.connection = self._engine.connect()
        self.driver = self.connection.connection.driver_connection
        return self.driver

    def putconn(self, conn: Any) -> None:
        _drop_lost(self.connection, conn)
        self.connection.close()

    def begin(self) -> Connection:
        self.connection.begin()
        return self.connection

    def commit(self) -> None:
        self.connection.commit()


class _OfSession:
    """A new session for each attempt, or the one that was given."""

    connection: Connection
    driver: Any
    subject: Session

    def __init__(self, source: Callable[[], Session] | Session) -> None:
        self._source = source

    def getconn(self) -> Any:
        self.subject = self._source if isinstance(self._source, Session) else self._source()
        _refuse_unfit(self.subject)
        try:
            self.connection = self.subject.connection()
            self.driver = self.connection.connection.driver_connection
            self._alone = _Alone(self.subject, self.connection)
        except BaseException:
            self._leave()
            raise
        return self.driver

    def putconn(self, conn: Any) -> None:
        self._alone.end()
        if self.subject.in_transaction():
            _drop_lost(self.connection, conn)
        self._leave()

    def _leave(self) -> None:
        if self.subject.in_transaction():
            self.subject.rollback()
        if not isinstance(self._source, Session):
            self.subject.close()

    def begin(self) -> Session:
        return self.subject

    def commit(self) -> None:
        self._alone.check()
        self.subject.commit()


class _AsyncPlace:
    """A place of SQLAlchemy's synchronous half, used from asyncio as SQLAlchemy's own asyncio objects use it.

    Args:
        place: the place.
        wrap: returns the asyncio object of what `place` has begun.
    """

    def __init__(self, place: _Place, wrap: Callable[[Any], Any]) -> None:
        self._place = place
        self._wrap = wrap

    @property
    def connection(self) -> Connection:
        return self._place.connection

    @property
    def driver(self) -> Any:
        return self._place.driver

    async def getconn(self) -> Any:
        return await greenlet_spawn(self._place.getconn)

    async def putconn(self, conn: Any) -> None:
        await greenlet_spawn(self._place.putconn, conn)

    async def begin(self) -> Any:
        return self._wrap(await greenlet_spawn(self._place.begin))

    async def commit(self) -> None:
        await greenlet_spawn(self._place.commit)


def _find_async_place(source: AsyncSource) -> _AsyncPlace:
    if isinstance(source, AsyncEngine):
        return _AsyncPlace(_OfEngine(source.sync_engine), lambda connection: AsyncConnection(source, connection))
    if isinstance(source, AsyncSession):
        return _AsyncPlace(_OfSession(source.sync_session), lambda _: source)
    made: dict[Session, AsyncSession] = {}

    def make() -> Session:
        made.clear()
        session: AsyncSession = source()
        made[session.sync_session] = session
        return session.sync_session

    return _AsyncPlace(_OfSession(make), made.__getitem__)


def _drop_lost(connection: Connection, driver: Any) -> None:
    """Let the pool replace a connection whose driver's connection is closed."""
    if driver.closed and not connection.closed:
        connection.invalidate()


class _Alone:
    """Refuses a second engine in a session: each has a COMMIT of its own, of which one may fail alone.

    Args:
        session: in the attempt.
        connection: the one that it begins with.
    """

    def __init__(self, session: Session, connection: Connection) -> None:
        self._session = session
        self._connection = connection
        self._transaction = session.get_transaction()  # a work that ends it is refused elsewhere
        self._is_violated = False
        event.listen(session, "after_begin", self._refuse)

    def end(self) -> None:
        """Do so no longer."""
        if event.contains(self._session, "after_begin", self._refuse):
            event.remove(self._session, "after_begin", self._refuse)

    def check(self) -> None:
        """Refuse to commit where the work went on after it had been refused."""
        if self._is_violated:
            raise InvalidRequestError(
                "the session of run_transaction used a second engine or connection. Each has a COMMIT of its own, of "
                "which one may fail alone: nothing is committed. Use one session for each database"
            )

    def _refuse(self, session: Session, transaction: object, connection: Connection) -> None:
        del transaction  # a savepoint's, too
        if connection is not self._connection and session.get_transaction() is self._transaction:
            self._is_violated = True
            self.check()


def _refuse_unfit(session: Session) -> None:
    if session.in_transaction():
        raise InvalidRequestError(
            "run_transaction begins the transaction itself, and this session has begun one: "
            "commit or roll back first, or give it a sessionmaker"
        )
    if session.twophase:
        raise InvalidRequestError("run_transaction does not commit in two phases: use a session without twophase")


# ---------------------------------------------------------------- the connection that is there already


class _First:
    """A place whose first connection was taken before; the further ones are taken as they are needed."""

    def __init__(self, place: _Place, driver: Any) -> None:
        self._place = place
        self._driver = driver

    def getconn(self) -> Any:
        driver, self._driver = self._driver, None
        return driver if driver is not None else self._place.getconn()

    def putconn(self, conn: Any) -> None:
        self._place.putconn(conn)


class _AsyncFirst:
    """The same, on asyncio."""

    def __init__(self, place: _AsyncPlace, driver: Any) -> None:
        self._place = place
        self._driver = driver

    async def getconn(self) -> Any:
        driver, self._driver = self._driver, None
        return driver if driver is not None else await self._place.getconn()

    async def putconn(self, conn: Any) -> None:
        await self._place.putconn(conn)
