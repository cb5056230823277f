"""The ground of a simulated client process: dials, service queries and statements over an unreliable network."""

from __future__ import annotations

import copy
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aurora_router.flow.runtime import GLANCE_SECONDS, Activity, DialFailed
from aurora_router.flow.session import Modes, Reply, TransactionRecord
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.runtime import libpq
from aurora_router.runtime.simulated.network import new_dial_failure
from aurora_router.runtime.transacting import BlockingSessions
from aurora_router.simulation import (
    Condition,
    Network,
    SimulatedMonitorRuntime,
    SimulatedProcess,
    SimulatedRuntime,
    WatchedProcess,
)

from .sessions import Conn, broke

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.simulation import Relay

    from .clock import Clock
    from .servers import Server

APART = 0.6
"""Between two packets that are lost, in seconds."""
RESENT = (1.0, 3.0, 7.0, 15.0)
"""When a kernel sends a SYN again that got no answer, in seconds."""


class Harbour(Network):
    """Where the servers are.

    Attributes:
        servers: by address.
        behind: what is behind the address of a pooler, by the name of a database.
        engines: by cluster, how its engine reports roles, also on servers that are added later.
        resets: how likely a dial is reset.
        losses: how likely a SYN of a monitor's gets lost by accident.
        lost_at: when SYNs of a process to a server got lost by accident.
        resent_at: when the last of those SYNs is sent again, or the dial is given up that it was of.
        reset_at: when dials of a process to a server were reset.
        unsent: spans of time from when a SYN of a monitor's got lost, for whatever reason, until it is sent again.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.servers: dict[str, Server] = {}
        self.behind: dict[str, Callable[[str], Server | None]] = {}
        self.resets = 0.0
        self.losses = 0.0
        self.tells_receipts = True
        self.lost_at: dict[tuple[Any, Server], list[float]] = {}
        self.resent_at: dict[tuple[Any, Server], float] = {}
        self.unsent: dict[tuple[Any, Server], list[tuple[float, float]]] = {}
        self.reset_at: dict[tuple[Any, Server], list[float]] = {}
        self.engines: dict[Any, Relay] = {}

    async def open(self, wire: Wire, address: str, port: int, seconds: float, wanted: Any) -> Conn:
        """Dial one address, over the network of one process."""
        process = wire.process
        behind, until = self.behind.get(address), self.clock.now + seconds
        server = self.servers.get(address) if behind is None else behind(wire.name)
        if server is None or (behind is None and (address, port) not in self._listening):
            await self.clock.sleep(0.0005)
            raise new_dial_failure(address, port, Condition.REFUSING)
        late = libpq.new_timeout(f"connecting to {address}", seconds)
        lossy = isinstance(wire, Lookout)
        arrived = await self._arrived(process, server, until, wanted, lossy=lossy)
        if not arrived or not await self._shaken(process, server, until, wanted or (lambda: True)):
            raise late
        if self._missed(until):
            raise late
        condition = await self._answer(wire, server, address, port, until - seconds, until, wanted or (lambda: True))
        if condition is None:
            raise late
        if condition is not Condition.WELL:
            raise new_dial_failure(address, port, condition)
        cluster = self._listening[server.instance.address, 5432][0]
        relay = self.relays.get((address, port), self.engines.get(cluster))
        conn = Conn(process, cluster, server, address, port, relay)
        conn.by_monitor = lossy
        if not self.tells_receipts:
            conn.heard_at = None
        return conn

    async def _arrived(self, process: Any, server: Server, until: float, wanted: Any, *, lossy: bool) -> bool:
        """Whether a SYN gets through in time; `lossy`: one may be lost by accident."""
        began = self.clock.now
        for resent in (*RESENT, 31.0):
            lost = lossy and not (server.dark or process.dark) and self._is_lost(process, server)
            if lost:
                known = self.resent_at.get((process, server), 0.0)
                self.resent_at[process, server] = max(known, min(until, began + resent))
            if not (lost or server.dark or process.dark):
                return True
            if lossy:
                span = self.clock.now, min(until, began + resent)
                self.unsent.setdefault((process, server), []).append(span)
            if until <= began + resent:
                break
            if not await self.wait(began + resent - self.clock.now, wanted):
                return False
        await self.wait(until - self.clock.now, wanted)
        return False

    def _is_lost(self, process: Any, server: Server) -> bool:
        """Whether the network loses a SYN: now and then one, and not the next one."""
        lost = self.lost_at.setdefault((process, server), [])
        since = self.clock.now - lost[-1] if lost else APART
        if not self.losses or since < APART or self.clock.rng.random() >= self.losses:
            return False
        lost.append(self.clock.now)
        return True

    async def _shaken(self, process: Any, server: Server, until: float, wanted: Any) -> bool:
        """Whether the server answers in time; a refusal is its kernel's, or comes at once."""
        instance = server.instance
        if instance.condition is Condition.REFUSING:
            await self.clock.sleep(instance.latency)
            return True
        while server.muted or server.deaf or process.dark:
            if self.clock.now >= until:
                return False
            await server.gate.wait(min(until, self.clock.now + GLANCE_SECONDS))
            if not wanted():
                return False
        cost = instance.accept_latency + 2 * server.slow
        await self.clock.sleep(min(cost, max(0.0, until - self.clock.now)))
        return not (server.muted or server.deaf or process.dark) or await self._shaken(process, server, until, wanted)

    async def _answer(
        self, wire: Wire, server: Server, address: str, port: int, began: float, until: float, wanted: Any
    ) -> Condition | None:
        """How a server answers a dial that has reached it; None: too late."""
        condition = server.instance.condition
        if self.resets and self.clock.rng.random() < self.resets:
            condition = Condition.RESETTING
            self.reset_at.setdefault((wire.process, server), []).append(self.clock.now)
        elif condition is Condition.WELL and server.balking:
            condition = Condition.UNKNOWN
        elif condition is Condition.WELL and wire.password != server.store.password:
            condition = Condition.REJECTING
        if condition is not Condition.REFUSING:
            wire.note_bytes(address, port, self.clock.now - began)
        if condition is Condition.WELL and server.login:
            lives = server.lives
            if not await self._logged_in(wire.process, server, until, wanted):
                return None
            wire.note_bytes(address, port, 0.0)
            condition = server.instance.condition if server.lives == lives else Condition.RESETTING
        return condition

    async def _logged_in(self, process: Any, server: Server, until: float, wanted: Any) -> bool:
        """Whether a login that takes long ends in time."""
        done = self.clock.now + server.login
        while self.clock.now < min(done, until):
            await self.clock.sleep(min(done, until, self.clock.now + GLANCE_SECONDS) - self.clock.now)
            if not wanted():
                return False
        return done < until and await self._shaken(process, server, until, wanted)

    def _missed(self, until: float) -> bool:
        """Whether a client that stood still takes an answer that came in time for one that came too late."""
        return self.clock.now > until and self.clock.rng.random() < 0.5


