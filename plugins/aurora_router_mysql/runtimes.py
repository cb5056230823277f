"""The blocking runtime of PyMySQL's connections."""

# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportArgumentType=false
# The stubs that pyright brings with it are of an older PyMySQL.

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from pymysql.err import Error, OperationalError

from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime.blocking import ThreadRuntime
from aurora_router.runtime.real_runtime import RealRuntime
from aurora_router_mysql.dial import Dial, new_connect_error
from aurora_router_mysql.errors import FAMILY
from aurora_router_mysql.faults import fault_of
from aurora_router_mysql.sources import QUERIES

if TYPE_CHECKING:
    from aurora_router.flow.runtime import Rows, Wanted
    from aurora_router.policy.role_reports import Path


def rewrite(cause: BaseException, text: str) -> BaseException:
    """Return an error of PyMySQL's like `cause`, with another text; another error as it is."""
    if not isinstance(cause, Error):
        return cause
    made: BaseException = type(cause)(cause.args[0] if cause.args else 0, text, sqlstate=cause.sqlstate)
    made.original_exception = getattr(cause, "original_exception", None)  # type: ignore[attr-defined]  # PyMySQL's own
    return made


class MySqlRuntime(RealRuntime[ConnT]):
    """The part of a `Runtime` that all drivers of the MySQL family share."""

    __slots__ = ()

    errors = FAMILY
    """What a procedure raises."""
    queries = QUERIES
    """What a procedure asks servers."""
    driver_errors = Error
    fault_of = staticmethod(fault_of)
    rewrite = staticmethod(rewrite)

    @staticmethod
    def new_dial_timeout(name: str, seconds: float) -> DialFailed:
        """A dial took longer than it may."""
        text = f"{name} was not connected within {seconds:.1f} s"
        return DialFailed(Fault(FaultKind.TIMEOUT, None, text), OperationalError(2003, text))

    def in_hot_standby(self, connection: ConnT) -> bool | None:  # noqa: ARG002 - the protocol has no such report
        """What the server reported of its role when the connection began: nothing, so that it is asked."""
        return None

    def may_wait_for_snapshot(self, connection: ConnT) -> bool:  # noqa: ARG002 - of PostgreSQL alone
        """Whether a query may wait for others' transactions: never."""
        return False


class BlockingRuntime(MySqlRuntime[Dial], ThreadRuntime[Dial]):
    """Threads, the real clock, blocking sockets; for connections of PyMySQL's."""

    __slots__ = ()

    async def ask(self, connection: Dial, sql: str, seconds: float, wanted: Wanted | None = None) -> Rows:
        """One service query."""
        try:
            return connection.ask(sql, seconds, wanted)
        except OSError as error:
            raise DialFailed(fault_of(error), new_connect_error(connection.target, error)) from error
        except Error as error:
            raise DialFailed(fault_of(error), error) from error

    def address(self, connection: Dial) -> str | None:
        """The numeric address at the other end; None for a local socket."""
        return connection.target.addresses[0] if connection.target.addresses else None

    def path(self, connection: Dial) -> Path:
        """The numeric address and the port at the other end."""
        return self.address(connection), connection.target.port or 0

    def backend_pid(self, connection: Dial) -> int:
        """The number of the server's thread, as reported in its greeting."""
        return int(connection.connection.thread_id())

    def local_port(self, connection: Dial) -> int | None:
        """The port at this end."""
        sock: Any = connection.connection._sock
        if sock is None or sock.family == socket.AF_UNIX:
            return None
        return int(sock.getsockname()[1])
