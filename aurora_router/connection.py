"""`Connection` and `AsyncConnection`: psycopg's own classes, put on the right instance when they are made.

Nothing is proxied: what comes out of ``connect`` is a subclass that overrides ``connect``, ``close``, ``notifies``,
``wait`` (for the note that an error gets) and psycopg's private ``_connect_gen``, so cursors, COPY, pipelines,
adaptation, exceptions and speed are psycopg's.

Importing this module imports little more than psycopg. The first ``connect`` imports what routes (`connecting`).
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from types import MethodType
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload
from weakref import ref

import psycopg
from psycopg.rows import Row

from aurora_router import native, observe
from aurora_router.errors import AuroraRouterError
from aurora_router.forks import IMPORTING, UNREADABLE, step_by_step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Mapping
    from types import CodeType

    from psycopg import Notify
    from psycopg.abc import RV, AdaptContext, PQGen
    from psycopg.rows import AsyncRowFactory, RowFactory
    from typing_extensions import Self, Unpack

    import aurora_router.connecting as late
    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.runtime import Target, Wanted
    from aurora_router.model.causal_token import CausalToken
    from aurora_router.params import ReadParams
    from aurora_router.placement import Placement
    from aurora_router.policy.hang_detection import Limits
    from aurora_router.runtime.connect_args import ConnectArgs
    from aurora_router.runtime.rebalancing import Rebalancer
    from aurora_router.runtime.sockets import SocketId

if not TYPE_CHECKING:

    class _Late:
        """Stands for the module `connecting` until something of it is used; then the module replaces it."""

        def __getattr__(self, name: str) -> Any:
            with IMPORTING:
                from aurora_router import connecting  # noqa: PLC0415 - see the module's docstring
            globals()["late"] = connecting
            return getattr(connecting, name)

    late = _Late()

NewRow = TypeVar("NewRow")
ErrorT = TypeVar("ErrorT", bound=BaseException)


# An exception from a signal handler may keep what was set below from being reset. So what is set refers weakly to what
# counts: that belongs to the one call that set it, and goes with it.


class _Dial:
    """One dial, as the generator of psycopg that does it has to know it: a context, in which it is made.

    Attributes:
        session: the session that the monitor had already, in the place of a dial.
        until: when a blocking dial has to be over, on the monotonic clock (psycopg's own limit is never below two
            seconds); None: the event loop sees to that.
        wanted: whether a blocking dial is still wanted before that; None: it is.
        conninfo: what to dial, so that psycopg is given no parameters; None: it makes that of them.
    """

    __slots__ = ("__weakref__", "_token", "conninfo", "session", "until", "wanted")

    def __init__(
        self,
        session: psycopg.pq.abc.PGconn | None,
        until: float | None = None,
        wanted: Wanted | None = None,
        conninfo: str | None = None,
    ) -> None:
        self.session = session
        self.until = until
        self.wanted = wanted
        self.conninfo = conninfo

    def __enter__(self) -> None:
        self._token = _dial.set(ref(self))

    def __exit__(self, *_: object) -> None:
        _dial.reset(self._token)
        if self.session is not None:
            self.session.finish()


class _Deadline:
    """When a whole connect has to be over, on the monotonic clock."""

    __slots__ = ("__weakref__", "at", "wanted")

    def __init__(self, at: float, wanted: Wanted | None) -> None:
        self.at = at
        self.wanted = wanted


LOOK_SECONDS = 0.02
"""How often the socket of a connection is checked at most, in seconds: a busy pool checks out far more often."""

_dial: ContextVar[ref[_Dial] | None] = ContextVar("dial", default=None)
_deadline: ContextVar[ref[_Deadline] | None] = ContextVar("deadline", default=None)
"""A pool's deadline, for which ``connect`` has no argument."""


def _call_until() -> tuple[float | None, Wanted | None]:
    """When the connect that begins has to be over, on the monotonic clock, and whether it is wanted until then.

    None: its own options say so.
    """
    known = _deadline.get()
    deadline = None if known is None else known()
    return (None, None) if deadline is None else (deadline.at, deadline.wanted)


@contextmanager
def within(seconds: float, wanted: Wanted | None = None) -> Iterator[None]:
    """Let each connect made meanwhile, in this context, end in `seconds` from now, or when it is not `wanted`."""
    deadline = _Deadline(time.monotonic() + seconds, wanted)
    token = _deadline.set(ref(deadline))
    try:
        yield
    finally:
        _deadline.reset(token)


