"""`Router` and `AsyncRouter`: one cluster, all of its roles."""

from __future__ import annotations

import inspect
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import psycopg

from aurora_router.connection import AsyncConnection, Connection
from aurora_router.errors import CommitOutcomeUnknown, InvalidOption
from aurora_router.flow.begin import Plan
from aurora_router.flow.connect import find_route, refresh_topology
from aurora_router.flow.outcome import Resolver
from aurora_router.flow.session import Modes
from aurora_router.flow.transaction import Transaction
from aurora_router.frozen import frozen
from aurora_router.policy.balance import select
from aurora_router.policy.options import overridden_by
from aurora_router.policy.route import CHOOSING, Mode
from aurora_router.runtime.blocking import run
from aurora_router.runtime.connect_args import opening, opening_async, read_connect_args
from aurora_router.runtime.libpq import NO_LOGIN, dial_params
from aurora_router.runtime.libpq_runtimes import BlockingRuntime, EventLoopRuntime
from aurora_router.runtime.registry import REGISTRY
from aurora_router.runtime.sequential_dial import refuse_dial
from aurora_router.runtime.transacting import BlockingSessions, EventLoopSessions, TransactionToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from typing_extensions import Unpack

    from aurora_router.flow.runtime import Runtime, Target
    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.model.endpoint import Endpoint, WantedRole
    from aurora_router.model.view import View
    from aurora_router.params import RouterParams
    from aurora_router.policy.options import BalanceFunction
    from aurora_router.policy.outcome import Finding, Outcome
    from aurora_router.policy.route import Route
    from aurora_router.runtime.connect_args import ConnectArgs

T = TypeVar("T")


class Pool(Protocol):
    """Where blocking connections come from; `psycopg_pool.ConnectionPool` is one."""

    def getconn(self) -> Any:
        """A connection, idle."""
        ...

    def putconn(self, conn: Any) -> None:
        """Take it back, idle, or closed."""
        ...


class AsyncPool(Protocol):
    """Where asyncio connections come from; `psycopg_pool.AsyncConnectionPool` is one."""

    async def getconn(self) -> Any:
        """A connection, idle."""
        ...

    async def putconn(self, conn: Any) -> None:
        """Take it back, idle, or closed."""
        ...


@frozen
class Explanation:
    """How connections are routed, in words.

    Attributes:
        endpoint: the host, parsed.
        role: which instances may serve.
        mode: how the instance is found.
        reasons: why, one sentence each.
        candidates: every known instance, in the order of preference, then those left out; empty while the cluster
            is not known.
    """

    endpoint: Endpoint
    role: WantedRole
    mode: Mode
    reasons: tuple[str, ...]
    candidates: tuple[str, ...]


class _Routing:
    """What both routers share: the conninfo and what is said of it."""

    def __init__(self, conninfo: str = "", **options: Unpack[RouterParams]) -> None:
        self.conninfo = conninfo
        self.options: dict[str, Any] = {**options}
        if self.options.get("balance") is not None and self.options.get("aurora_balance") is None:
            self.options["aurora_balance"] = self.options.pop("balance")  # so that one of a connection replaces it
        self._args = read_connect_args(conninfo, self.options)

    def _role(self, modes: Modes) -> str | None:
        """The role of a transaction's connection: what writes needs the writer, whatever the endpoint's kind."""
        return None if modes.read_only or self._args.request.options.instance is not None else "writer"

    def _new_resolver(self, runtime: Any, token: CommitToken) -> Resolver[Any]:
        return Resolver(runtime, REGISTRY.find, self._args.request, self._args.sources, token)

    def _plan(self, take: Any, give: Any, new_resolver: Callable[[CommitToken], Awaitable[Resolver[Any]]]) -> Plan[Any]:
        args = self._args
        return Plan(args.request.options, take, give, new_resolver, args.methods, args.degraded, args.nameless)

    def _refuse_elsewhere(self, connection: Any) -> None:
        """Refuse a pool's connection to another database: a COMMIT that it loses would be looked for in ours.

        Only where the names can be compared: a pooler in between may have names of its own. Where it goes unnoticed
        here, the commit token says it.
        """
        mine, placement = self._args.params.get("dbname"), getattr(connection, "placement", None)
        if mine is None or placement is None or placement.pooled or connection.closed:
            return
        if connection.info.dbname != mine:
            raise InvalidOption(
                f"the pool's connections lead to the database {connection.info.dbname}, and this router to {mine}, "
                "where a lost COMMIT would be looked for in vain: make the router with the pool's dbname"
            )

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        """The keywords of a connection: ``role="reader"`` is short for ``aurora_role="reader"``."""
        short = {f"aurora_{name}": value for name, value in options.items() if value is not None}
        return {**self.options, **overridden_by(short), **short}

    def _explain(self, chosen: Route, runtime: Runtime[Any]) -> Explanation:
        """What the policy would make of a connection on this route."""
        cluster = REGISTRY.find(self._args.request, chosen)
        view, now = cluster.view, runtime.now()
        candidates: tuple[str, ...] = ()
        if view.known and chosen.mode in CHOOSING:
            selection = select(
                view,
                self._args.request.options,
                chosen.role,
                loads=cluster.loads(view.instances),
                quarantine=cluster.state.health.quarantine,
                now=now,
                rng=runtime,
                turn=cluster.turn,
                endpoint=None if chosen.custom_endpoint is None else view.find_endpoint(chosen.custom_endpoint, now),
            )
            candidates = tuple(selection.lines)
        return Explanation(chosen.endpoint, chosen.role, chosen.mode, chosen.reasons, candidates)