class Wire(SimulatedRuntime):
    """What a process does over the network; a `SessionRuntime`.

    Attributes:
        name: the name of the database.
    """

    def __init__(self, harbour: Harbour, process: Any, name: str = "app") -> None:
        super().__init__(harbour)
        self.harbour, self.process, self.name = harbour, process, name

    @property
    def password(self) -> str:
        """With what it dials."""
        return self.process.password

    async def dial(self, target, seconds):
        failed = libpq.new_connection_lost(f"{target.name} has no address")
        for address in target.addresses:
            try:
                port, wanted = target.port or 5432, target.wanted
                return await self.harbour.open(self, address, port, seconds, wanted)
            except DialFailed as again:
                failed = again
        raise failed

    async def ask(self, connection, sql, seconds, wanted=None):
        return (await self.execute(connection, sql, seconds, wanted)).rows

    async def execute(self, connection: Conn, sql: str, seconds: float | None, wanted: Any = None) -> Reply:
        """Send a message and wait for its answer."""
        clock = self.harbour.clock
        until = float("inf") if seconds is None else clock.now + seconds
        if self.is_broken(connection) or connection.broken:
            connection.heard = connection.broken
            raise broke()
        connection.answer = None
        connection.waiting = True
        connection.session.post(sql)
        try:
            while connection.answer is None and not connection.broken and clock.now < until:
                connection.waker = clock.waker()
                await clock.park(until if wanted is None else min(until, clock.now + GLANCE_SECONDS))
                if wanted is not None and not wanted():
                    break
        finally:
            connection.waiting, connection.waker = False, None
        if self.is_broken(connection) or connection.broken:
            connection.heard = True
            raise broke()
        answer = connection.answer
        connection.unread = False
        if answer is None or self.harbour._missed(until):
            raise libpq.new_timeout("answer", seconds or 0.0)
        if isinstance(answer, DialFailed):
            raise DialFailed(answer.fault, answer.cause)
        return answer

    async def rollback(self, connection):
        try:
            await self.execute(connection, "ROLLBACK", None)
        except DialFailed as failed:
            raise failed.cause from None

    def is_broken(self, connection):
        return connection.closed or (connection.broken and connection.heard)

    def is_idle(self, connection):
        return connection.state == "idle"

    def is_aborted(self, connection):
        return connection.state == "error"

    def is_busy(self, connection):
        return False

    def advise(self, connection, text):
        connection.result.cluster.report(ConfigurationAdvice(text), self.now())

    @contextmanager
    def watching(self, connection):
        connection.watched = TransactionRecord()
        yield connection.watched
        connection.watched = None

    def modes(self, connection):
        return Modes()

    def server_version(self, connection):
        return connection.server.store.version

    def database(self, connection):
        return self.name

    def trouble(self, error):
        return BlockingSessions.trouble(self, error)

    def new_id(self):
        return f"{0:08x}-0000-4000-8000-{self.simulation.rng.getrandbits(40):012x}"

    async def complete(self, act, connection):
        await act(connection)

    @contextmanager
    def committing(self, connection, send):
        connection.commit = send
        yield
        del connection.commit