_BLOCKING: Any = psycopg.Connection
_AWAITED: Any = psycopg.AsyncConnection
_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
_FULL = "connect failed: {}: close files or connections, or raise the limit (ulimit -n)"
_EXPLAINED = (psycopg.OperationalError, psycopg.InternalError)
"""What a lost connection (the first) and a refused write (25006, the second) raise."""


class _Routed:
    """What both classes share: a placement, and what the monitor has to know of it."""

    placement: Placement = cast("Placement", None)
    """Where the connection is: of every one that ``connect`` made, which is what its type says. None for others."""
    origin: tuple[str, dict[str, Any]] | None = None
    """The conninfo and the parameters that ``connect`` was given, to make another one like it."""

    waiting_since: float | None = None
    limits: Limits | None = None
    listening = 0
    returned = 0
    """How many times `close` returned the connection to its pool (``close_returns``)."""
    was_writer = direct = False
    cut_because: str | None = None
    """Why this library shut the socket down; None: it did not."""
    socket_id: SocketId | None = None
    reported: bool | None = None
    """What the server reported first of ``in_hot_standby``."""
    endpoint: str | None = None
    """The custom endpoint by whose name the connection was made, if its members can be known."""
    process = 0
    """The process that opened the connection; 0 for one that was not made by ``connect``."""
    sound: Callable[[], bool] = staticmethod(lambda: True)
    """Whether the instance is what it was and the server has not ended the connection, as far as is known here."""
    rebalancer: Rebalancer | None = None
    """What keeps the balance of this connection and those like it; None: no pool has asked yet."""
    guard: Any = nullcontext()
    """Held while the socket is closed, or used from another thread; never while anything is waited for."""

    @classmethod
    def _connect_gen(cls, *args: Any, **kwargs: Any) -> Any:
        """Take the monitor's session, or dial within the runtime's own limit, to psycopg's tenth of a second.

        A fork waits for the end of a step.
        """
        known = _dial.get()
        dial = None if known is None else known()
        if dial is not None and dial.session is not None:
            session, dial.session = dial.session, None
            return _at_once(cast("Any", cls)(session))
        check = None if dial is None or dial.until is None else _make_check(dial.until, dial.wanted)
        if dial is not None and dial.conninfo is not None and args[:1] == ("",):
            args = (dial.conninfo,)
        return step_by_step(cast("Any", super())._connect_gen(*args, **kwargs), check)  # noqa: SLF001 - it is its own

    @property
    def generation(self) -> int:
        """The instance's generation when the connection was made."""
        return self.placement.generation if self.placement is not None else 0

    def _register(self, result: ConnectResult[Any], args: ConnectArgs) -> None:
        """Count the connection for its instance, and have the monitor look after it unless that was declined."""
        cluster, route, options = result.cluster, result.route, args.request.options
        self.placement = late.Placement(
            result.instance, result.generation, result.role, result.pooled, cluster, result.why
        )
        if cluster.connects is not None:
            cluster.connects.append((time.time(), self.placement))
        pgconn = cast("psycopg.Connection[Any]", self).pgconn
        self.reported = late.reported_standby(pgconn)
        self.process = os.getpid()
        self.endpoint = None if route is None else route.custom_endpoint
        self.sound = _make_sound(self, result)
        self.limits = late.Limits(options.hang_grace, options.ping_timeout) if options.monitor else late.UNLIMITED
        if result.instance is None:
            return
        self.guard = native.new_rlock()
        result.track()
        if options.monitor and route is not None:
            self.was_writer = result.role is late.Role.WRITER
            self.direct = route.direct
            self.socket_id = late.identify_connected(pgconn.socket)
            if cluster.is_news_for_monitor(args.request, route, args.params):
                with IMPORTING:
                    from aurora_router.runtime.monitor import MONITOR  # noqa: PLC0415
                    from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime  # noqa: PLC0415

                MONITOR.attend(cluster, args, route, ThreadMonitorRuntime)

    def _explain(self, error: psycopg.Error) -> psycopg.Error:
        """Attach to an error what happened to the instance, where that is why the statement failed; returns it.

        Another error is returned where psycopg's own does not say that the connection is lost.
        """
        placement = self.placement
        if placement is None:
            return error
        try:
            with IMPORTING:
                from aurora_router.runtime import incidents  # noqa: PLC0415 - see the module's docstring

            error = incidents.as_lost(self, error)
            incidents.explain(
                self,
                placement._cluster,  # noqa: SLF001 - a private part of this module
                error,
                instance=placement.instance,
                generation=placement.generation,
                role=placement.role,
            )
        except TimeoutError:
            raise  # of a signal handler, maybe
        except UNREADABLE:
            observe.logger.debug("an error could not be explained", exc_info=True)
        return error

    def _leave(self) -> None:
        placement = self.placement
        if placement is not None and placement.instance is not None:
            placement._cluster.untrack(placement.instance, self)  # noqa: SLF001 - a private part of this module

    def discard(self) -> None:
        """Close the connection instead of returning it to its pool; never waits."""
        with self._closing():
            cast("psycopg.Connection[Any]", self).pgconn.finish()
        self._leave()

    def descriptor(self) -> int | None:
        """The file descriptor of the socket, for the monitor; None: it was lost or closed."""
        pgconn = cast("psycopg.Connection[Any]", self).pgconn
        return None if pgconn.status == psycopg.pq.ConnStatus.BAD else pgconn.socket

    @property
    def _is_lent(self) -> bool:
        """Whether `close` returns the connection to its pool (``close_returns``), which may wait for the server."""
        pool = getattr(self, "_pool", None)
        return bool(getattr(pool, "close_returns", False)) and not cast("psycopg.Connection[Any]", self).closed

    @property
    def is_inherited(self) -> bool:
        """Whether another process opened the connection, and this one was forked from it."""
        return self.process != os.getpid() and self.process != 0

    def _closing(self) -> AbstractContextManager[Any]:
        """Prepare to close the connection; returns what guards it meanwhile.

        In the child of a fork its own descriptor alone is closed: the session is the parent's, nothing is sent to it.
        """
        if self.is_inherited and not cast("psycopg.Connection[Any]", self).closed:
            with IMPORTING:
                from aurora_router.runtime.sockets import sever  # noqa: PLC0415 - a fork is rare

            sever(cast("psycopg.Connection[Any]", self).pgconn.socket)
            self.guard = native.new_rlock()  # the thread that held it may not exist here
        guard: AbstractContextManager[Any] = self.guard
        return guard


