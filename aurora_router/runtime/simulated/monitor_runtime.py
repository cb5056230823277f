"""A simulated process with a monitor: its clusters are looked after by the same procedures as real ones."""

from __future__ import annotations

import contextlib
import copy
from typing import TYPE_CHECKING, Any

from aurora_router.flow.connect import connect
from aurora_router.flow.monitor import ClusterMonitor
from aurora_router.flow.probe import Access
from aurora_router.flow.runtime import Activity, Target
from aurora_router.model.instance import Role
from aurora_router.policy.hang_detection import Limits, with_silence
from aurora_router.runtime import libpq
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.simulated.runtime import SimulatedProcess, SimulatedRuntime
from aurora_router.runtime.simulated.scheduler import Cancelled

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from typing_extensions import Self

    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.cluster import Cluster
    from aurora_router.policy.paths import End
    from aurora_router.runtime.simulated.connection import SimulatedConnection
    from aurora_router.runtime.simulated.network import Network
    from aurora_router.runtime.simulated.scheduler import Task

_LOOK = 0.005
"""How often a statement looks whether its connection broke, in virtual seconds."""


class SimulatedMonitorRuntime(SimulatedRuntime):
    """The runtime of a simulated monitor.

    Attributes:
        tasks: what was started, for any cluster, and may still go on; a simulation looks at their errors.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.tasks: list[Task[None]] = []
        self._own: list[Task[None]] = []
        self._heard: dict[tuple[str, int], float] = {}
        self._silences: dict[tuple[str, int], tuple[float, ...]] = {}

    def note_bytes(self, address: str, port: int, waited: float) -> None:
        """Note that a server has sent something on a dial, for which that waited; 0: not the first."""
        self._heard[address, port] = self.now()
        if waited:
            self._silences[address, port] = with_silence(self._silences.get((address, port), ()), waited)

    def dial_heard_at(self, target: Target) -> float | None:
        """When the last data arrived on a dial of a target."""
        port = target.port or 5432
        return max((self._heard[each, port] for each in target.addresses if (each, port) in self._heard), default=None)

    def dial_silence(self, target: Target) -> float | None:
        """How long each of the last dials of a target waited for the first byte at least, in seconds."""
        ends = ((each, target.port or 5432) for each in target.addresses)
        return min((each for end in ends for each in self._silences.get(end, ())), default=None)

    def for_a_cluster(self) -> Self:
        """The same runtime, for what looks after one cluster: `end` ends that alone."""
        own = copy.copy(self)
        own._own = []  # noqa: SLF001 - of this class
        return own

    def spawn(self, procedure: Coroutine[Any, Any, None]) -> None:
        """Let a procedure go on by itself."""
        self.tasks[:] = [task for task in self.tasks if not task.done or task.error is not None]
        self._own = [task for task in self._own if not task.done]
        task = self.simulation.spawn(procedure)
        self.tasks.append(task)
        self._own.append(task)

    async def end(self) -> None:
        """End what goes on by itself, but for the task that asks."""
        for task in self._own:
            if task is not self.simulation.current and not task.done:
                task.cancel()
                with contextlib.suppress(Cancelled):
                    await task.wait()

    def activity(self, held: SimulatedConnection) -> Activity:
        """What a user's connection does now."""
        if held.broken and held.heard:
            return Activity.BROKEN
        return Activity.WAITING if held.waiting else Activity.IDLE

    def target(self, held: SimulatedConnection, name: str) -> Target | None:
        """Where a user's connection leads."""
        return None if held.closed else Target(name, held.address, held.cluster.port, (held.address,))

    def heard_at(self, held: SimulatedConnection) -> float | None:
        """When the last data arrived on a user's connection."""
        return held.heard_at

    def has_unread(self, held: SimulatedConnection) -> bool:
        """Whether something arrived that its process has not read yet."""
        return held.unread

    def ends(self, connection: SimulatedConnection) -> tuple[End | None, End | None]:
        """Both ends of a connection of the monitor's own."""
        return ("10.255.0.1", connection.local_port), (connection.address, connection.port)

    def database(self, connection: SimulatedConnection) -> str:  # noqa: ARG002 - see `MonitorRuntime`
        """Return the name of the database, which is the same for every simulated connection."""
        return "app"

    async def offer(self, connection: SimulatedConnection) -> bool:  # noqa: ARG002 - see `MonitorRuntime`
        """It is not taken: a simulated dial costs nothing that would have to be saved."""
        return False

    def cut(self, held: SimulatedConnection) -> bool:
        """Shut it down, so that its statement wakes up."""
        open_ = not (held.broken or held.closed)
        held.breaks()
        return open_


class WatchedProcess(SimulatedProcess):
    """A simulated process with a monitor.

    Attributes:
        monitor_runtime: does the I/O of the monitor.
    """

    def __init__(self, network: Network) -> None:
        super().__init__(network)
        self.monitor_runtime = SimulatedMonitorRuntime(network)

    async def connect(self, conninfo: str, **options: Any) -> SimulatedConnection:
        """What `aurora_router.connect` does, with a monitor, in this simulation; takes and raises the same."""
        args = read_connect_args(conninfo, options)
        result: ConnectResult[SimulatedConnection] = await connect(
            self.runtime, self.home.find, args.request, args.sources
        )
        made = result.connection
        made.result = result
        if result.instance is not None and result.route is not None:
            made.limits = Limits(args.request.options.hang_grace, args.request.options.ping_timeout)
            made.was_writer = result.role is Role.WRITER
            made.direct = result.route.direct
            result.track()
            self._attend(result.cluster, Access(args.request, result.route, args.sources, args.params))
        return made

    async def execute(self, connection: SimulatedConnection, seconds: float = 0.0) -> None:
        """A statement that takes the server `seconds`.

        Raises:
            DialFailed: the connection broke before its answer came.
        """
        connection.waiting = True
        done = self.runtime.now() + connection.instance.latency + seconds
        try:
            while not connection.broken:
                if self.runtime.now() >= done and not connection.instance.silent:
                    if connection.heard_at is not None:
                        connection.heard_at = self.runtime.now()
                    return
                await self.runtime.sleep(_LOOK)
            connection.heard = True
            raise libpq.new_connection_lost("server closed the connection unexpectedly")
        finally:
            connection.waiting = False

    def _attend(self, cluster: Cluster, access: Access) -> None:
        if not cluster.is_news_for_monitor(access.request, access.route, access.params):
            return
        if cluster.monitor is not None:
            watch: Any = cluster.monitor
            watch.on_user_connected(access)
            return
        own = self.monitor_runtime.for_a_cluster()
        begun: ClusterMonitor[SimulatedConnection] = ClusterMonitor(own, cluster, access)
        cluster.monitor = begun
        own.spawn(self._look_after(begun, own))

    async def _look_after(self, watch: ClusterMonitor[SimulatedConnection], own: SimulatedMonitorRuntime) -> None:
        await watch.run()
        watch.cluster.monitor = None
        watch.cluster.on_monitor_stopped()
        await own.end()
        await watch.close()
