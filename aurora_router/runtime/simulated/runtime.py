"""The simulated runtime, and the processes that use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router.flow.causal import connect_after
from aurora_router.flow.connect import connect, refresh_topology
from aurora_router.flow.runtime import POSTGRESQL, DialFailed, Resolution, Rows, Target
from aurora_router.policy.addresses import share
from aurora_router.psycopg_errors import FAMILY
from aurora_router.runtime import libpq, sequential_dial
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.registry import Registry
from aurora_router.runtime.simulated import answers
from aurora_router.runtime.simulated.names import Memory
from aurora_router.runtime.simulated.network import new_connection_lost

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Notifier, Wanted
    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.event import Event
    from aurora_router.model.view import View
    from aurora_router.policy.role_reports import Path
    from aurora_router.runtime.simulated.connection import SimulatedConnection
    from aurora_router.runtime.simulated.network import Network


T = TypeVar("T")


class SimulatedRuntime:
    """A `Runtime` on the virtual clock of a simulation; one per process, which remembers names of its own."""

    errors = FAMILY
    queries = POSTGRESQL

    def __init__(self, network: Network) -> None:
        self.network = network
        self.simulation = network.simulation
        self._names = Memory(network.dns)
        self.random = self.simulation.rng.random

    def now(self) -> float:
        """The virtual clock, in seconds."""
        return self.simulation.now

    thread = None

    def can_wait_for(self, thread: int | None) -> bool:  # noqa: ARG002 - the scheduler's procedures all go on
        """Whether another procedure goes on while this one waits."""
        return True

    async def sleep(self, seconds: float) -> None:
        """Let `seconds` of virtual time pass."""
        await self.simulation.sleep(seconds)

    async def call(self, function: Callable[[], T], seconds: float) -> T:  # noqa: ARG002 - it takes no virtual time
        """Call a function at once."""
        return function()

    async def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """What a host name stands for."""
        return await self._names.resolve(host, fresh=fresh)

    def last_resolution(self, host: str) -> Resolution | None:
        """What a host name stood for when it was resolved last."""
        return self._names.last(host)

    async def dial(self, target: Target, seconds: float) -> SimulatedConnection:
        """Open a connection to the first address that answers."""
        if not target.addresses:
            raise libpq.new_connection_lost(f"{target.name} has no address: a simulation has no sockets of files")
        until, failures = self.now() + seconds, list[DialFailed]()
        for address in target.addresses:
            following = len(target.addresses) - len(failures) - 1
            limit = share(until - self.now(), following, [each.fault for each in failures])
            try:
                return await self.network.dial(address, target.port or 5432, limit, target.wanted, self.note_bytes)
            except DialFailed as failed:
                failures.append(failed)
        if len(failures) > 1:
            raise sequential_dial.join_failures(target.addresses, failures, libpq.rewrite)
        raise failures[0]

    def note_bytes(self, address: str, port: int, waited: float) -> None:
        """Note that a server has sent something on a dial; a monitor does."""

    async def ask(
        self, connection: SimulatedConnection, sql: str, seconds: float, wanted: Wanted | None = None
    ) -> Rows:
        """One service query."""
        self.simulation.counts["ask"] += 1
        instance = connection.instance
        silent = instance.silent or instance.latency > seconds
        if silent:
            await self.network.wait(seconds, wanted)
        else:
            await self.simulation.sleep(instance.latency)
        if connection.broken or connection.closed:
            raise new_connection_lost()
        if silent or instance.silent:
            raise libpq.new_timeout("topology query", seconds)
        connection.report_role()
        return answers.answer(connection, sql)

    async def discard(self, connection: SimulatedConnection) -> None:
        """Close a connection; takes no time, so that clean-up is never cut short."""
        connection.close()

    def in_hot_standby(self, connection: SimulatedConnection) -> bool | None:
        """What the server reported of itself last."""
        return connection.in_hot_standby

    def may_wait_for_snapshot(self, connection: SimulatedConnection) -> bool:  # noqa: ARG002 - sessions have no settings
        """Whether a query may wait for others' transactions: never."""
        return False

    def address(self, connection: SimulatedConnection) -> str | None:
        """The numeric address at the other end."""
        return connection.address

    def path(self, connection: SimulatedConnection) -> Path:
        """The address and the port that were dialled."""
        return connection.address, connection.port

    def backend_pid(self, connection: SimulatedConnection) -> int:
        """The backend's process id, as reported at start-up."""
        return connection.backend_pid

    def local_port(self, connection: SimulatedConnection) -> int | None:
        """The port at this end."""
        return connection.local_port

    async def wait_for_news(self, notifier: Notifier, seen: int, seconds: float) -> None:
        """Wait for news of a cluster."""
        wake = self.simulation.waker()
        notifier.add_waiter(wake)
        try:
            if notifier.news == seen:
                await self.simulation.park(self.simulation.now + seconds)
        finally:
            notifier.drop_waiter(wake)


class _Home(Registry):
    """The clusters of one simulated process."""

    def __init__(self, process: SimulatedProcess) -> None:
        super().__init__()
        self._process = process

    def publish(self, cluster: Cluster, event: Event) -> None:
        self._process.events.append((self._process.runtime.now(), cluster.name, event))


class SimulatedProcess:
    """A process that connects: with a state of its own, as real processes have.

    Attributes:
        runtime: does its I/O.
        home: what it knows of clusters.
        events: what it learned: (virtual time, cluster, event).
    """

    def __init__(self, network: Network) -> None:
        self.runtime = SimulatedRuntime(network)
        self.events: list[tuple[float, str, Event]] = []
        self.home = _Home(self)

    async def connect(self, conninfo: str, *, after: CausalToken | None = None, **options: Any) -> SimulatedConnection:
        """What `aurora_router.connect` does, in this simulation; takes and raises the same."""
        args = read_connect_args(conninfo, options)
        result: ConnectResult[SimulatedConnection]
        if after is None:
            result = await connect(self.runtime, self.home.find, args.request, args.sources)
        else:
            result = await connect_after(self.runtime, self.home.find, args.request, args.sources, after)
        result.connection.result = result
        result.track()
        return result.connection

    async def topology(self, conninfo: str, **options: Any) -> View:
        """What `aurora_router.Router.topology` does, in this simulation; takes and raises the same."""
        args = read_connect_args(conninfo, options)
        return (await refresh_topology(self.runtime, self.home.find, args.request, args.sources)).view