class Connection(_Routed, psycopg.Connection[Row]):
    """A `psycopg.Connection` on the right instance of a cluster."""

    @overload  # type: ignore[override]  # keywords are named one by one, so that a misspelled one is an error
    @classmethod
    def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: RowFactory[NewRow],
        cursor_factory: type[psycopg.Cursor[Any]] | None = None,
        **kwargs: Unpack[ReadParams],
    ) -> Connection[NewRow]: ...
    @overload
    @classmethod
    def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: None = None,
        cursor_factory: type[psycopg.Cursor[Any]] | None = None,
        **kwargs: Unpack[ReadParams],
    ) -> Self: ...
    @classmethod
    def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: RowFactory[Any] | None = None,
        cursor_factory: type[psycopg.Cursor[Any]] | None = None,
        **kwargs: Any,
    ) -> Connection[Any]:
        """Connect to the instance that the host name, the options and the cluster's topology call for.

        Takes what `psycopg.Connection.connect` takes, and every ``aurora_…`` option in `conninfo` or by keyword. With a
        causal token as ``after``, a reader has replayed what it stands for, or the writer serves.

        Raises:
            CausalTokenRejected: the token is of another cluster, beyond the writer, or of a kind that is not accepted.
            NoInstanceAvailable: nothing that fits could be reached in time.
            NameNotResolved: the host name has no address.
            NameNotVerifiable: ``sslmode=verify-full`` would verify a name that only DNS vouches for.
            CredentialsUnavailable: the provider of credentials gave none; its own error is the cause.
            ExtensionFailed: a function that was given to this library raised, or returned what it may not.
            InvalidOption: an option is unknown, malformed or contradicts another.
            MalformedHost: a host name that no resolver could take.
            psycopg.OperationalError: as psycopg raises it: wrong password, no such database …
        """

        def open_(target: Target, seconds: float, login: Mapping[str, str] = late.NO_LOGIN) -> Connection[Row]:
            params = late.dial_params(args.params, target, seconds, login)
            session = late.SESSIONS.take(params) if late.SESSIONS.laid else None
            connect = super(Connection, cls).connect
            conninfo = late.make_conninfo(params) if _is_psycopgs_own(connect, cls, Connection) else None
            with _Dial(session, time.monotonic() + seconds, target.wanted, conninfo):
                return connect(
                    "",
                    autocommit=autocommit,
                    prepare_threshold=prepare_threshold,
                    context=context,
                    row_factory=row_factory,
                    cursor_factory=cursor_factory,
                    **(params if conninfo is None else {}),
                )

        after: CausalToken | None = kwargs.pop("after", None)
        try:
            args = late.limit_args(late.read_connect_args(conninfo, kwargs), *_call_until())
            runtime = late.BlockingRuntime(late.opening(open_, args.params), late.names_of(args.request.options))
            route = late.route_connection if after is None else _routing_after(after)
            result = late.run(route(runtime, late.REGISTRY.find, args.request, args.sources))
        except (psycopg.Error, AuroraRouterError) as error:
            raise _shorten_traceback(error) from error.__cause__
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise  # of a signal handler, maybe: TimeoutError is one
            raise _shorten_traceback(psycopg.OperationalError(_FULL.format(error))) from error
        result.connection._register(result, args)  # noqa: SLF001 - of this class
        result.connection.origin = (conninfo, kwargs)
        return cast("Self", result.connection)

    @classmethod
    def _get_connection_params(cls, conninfo: str, **kwargs: Any) -> dict[str, Any]:
        """Return a dial's parameters, which ``connect`` has read: psycopg would parse an empty string, in 50 us."""
        if conninfo or None in kwargs.values():
            return super()._get_connection_params(conninfo, **kwargs)
        return kwargs

    def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer, as psycopg does; an error that means a lost instance says so (``error.incident``).

        Every statement passes here: ``super()`` and ``**kwargs`` would cost it 2 µs of 45.
        """
        try:
            if timeout is None:  # psycopg 3.2 has no such parameter
                answer: RV = _BLOCKING.wait(self, gen, interval)
            else:
                answer = _BLOCKING.wait(self, gen, interval, timeout)
        except _EXPLAINED as error:
            explained = self._explain(error)
            if explained is error:
                raise
            raise explained from error
        return answer

    def close(self) -> None:
        """Close the connection, as psycopg does."""
        guard = self._closing()
        if self._is_lent:
            self.returned += 1
            super().close()  # the pool rolls back: no guard is held meanwhile
            return
        with guard:
            super().close()
        self._leave()

    def causal_token(self) -> CausalToken:
        """Return a token for what was committed before this call, for reads on readers: one round trip.

        Raises:
            InvalidOption: no method of ``aurora_causal`` works here.
            psycopg.ProgrammingError: a transaction is open.
        """
        with IMPORTING:
            from aurora_router.runtime import causal  # noqa: PLC0415 - loaded where it is needed

        with self.lock:
            return causal.make_token(self)

    def has_replayed(self, token: CausalToken, *, timeout: float | None = 0.0) -> bool:
        """Return whether this session has replayed what a token stands for; waits up to `timeout` seconds for it.

        The answer True holds until the connection is closed. A token that is not trusted is not waited for.
        With the timeout None, ``aurora_causal_wait`` applies.

        Raises:
            CausalTokenRejected: the token is of a kind that is not accepted here, or this is the writer, and the token
                is of another cluster, or beyond it.
            StaleConnection: this was the writer, and a trusted token shows that another one took its place.
            psycopg.ProgrammingError: a transaction is open.
        """
        with IMPORTING:
            from aurora_router.runtime import causal  # noqa: PLC0415 - loaded where it is needed

        with self.lock:
            return causal.has_replayed(self, token, timeout)

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Generator[Notify, None, None]:
        """Yield notifications, as psycopg does; the monitor knows meanwhile that the connection waits."""
        self.listening += 1
        try:
            yield from super().notifies(timeout=timeout, stop_after=stop_after)
        finally:
            self.listening -= 1


class AsyncConnection(_Routed, psycopg.AsyncConnection[Row]):
    """A `psycopg.AsyncConnection` on the right instance of a cluster."""

    @overload  # type: ignore[override]  # keywords are named one by one, so that a misspelled one is an error
    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[NewRow],
        cursor_factory: type[psycopg.AsyncCursor[Any]] | None = None,
        **kwargs: Unpack[ReadParams],
    ) -> AsyncConnection[NewRow]: ...
    @overload
    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: None = None,
        cursor_factory: type[psycopg.AsyncCursor[Any]] | None = None,
        **kwargs: Unpack[ReadParams],
    ) -> Self: ...
    @classmethod
    async def connect(
        cls,
        conninfo: str = "",
        *,
        autocommit: bool = False,
        prepare_threshold: int | None = 5,
        context: AdaptContext | None = None,
        row_factory: AsyncRowFactory[Any] | None = None,
        cursor_factory: type[psycopg.AsyncCursor[Any]] | None = None,
        **kwargs: Any,
    ) -> AsyncConnection[Any]:
        """Connect to the instance that the host name, the options and the cluster's topology call for.

        Takes and raises what `Connection.connect` does.
        """

        async def open_(
            target: Target, seconds: float, login: Mapping[str, str] = late.NO_LOGIN
        ) -> AsyncConnection[Row]:
            params = late.dial_params(args.params, target, seconds, login)
            session = late.SESSIONS.take(params) if late.SESSIONS.laid else None
            connect = super(AsyncConnection, cls).connect
            conninfo = late.make_conninfo(params) if _is_psycopgs_own(connect, cls, AsyncConnection) else None
            with _Dial(session, conninfo=conninfo):
                return await connect(
                    "",
                    autocommit=autocommit,
                    prepare_threshold=prepare_threshold,
                    context=context,
                    row_factory=row_factory,
                    cursor_factory=cursor_factory,
                    **(params if conninfo is None else {}),
                )

        after: CausalToken | None = kwargs.pop("after", None)
        try:
            args = late.limit_args(late.read_connect_args(conninfo, kwargs), *_call_until())
            runtime = late.EventLoopRuntime(late.opening_async(open_, args.params), late.names_of(args.request.options))
            route = late.route_connection if after is None else _routing_after(after)
            result = await route(runtime, late.REGISTRY.find, args.request, args.sources)
        except (psycopg.Error, AuroraRouterError) as error:
            raise _shorten_traceback(error) from error.__cause__
        except OSError as error:
            if error.errno not in _NO_DESCRIPTOR:
                raise  # of a signal handler, maybe: TimeoutError is one
            raise _shorten_traceback(psycopg.OperationalError(_FULL.format(error))) from error
        result.connection._register(result, args)  # noqa: SLF001 - of this class
        result.connection.origin = (conninfo, kwargs)
        return cast("Self", result.connection)

    @classmethod
    async def _get_connection_params(cls, conninfo: str, **kwargs: Any) -> dict[str, Any]:
        """Return the parameters of a dial, as `Connection._get_connection_params` does."""
        if conninfo or None in kwargs.values():
            return await super()._get_connection_params(conninfo, **kwargs)
        return kwargs

    async def wait(self, gen: PQGen[RV], interval: float = 0.1, timeout: float | None = None) -> RV:
        """Wait for an answer, as `Connection.wait` does."""
        try:
            if timeout is None:
                answer: RV = await _AWAITED.wait(self, gen, interval)
            else:
                answer = await _AWAITED.wait(self, gen, interval, timeout)
        except _EXPLAINED as error:
            explained = self._explain(error)
            if explained is error:
                raise
            raise explained from error
        return answer

    async def close(self) -> None:
        """Close the connection, as psycopg does."""
        guard = self._closing()
        if self._is_lent:
            self.returned += 1
            await super().close()
            return
        with guard:
            await super().close()  # it does not suspend: nothing is sent that is waited for
        self._leave()

    async def causal_token(self) -> CausalToken:
        """Return a token for what was committed before this call; see `Connection.causal_token`."""
        with IMPORTING:
            from aurora_router.runtime import causal  # noqa: PLC0415 - loaded where it is needed

        async with self.lock:
            return await causal.make_token_async(self)

    async def has_replayed(self, token: CausalToken, *, timeout: float | None = 0.0) -> bool:
        """Return whether this session has replayed what a token stands for; see `Connection.has_replayed`."""
        with IMPORTING:
            from aurora_router.runtime import causal  # noqa: PLC0415 - loaded where it is needed

        async with self.lock:
            return await causal.has_replayed_async(self, token, timeout)

    async def notifies(
        self, *, timeout: float | None = None, stop_after: int | None = None
    ) -> AsyncGenerator[Notify, None]:
        """Yield notifications, as psycopg does; the monitor knows meanwhile that the connection waits."""
        self.listening += 1
        try:
            async with aclosing(super().notifies(timeout=timeout, stop_after=stop_after)) as notifications:
                async for each in notifications:
                    yield each
        finally:
            self.listening -= 1


# For `inspect.signature`: what psycopg's own takes, whatever its version.
Connection.wait.__wrapped__ = psycopg.Connection.wait  # type: ignore[attr-defined]
AsyncConnection.wait.__wrapped__ = psycopg.AsyncConnection.wait  # type: ignore[attr-defined]


def _routing_after(token: CausalToken) -> Callable[..., Any]:
    """Return the function that routes a read with a causal token, in the place of `flow.connect.connect`.

    Raises:
        TypeError: it is no such token.
    """
    with IMPORTING:
        from aurora_router.flow.causal import connect_after  # noqa: PLC0415 - few reads have a token
        from aurora_router.model.causal_token import CausalToken  # noqa: PLC0415

    if not isinstance(token, CausalToken):
        raise TypeError(f"after={token!r} is no causal token: give one that connection.causal_token() has returned")
    return partial(connect_after, token=token)


def _shorten_traceback(error: ErrorT) -> ErrorT:
    """Remove the traceback of the inner parts from an error that leaves the library."""
    try:
        with IMPORTING:
            from aurora_router.runtime.tracebacks import shorten_traceback  # noqa: PLC0415 - few connects fail
    except UNREADABLE:  # no descriptor is free, for example, which may be what the error is about
        return error
    return shorten_traceback(error)


def _make_sound(connection: Any, result: ConnectResult[Any]) -> Callable[[], bool]:
    """Return a function that says whether a connection may still be used, by what is known here.

    One function, which does no more than it has to: a pool asks at every checkout. That the server has not ended the
    connection, and reports the role that it reported first, may be `LOOK_SECONDS` old.
    """
    pgconn, reported, owner = connection.pgconn, connection.reported, connection.process
    cluster, instance, generation, endpoint = result.cluster, result.instance, result.generation, connection.endpoint
    ended, now, process = late.end_of(pgconn.socket), time.monotonic, os.getpid
    reported_standby = late.reported_standby
    looked, seen = now(), None

    def sound() -> bool:
        nonlocal looked, seen
        if process() != owner:
            return False
        view = cluster.view
        if view is not seen and instance is not None:
            known = view.instances.get(instance)
            if known is None or known.generation != generation:
                return False
            if endpoint is not None and not view.has_member(endpoint, instance):
                return False
            seen = view  # it never changes, and so neither does the answer
        if now() - looked > LOOK_SECONDS:
            if ended() or reported_standby(pgconn) is not reported:
                return False
            looked = now()
        return True

    return sound


def _code_of(method: Any) -> CodeType | None:
    """Return the code of a method of psycopg's; None: a tool has put another function in its place."""
    code: CodeType | None = getattr(getattr(method, "__func__", None), "__code__", None)
    return code if code is not None and code.co_filename.startswith(psycopg.__path__[0]) else None


