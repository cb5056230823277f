"""`Router` and `AsyncRouter`: one cluster, all of its roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg

from aurora_router.connection import AsyncConnection, Connection
from aurora_router.flow.connect import look, routed
from aurora_router.policy.balance import select
from aurora_router.policy.explain import lines
from aurora_router.policy.route import Mode
from aurora_router.runtime.blocking import BlockingWorld, run
from aurora_router.runtime.call import read_call
from aurora_router.runtime.eventloop import EventLoopWorld
from aurora_router.runtime.libpq import dial_params
from aurora_router.runtime.registry import REGISTRY

if TYPE_CHECKING:
    from psycopg.abc import ConnParam

    from aurora_router.flow.world import Target
    from aurora_router.model.endpoint import Endpoint, WantedRole
    from aurora_router.model.view import View


@dataclass(frozen=True, slots=True)
class Explanation:
    """How connections are routed, in words.

    Attributes:
        endpoint: the host, read.
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

    def __init__(self, conninfo: str = "", **options: ConnParam | float) -> None:
        self.conninfo = conninfo
        self.options = options
        self._call = read_call(conninfo, options)

    def _with(self, options: dict[str, Any]) -> dict[str, Any]:
        """The keywords of a connection: ``role="reader"`` is short for ``aurora_role="reader"``."""
        short = {f"aurora_{name}": value for name, value in options.items() if value is not None}
        return {**self.options, **short}

    def explain(self) -> Explanation:
        """How a connection would be routed now; follows an alias by DNS, dials nothing.

        Raises:
            NameNotResolved: the host is an alias to be followed, and has no address.
        """
        world: BlockingWorld[Any] = BlockingWorld(_dial_nothing, self._call.names)
        chosen = run(routed(world, self._call.request))
        cluster = REGISTRY.find(self._call.request, chosen)
        view = cluster.view
        candidates: tuple[str, ...] = ()
        if view.known and chosen.mode in {Mode.INSTANCES, Mode.LIST}:
            told = select(
                view,
                self._call.request.options,
                chosen.role,
                loads=cluster.loads(view.instances),
                quarantine=cluster.quarantine,
                now=world.now(),
                rng=world,
                turn=cluster.turn,
            )
            candidates = tuple(lines(told))
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
        balance: str | None = None,
        **kwargs: Any,
    ) -> Connection[Any]:
        """Connect to an instance.

        Args:
            role: ``writer``, ``reader``, ``prefer-reader`` or ``any``.
            instance: the id of the one instance to connect to.
            max_lag: highest replica lag of a reader, in seconds.
            balance: how one of several readers is chosen.
            kwargs: as `Connection.connect` takes them.
        """
        ours = self._with({"role": role, "instance": instance, "max_lag": max_lag, "balance": balance})
        return Connection.connect(self.conninfo, **{**ours, **kwargs})

    def topology(self) -> View:
        """Ask the cluster for its topology now, by one connection of its own. Raises as `connect` does."""
        call = self._call

        def open_(target: Target, seconds: float) -> Any:
            return psycopg.connect("", **dial_params(call.params, target, seconds))

        world: BlockingWorld[Any] = BlockingWorld(open_, call.names)
        return run(look(world, REGISTRY.find, call.request, call.sources)).view


class AsyncRouter(_Routing):
    """One cluster and all of its roles, on asyncio; otherwise like `Router`."""

    async def connect(
        self,
        *,
        role: str | None = None,
        instance: str | None = None,
        max_lag: float | None = None,
        balance: str | None = None,
        **kwargs: Any,
    ) -> AsyncConnection[Any]:
        """Connect to an instance; the arguments are those of `Router.connect`."""
        ours = self._with({"role": role, "instance": instance, "max_lag": max_lag, "balance": balance})
        return await AsyncConnection.connect(self.conninfo, **{**ours, **kwargs})

    async def topology(self) -> View:
        """Ask the cluster for its topology now; see `Router.topology`."""
        call = self._call

        async def open_(target: Target, seconds: float) -> Any:
            return await psycopg.AsyncConnection.connect("", **dial_params(call.params, target, seconds))

        world: EventLoopWorld[Any] = EventLoopWorld(open_, call.names)
        return (await look(world, REGISTRY.find, call.request, call.sources)).view


def _dial_nothing(target: Target, seconds: float) -> NoReturn:
    raise RuntimeError(f"explaining dials nothing, and yet {target.name} was dialled ({seconds} s)")