class Router(_Routing):
    """One cluster and all of its roles, blocking.

    Args:
        conninfo: as for `connect`; any endpoint of the cluster.
        options: connection parameters and ``aurora_…`` options, for every connection.

    Raises:
        InvalidOption: one of our options is unknown, malformed or contradicts another.
        MalformedHost: a host name that no resolver could take.
    """

    def connect(
        self,
        *,
        role: str | None = None,
        instance: str | None = None,
        max_lag: float | None = None,
        balance: BalanceFunction | str | None = None,
        after: CausalToken | None = None,
        **kwargs: Any,
    ) -> Connection[Any]:
        """Connect to an instance.

        Args:
            role: ``writer``, ``reader``, ``prefer-reader`` or ``any``.
            instance: the id of the one instance to connect to.
            max_lag: highest replica lag of a reader, in seconds.
            balance: how one of several readers is chosen: a strategy, the name of an entry point, or a function.
            after: a reader has replayed what this causal token stands for; else the writer serves.
            kwargs: as `Connection.connect` takes them.

        Raises what `aurora_router.Connection.connect` raises.
        """
        ours = self._with({"role": role, "instance": instance, "max_lag": max_lag, "balance": balance})
        return Connection.connect(self.conninfo, after=after, **{**ours, **kwargs})

    def explain(self) -> Explanation:
        """How a connection would be routed now; follows an alias by DNS, dials nothing.

        Raises:
            NameNotResolved: the host is an alias to be followed, and has no address.
        """
        runtime: BlockingRuntime[Any] = BlockingRuntime(refuse_dial, self._args.names)
        return self._explain(run(find_route(runtime, self._args.request)), runtime)

    def topology(self) -> View:
        """Ask the cluster for its topology now, by one connection of its own. Raises as `connect` does."""
        args = self._args
        runtime: BlockingRuntime[Any] = BlockingRuntime(_opening(args), args.names)
        return run(refresh_topology(runtime, REGISTRY.find, args.request, args.sources)).view

    def run_transaction(
        self,
        work: Callable[[Any], T],
        *,
        isolation: str | psycopg.IsolationLevel | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
        pool: Pool | None = None,
        commit: Callable[[], None] | None = None,
        on_token: Callable[[CommitToken], None] | None = None,
        on_causal: Callable[[CausalToken], None] | None = None,
        resolver: Callable[[], Router] | None = None,
    ) -> T:
        """Run ``work(connection)`` in a transaction that commits once; repeat it only if it is proven not committed.

        A COMMIT whose answer is lost is looked for on the new writer (see ``docs/commit-outcome.md``). Connections
        lost before COMMIT, serialization failures and deadlocks are tried again, up to
        ``aurora_transaction_attempts`` times: `work` may run several times, so it should do nothing but SQL.

        Args:
            work: does its SQL on the connection, and neither commits nor rolls back.
            isolation: ``READ COMMITTED``, ``REPEATABLE READ`` or ``SERIALIZABLE``, or a `psycopg.IsolationLevel`; None:
                as the connection says.
            read_only: whether it only reads; None: as the connection says. If so, it is run again where the answer to
                COMMIT was lost: a NOTIFY, which PostgreSQL permits there, may be sent twice. Not for work that
                notifies.
            deferrable: whether it waits for a safe snapshot; None: as the connection says.
            pool: gives and takes the connections (``getconn``, ``putconn``); None: each attempt makes one.
            commit: for a layer above psycopg: commits by its own means, by calling the connection's ``commit``.
            on_token: is given the token of each attempt before the work; with it, `outcome_of` can be asked later,
                also by another process.
            on_causal: is given the causal token of what was committed, for reads on readers. Not called where `work`
                may only read. Costs nothing with a witness row, else one round trip.
            resolver: gives the router whose parameters the resolver connects with, when it is needed: for passwords and
                tokens that change. None: this one, with the user and password that `pool` would connect with now where
                its ``conninfo`` or ``kwargs`` is a callable.

        Returns:
            What the `work` returned that was committed.

        Raises:
            CommitOutcomeUnknown: it is not known whether it committed.
            InvalidOption: the connections of `pool` lead to another database than this router.
            TransactionEnded: the work ended its transaction, or swallowed the error that made it fail.
            Exception: what the work or psycopg raised; it did not commit. An exception of a signal handler, when COMMIT
                had been sent, becomes the cause of a `CommitOutcomeUnknown`.
            BaseException: an interruption, such as KeyboardInterrupt; it may have committed where this has an attribute
                ``token``, for `outcome_of`.
        """
        runtime: BlockingSessions[Any] = BlockingSessions(_opening(self._args), self._args.names)
        modes = Modes(_level(isolation), read_only, deferrable)
        returned: dict[int, int] = {}
        causal = TransactionToken(on_causal, self._args, runtime)

        async def take() -> Any:
            if pool is None:
                return self.connect(role=self._role(modes))
            connection = pool.getconn()
            returned[id(connection)] = _times_returned(connection)
            try:
                self._refuse_elsewhere(connection)
            except BaseException:
                pool.putconn(connection)
                raise
            return connection

        async def give(connection: Any) -> None:
            if pool is None:
                connection.close()
            elif returned.pop(id(connection), 0) == _times_returned(connection):  # else the work returned it itself
                pool.putconn(connection)

        async def run_work(connection: Any) -> T:
            return work(connection)

        async def new_resolver(token: CommitToken) -> Resolver[Any]:
            router = self._renew(pool) if resolver is None else resolver()
            return router._asking(token)  # noqa: SLF001 - of this class

        plan = self._plan(take, give, new_resolver)
        finish = None if commit is None else _awaitable(commit)
        make, report = causal.hooks
        transaction = Transaction(runtime, plan, run_work, modes, finish, on_token, make, report)
        try:
            result = run(transaction.run())
            return result  # noqa: RET504, TRY300 - an interruption before the end of this line has to be judged
        except BaseException as error:
            transaction.judge(error)
            raise

    def _renew(self, pool: Pool | None) -> Router:
        """This router, with the user and password of the moment where a pool has a callable for them."""
        given: list[Any] = [getattr(pool, name, None) for name in ("conninfo", "kwargs")]
        if not any(map(callable, given)):
            return self
        conninfo, kwargs = (each() if callable(each) else each for each in given)
        return Router(self.conninfo, **{**self.options, **_credentials(conninfo, kwargs)})

    def _asking(self, token: CommitToken) -> Resolver[Any]:
        runtime: BlockingSessions[Any] = BlockingSessions(_opening(self._args), self._args.names)
        return self._new_resolver(runtime, token)

    def outcome_of(self, token: CommitToken | CommitOutcomeUnknown) -> Outcome:
        """Return a transaction's outcome; waits up to ``aurora_failover_timeout`` for a verdict.

        Returns:
            Committed or not; in progress or unknown where it is not known, or not yet.

        Raises:
            ValueError: there is no token in the error.
        """
        return self.finding_of(token).outcome

    def finding_of(self, token: CommitToken | CommitOutcomeUnknown) -> Finding:
        """Return a transaction's outcome, as `outcome_of` does, and why that is certain or not."""
        return run(self._asking(_token(token)).run())

    @classmethod
    def of(cls, connection: Connection[Any]) -> Router:
        """A router with the parameters that a connection was made with.

        Raises:
            ValueError: it was not made by `Connection.connect`.
        """
        conninfo, options = _origin(connection)
        return cls(conninfo, **options)