_CONNECTS = frozenset({_code_of(psycopg.Connection.connect), _code_of(psycopg.AsyncConnection.connect)} - {None})


def _is_psycopgs_own(connect: Any, cls: Any, known: Any) -> bool:
    """Return whether nothing but psycopg and `known` handles a dial's parameters: no subclass, no tool that traces."""
    return (
        type(connect) is MethodType
        and getattr(connect.__func__, "__code__", None) in _CONNECTS
        and getattr(cls._connect_gen, "__func__", None) is known._connect_gen.__func__  # noqa: SLF001 - our own
        and getattr(cls._get_connection_params, "__func__", None) is known._get_connection_params.__func__  # noqa: SLF001
    )


def _at_once(connection: Any) -> Generator[Any, Any, Any]:
    """A dial without a step."""
    yield from ()
    return connection


def _make_check(until: float, wanted: Wanted | None) -> Callable[[object], None]:
    """Return a function that ends a dial, called with what each of its waits returned.

    It raises when the time is over, or when nothing came and the dial is not wanted any more.
    """

    def check(ready: object) -> None:
        if time.monotonic() > until or (not ready and wanted is not None and not wanted()):
            raise psycopg.errors.ConnectionTimeout("connection timeout expired")

    return check


connect = Connection.connect
"""Connect to the right instance of a cluster; short for `Connection.connect`."""