class Lookout(Wire, SimulatedMonitorRuntime):
    """The ground of the process's monitor."""

    def __init__(self, harbour: Harbour, process: Any, name: str = "app") -> None:
        Wire.__init__(self, harbour, process, name)
        self.tasks: list[Any] = []
        self._own: list[Any] = []
        self._silences: dict[tuple[str, int], tuple[float, ...]] = {}

    @property
    def password(self):
        """The password of the last user who connected."""
        return self.process.known_password

    def spawn(self, procedure):
        with self.harbour.clock.owned(self.process.monitor):
            super().spawn(procedure)

    def activity(self, held):
        found = super().activity(held)
        return Activity.OPEN if found is Activity.IDLE and held.state != "idle" else found

    def cut(self, held):
        open_ = not (held.broken or held.closed)
        if open_:
            self.process.on_cut(held)
        held.lose()
        return open_


class Process(WatchedProcess):
    """A client process.

    Attributes:
        dark: it is cut off from all others.
        loses: how likely a COMMIT, or its answer, gets lost with its connection.
        is_answered_for: whether what loses it answers in the place of the server, and keeps the client's connection.
        monitored: whether it has the monitor.
        options: what it gives with every connect.
        users, monitor: the owners of its tasks (see `Clock`): both stand still when it gets no CPU.
        password: with which its users connect.
        threadless: spans in which it cannot start its monitor.
        on_cut: called with each open connection that its monitor cuts.
    """

    def __init__(self, harbour: Harbour, conninfo: str, reader: str, options: dict[str, Any]) -> None:
        super().__init__(harbour)
        self.dark = False
        self.loses = 0.0
        self.is_answered_for = False
        self.mute: list[list[float]] = []
        self.starved: list[list[float]] = []
        self.stalled: list[list[float]] = []
        self.threadless: list[list[float]] = []
        self.users, self.monitor = object(), object()
        self.password = self.known_password = "first"
        self.on_cut: Callable[[Conn], object] = lambda _: None
        self.runtime = Wire(harbour, self)
        self.monitor_runtime = Lookout(harbour, self)
        self.conninfo = {"writer": conninfo, "reader": reader}
        self.monitored = options.get("aurora_monitor") != "off"
        self.options = options

    async def reach(self, role: str) -> Conn:
        """Connect as a user does."""
        way = WatchedProcess if self.monitored else SimulatedProcess
        given = self.options if "," not in self.conninfo[role] else {**self.options, "aurora_role": role}
        return await way.connect(self, self.conninfo[role], **given)

    def beside(self, database: str) -> Process:
        """The same process, as far as it connects to another database."""
        other = copy.copy(self)
        other.runtime, other.monitor_runtime = (
            Wire(self.runtime.harbour, self, database),
            Lookout(self.runtime.harbour, self, database),
        )
        other.monitor_runtime.tasks = self.monitor_runtime.tasks
        return other

    async def visit(self, conninfo: str) -> Conn:
        """Connect to another cluster, with the same options."""
        way = WatchedProcess if self.monitored else SimulatedProcess
        return await way.connect(self, conninfo, **self.options)

    def _attend(self, cluster: Any, access: Any) -> None:
        self.known_password = self.password
        if not (self.threadless and self.threadless[-1][1] > self.runtime.now()):
            super()._attend(cluster, access)

    async def said(self, connection: Conn, sql: str) -> None:
        """A statement of a user's; raises psycopg's error."""
        try:
            await self.runtime.execute(connection, sql, None)
        except DialFailed as failed:
            raise failed.cause from None
        finally:
            if connection.watched is not None:
                connection.watched.note(idle=self.runtime.is_idle(connection))

    @property
    def clusters(self) -> Any:
        return {id(each): each for each in self.home._clusters.values()}.values()

    def known(self) -> set[str]:
        """The names of all instances that it knows, also of those that there are not, and of another cluster's."""
        return {id_ for each in self.clusters for id_ in each.view.instances}