class AsyncRouter(_Routing):
    """One cluster and all of its roles, on asyncio; otherwise like `Router`."""

    async def connect(
        self,
        *,
        role: str | None = None,
        instance: str | None = None,
        max_lag: float | None = None,
        balance: BalanceFunction | str | None = None,
        after: CausalToken | None = None,
        **kwargs: Any,
    ) -> AsyncConnection[Any]:
        """Connect to an instance; the arguments are those of `Router.connect`.

        Raises what `aurora_router.Connection.connect` raises.
        """
        ours = self._with({"role": role, "instance": instance, "max_lag": max_lag, "balance": balance})
        return await AsyncConnection.connect(self.conninfo, after=after, **{**ours, **kwargs})

    async def explain(self) -> Explanation:
        """How a connection would be routed now; see `Router.explain`."""
        runtime: EventLoopRuntime[Any] = EventLoopRuntime(refuse_dial, self._args.names)
        return self._explain(await find_route(runtime, self._args.request), runtime)

    async def topology(self) -> View:
        """Ask the cluster for its topology now; see `Router.topology`."""
        args = self._args
        runtime: EventLoopRuntime[Any] = EventLoopRuntime(_opening_async(args), args.names)
        return (await refresh_topology(runtime, REGISTRY.find, args.request, args.sources)).view

    async def run_transaction(
        self,
        work: Callable[[Any], Awaitable[T]],
        *,
        isolation: str | psycopg.IsolationLevel | None = None,
        read_only: bool | None = None,
        deferrable: bool | None = None,
        pool: AsyncPool | None = None,
        commit: Callable[[], Awaitable[None]] | None = None,
        on_token: Callable[[CommitToken], None] | None = None,
        on_causal: Callable[[CausalToken], None] | None = None,
        resolver: Callable[[], Awaitable[AsyncRouter]] | None = None,
    ) -> T:
        """Run ``await work(connection)`` in a transaction that commits once; see `Router.run_transaction`.

        Cancelled while COMMIT is under way, it closes the connection; the `asyncio.CancelledError` has the attribute
        ``token``, by which `outcome_of` can be asked. A connection is given back before the cancellation is raised.
        """
        runtime: EventLoopSessions[Any] = EventLoopSessions(_opening_async(self._args), self._args.names)
        modes = Modes(_level(isolation), read_only, deferrable)
        returned: dict[int, int] = {}
        causal = TransactionToken(on_causal, self._args, runtime)

        async def take() -> Any:
            if pool is None:
                return await self.connect(role=self._role(modes))
            connection = await pool.getconn()
            returned[id(connection)] = _times_returned(connection)
            try:
                self._refuse_elsewhere(connection)
            except BaseException:
                await pool.putconn(connection)
                raise
            return connection

        async def give(connection: Any) -> None:
            if pool is None:
                await connection.close()
            elif returned.pop(id(connection), 0) == _times_returned(connection):
                await pool.putconn(connection)

        async def new_resolver(token: CommitToken) -> Resolver[Any]:
            router = await (self._renew(pool) if resolver is None else resolver())
            return router._asking(token)  # noqa: SLF001 - of this class

        plan = self._plan(take, give, new_resolver)
        make, report = causal.hooks
        transaction = Transaction(runtime, plan, work, modes, commit, on_token, make, report)
        try:
            result = await transaction.run()
            return result  # noqa: RET504, TRY300 - an interruption before the end of this line has to be judged
        except BaseException as error:
            transaction.judge(error)
            raise

    async def _renew(self, pool: AsyncPool | None) -> AsyncRouter:
        """This router, with the user and password of the moment; see `Router`."""
        given: list[Any] = [getattr(pool, name, None) for name in ("conninfo", "kwargs")]
        if not any(map(callable, given)):
            return self
        called = [each() if callable(each) else each for each in given]
        conninfo, kwargs = [await each if inspect.isawaitable(each) else each for each in called]
        return AsyncRouter(self.conninfo, **{**self.options, **_credentials(conninfo, kwargs)})

    def _asking(self, token: CommitToken) -> Resolver[Any]:
        runtime: EventLoopSessions[Any] = EventLoopSessions(_opening_async(self._args), self._args.names)
        return self._new_resolver(runtime, token)

    async def outcome_of(self, token: CommitToken | CommitOutcomeUnknown) -> Outcome:
        """Return a transaction's outcome; see `Router.outcome_of`."""
        return (await self.finding_of(token)).outcome

    async def finding_of(self, token: CommitToken | CommitOutcomeUnknown) -> Finding:
        """Return a transaction's outcome, with the reason; see `Router.finding_of`."""
        return await self._asking(_token(token)).run()

    @classmethod
    def of(cls, connection: AsyncConnection[Any]) -> AsyncRouter:
        """A router with the parameters that a connection was made with; see `Router.of`."""
        conninfo, options = _origin(connection)
        return cls(conninfo, **options)


