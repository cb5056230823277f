"""What the monitor does with connections of PyMySQL's, and its own sessions for that.

A statement's path is not touched. What a connection does is read off two attributes that PyMySQL keeps itself: it sets
`_next_seq_id` to 1 when it has sent a command, and counts on with each packet of the answer, and `_result` is None
until an answer with rows is complete. So a connection waits for the server where both still stand as they were when the
command was sent. A server that stops in the middle of an answer is not noticed by that.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from pymysql.constants.SERVER_STATUS import SERVER_STATUS_IN_TRANS
from pymysql.err import Error, OperationalError

from aurora_router.flow.runtime import Activity, DialFailed, Target
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime import sockets
from aurora_router.runtime.eventloop import slices
from aurora_router.runtime.loop_monitoring import MonitorLoopRuntime
from aurora_router_mysql.faults import fault_of
from aurora_router_mysql.runtimes import MySqlRuntime
from aurora_router_mysql.wire import Session, open_session

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.monitor import ClusterMonitor
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.policy.paths import End
    from aurora_router.policy.role_reports import Path
    from aurora_router.runtime.dns import Names

_SENT = 1
"""Number of the packet that is awaited next, when a command was sent and nothing of the answer has come."""


class MySqlMonitorRuntime(MySqlRuntime[Session], MonitorLoopRuntime[Session]):
    """The monitor's runtime for one cluster of the MySQL family, with the login of the last user."""

    needed_by_failures = (
        *MonitorLoopRuntime.needed_by_failures,
        *("aurora_router.runtime.incident_notes", "aurora_router_mysql.faults"),
    )

    def __init__(self, cluster: Cluster, names: Names) -> None:
        MonitorLoopRuntime.__init__(self, self._open_one, cluster, names)

    async def _open_one(self, target: Target, seconds: float) -> Session:  # noqa: ARG002 - `dial` keeps the time
        monitor = cast("ClusterMonitor[Any] | None", self._cluster.monitor)
        if monitor is None:
            raise OperationalError("this cluster is not monitored any more")
        return await open_session(target, monitor.access.params.template)

    async def ask(self, connection: Session, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query; an answer that is there when the time is over counts."""
        asking = asyncio.ensure_future(connection.query(sql))
        try:
            for glance in slices(seconds, wanted):
                await asyncio.wait({asking}, timeout=glance)
                if asking.done():
                    return asking.result()
        except Error as error:
            raise DialFailed(fault_of(error), error) from error
        finally:
            asking.cancel()
        text = f"topology query: no answer within {seconds:.1f} s"
        raise DialFailed(Fault(FaultKind.TIMEOUT, None, text), OperationalError(text))

    async def discard(self, connection: Session) -> None:
        """Close a session."""
        await connection.close()

    @staticmethod
    def drop(connection: Session) -> None:
        """Close a session at once."""
        connection.drop()

    def address(self, connection: Session) -> str | None:
        """The numeric address at the other end; None for a local socket."""
        return connection.target.addresses[0] if connection.target.addresses else None

    def path(self, connection: Session) -> Path:
        """The numeric address and the port at the other end."""
        return self.address(connection), connection.target.port or 0

    def backend_pid(self, connection: Session) -> int:
        """The number of the server's thread, as reported in its greeting."""
        return connection.thread_id

    def local_port(self, connection: Session) -> int | None:
        """The port at this end."""
        return sockets.local_port(connection.fd)

    def ends(self, connection: Session) -> tuple[End | None, End | None]:
        """Both ends of a session of the monitor's own."""
        return connection.ends()

    def database(self, connection: Any) -> str:  # noqa: ARG002 - a session keeps no database from being dropped
        """The database of a connection, as far as a session there is in the way: none."""
        return ""

    async def offer(self, connection: Session) -> bool:  # noqa: ARG002 - it is none of PyMySQL's
        """Whether a connect takes the session over: never."""
        return False

    # ------------------------------------------------------------ users' connections

    def activity(self, held: Any) -> Activity:
        """What a user's connection does now."""
        if not held.guard.acquire(blocking=False):
            return Activity.CLOSED
        try:
            if held._sock is None:
                return Activity.CLOSED if held._closed else Activity.BROKEN
            if held._next_seq_id == _SENT and held._result is None:
                return Activity.WAITING
            return Activity.OPEN if held.server_status & SERVER_STATUS_IN_TRANS else Activity.IDLE
        finally:
            held.guard.release()

    def target(self, held: Any, name: str) -> Target | None:
        """Where a user's connection leads."""
        known: Target | None = held.target
        if known is None or held._sock is None:
            return None
        return Target(name, known.host, known.port, known.addresses)
