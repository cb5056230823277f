"""A connection of a simulated process to a simulated instance, and what may be in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.policy.hang_detection import Limits

if TYPE_CHECKING:
    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.runtime.simulated.instance import ServingCluster, SimulatedInstance


@frozen
class Relay:
    """What is between clients and the instance that an address and port lead to: a proxy, a pooler.

    Attributes:
        reports: what a session through it reports as ``in_hot_standby``, whatever its server is: a pooler repeats what
            the first server reported to it. None: nothing is reported.
        own_port: the server sees a port of the relay's; False: that of the client, as where nothing is between.
        own_pid: the backend's process id that is reported at start-up is one of the relay's: it is a pooler.
    """

    reports: bool | None
    own_port: bool = True
    own_pid: bool = False


class SimulatedConnection:
    """Open until it is closed, or breaks.

    Attributes:
        instance: where it led to.
        address: the address that was dialled.
        port: the port that was dialled.
        backend_pid: the backend's process id, as reported at start-up; behind a pooler a number of the pooler's own.
        server_pid: the process id of the backend that answers.
        local_port: the port at the client's end.
        client_port: the port from which the server sees the connection come; behind a relay one of the relay's.
        relay: what is between the process and the instance; None: nothing.
        standby: whether the instance was a standby when it last sent anything; what a relay reports may differ.
        in_hot_standby: what the server reported last, at start-up or with an answer; None when nothing.
        result: why it is there; None for one that was dialled and never handed out.
        waiting: a statement of its waits for the instance.
        heard: its process has found out that it broke.
        unread: its statement was answered, and its process has not read that.
        heard_at: when it last received something, by the virtual clock; None: its system does not say.
        waiting_since, limits, was_writer, direct, cut_because: see `aurora_router.flow.runtime.TrackedConnection`.
    """

    def __init__(
        self,
        cluster: ServingCluster,
        instance: SimulatedInstance,
        address: str,
        port: int | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.cluster = cluster
        self.relay = relay
        self.instance = instance
        self.address = address
        self.port = cluster.port if port is None else port
        self.backend_pid = self.server_pid = cluster.next_pid()
        self.local_port = self.client_port = 32_768 + self.server_pid % 28_000
        if relay is not None and relay.own_pid:
            self.backend_pid = cluster.next_pid()
        if relay is not None and relay.own_port:
            self.client_port = 61_000
        self.in_hot_standby: bool | None = None
        self.result: ConnectResult[SimulatedConnection] | None = None
        self.closed = False
        self.broken = False
        self.waiting = False
        self.heard = False
        self.waiting_since: float | None = None
        self.limits = Limits(1.0, 1.0)
        self.was_writer = self.direct = False
        self.cut_because: str | None = None
        self.unread = False
        self.heard_at: float | None = cluster.now
        instance.connections.add(self)
        self.report_role()

    def report_role(self) -> None:
        """The server reports what it is, as a real one does at start-up, and after a change with its next answer."""
        self.standby = not self.instance.writer
        if self.relay is not None:
            self.in_hot_standby = self.relay.reports
        else:
            self.in_hot_standby = self.standby if self.instance.reports_standby else None

    @property
    def generation(self) -> int:
        """The instance's generation when the connection was made."""
        return self.result.generation if self.result is not None else 0

    @property
    def current(self) -> bool:
        """Whether its process still holds it for good: the instance is what it was when the connection was made."""
        result = self.result
        if result is None or result.instance is None:
            return result is not None
        return result.cluster.view.is_current(result.instance, result.generation)

    def close(self) -> None:
        """Close it."""
        self.closed = True
        self.instance.connections.discard(self)
        if self.result is not None and self.result.instance is not None:
            self.result.cluster.untrack(self.result.instance, self)

    def breaks(self) -> None:
        """The instance's side of it is gone; the process sees that at its next use."""
        self.broken = True
        self.instance.connections.discard(self)