def _awaitable(call: Callable[[], None]) -> Callable[[], Awaitable[None]]:
    """Return a function without arguments as a procedure awaits it."""

    async def run_call() -> None:
        call()

    return run_call


def _opening(args: ConnectArgs) -> Callable[[Target, float], Any]:
    """Makes connections of the library's own."""

    def open_(target: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Any:
        # psycopg counts whole seconds, and at least 2.
        limit = max(2, ceil(seconds))
        return psycopg.connect("", **{**dial_params(args.params, target, seconds, login), "connect_timeout": limit})

    return opening(open_, args.params)


def _opening_async(args: ConnectArgs) -> Callable[[Target, float], Awaitable[Any]]:
    async def open_(target: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Any:
        return await psycopg.AsyncConnection.connect("", **dial_params(args.params, target, seconds, login))

    return opening_async(open_, args.params)


def _origin(connection: Connection[Any] | AsyncConnection[Any]) -> tuple[str, dict[str, Any]]:
    origin: tuple[str, dict[str, Any]] | None = getattr(connection, "origin", None)
    if origin is None:
        raise ValueError("the connection was not made by aurora_router, so its parameters are not known")
    return origin


def _credentials(conninfo: Any, kwargs: Any) -> dict[str, Any]:
    """User and password, as far as a pool's connect would be given them."""
    names = ("user", "password")
    args = read_connect_args(conninfo or "", {name: kwargs[name] for name in names if name in kwargs} if kwargs else {})
    return {name: args.params[name] for name in names if name in args.params}


def _level(isolation: str | psycopg.IsolationLevel | None) -> str | None:
    """The isolation level as SQL spells it, refusing what is none: it becomes a part of BEGIN."""
    if isolation is None:
        return None
    if isinstance(isolation, psycopg.IsolationLevel):
        return isolation.name.replace("_", " ")
    if not isinstance(isolation, str):
        raise TypeError(f"isolation={isolation!r}: give the level's name, or a psycopg.IsolationLevel")
    try:
        return psycopg.IsolationLevel[isolation.strip().upper().replace(" ", "_")].name.replace("_", " ")
    except KeyError:
        known = ", ".join(level.name.replace("_", " ") for level in psycopg.IsolationLevel)
        raise ValueError(f"isolation={isolation!r}: the levels are {known}") from None


def _token(token: CommitToken | CommitOutcomeUnknown) -> CommitToken:
    found = token.token if isinstance(token, CommitOutcomeUnknown) else token
    if found is None:
        raise ValueError("the transaction left no commit token, so its outcome cannot be asked for")
    return found


def _times_returned(connection: Any) -> int:
    """How many times closing a connection returned it to its pool: then it may be another user's by now."""
    times: int = getattr(connection, "returned", 0)
    return times
