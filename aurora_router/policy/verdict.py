"""What an error means for routing: a table from (phase, SQLSTATE, kind of fault) to a verdict.

A fault is what the runtime extracts from an exception: the SQLSTATE where the server gave one, and the kind of
trouble below it (refused, timed out, reset …). The table is the documentation's table, too.

An error that is not known is taken for a trouble of the one instance that it came from: another instance is tried, then
this one again. Final at once is only what is known to be the same everywhere: a wrong password, no such database, a
parameter, a certificate. In between is what will not change by itself, but may be different at another instance: the
others are tried, and if each of them says such a thing, the driver's own error is raised at once.

A dial that failed is a dial that failed: the instance is avoided for a while and probed. It is no evidence about the
connections that are established already, which may well work (a firewall or a load balancer reset one handshake, the
server stops and lets its sessions end); those that do not work are found by their own sockets, or by the monitor.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Container, Mapping


class FaultKind(enum.Enum):
    """What went wrong below SQL, in the operating system's or libpq's terms."""

    REFUSED = "refused"
    TIMEOUT = "timed out"
    RESET = "connection lost"
    UNREACHABLE = "unreachable"
    NAME = "name not resolved"
    REJECTED = "rejected by the server"
    IDENTITY = "certificate of another name"
    CLIENT = "client side (a certificate, a parameter, a local file)"
    PROTOCOL = "not what was required (no TLS, another version or peer), or not PostgreSQL's protocol"
    EXHAUSTED = "client side, no port or memory for a socket"
    DENIED = "client side, no socket may be opened (descriptors, permissions, a local firewall)"
    CREDENTIALS = "client side, the provider of credentials gave none"
    UNKNOWN = "not known"


ON_THIS_SIDE = frozenset({FaultKind.EXHAUSTED, FaultKind.DENIED, FaultKind.CREDENTIALS})
"""Nothing was sent, so that nothing is known of the instance: it is neither silent nor down, and has not answered."""


ENDS_SESSION = frozenset({"FATAL", "PANIC"})
"""Severities, in English, of an error after which a server ends the session, whatever a pooler does with its own."""


@frozen
class Fault:
    """What an exception said, without the exception.

    Attributes:
        kind: the kind of trouble.
        sqlstate: the server's five-character code, when it gave one.
        text: one line for people.
        severity: the error's severity in English, when a session that was established answered with it.
    """

    kind: FaultKind
    sqlstate: str | None = None
    text: str = ""
    severity: str | None = None

    @property
    def ends_session(self) -> bool:
        """Whether the session with the server is over, though the connection may live on: to a pooler."""
        return self.severity in ENDS_SESSION


class Next(enum.Enum):
    """What a connect does after a fault."""

    RAISE = "raise the driver's own error at once"
    ELSEWHERE = "try another instance, then this one again"
    OTHERS = "try the other instances, and raise the driver's own error if none serves"
    AGAIN = "try this one again, and others meanwhile"


@frozen
class Verdict:
    """What a fault means.

    Attributes:
        name: short, stable, for logs.
        down: the instance does not serve as it did: nothing listens there, it starts, it stops, or it is a reader now.
        quarantine: avoid the instance for a while.
        then: what a connect does next.
        meaning: a sentence for people.
    """

    name: str
    down: bool
    quarantine: bool
    then: Next
    meaning: str


_AUTHENTICATION = Verdict(
    "authentication", down=False, quarantine=False, then=Next.RAISE,
    meaning="The server refuses the user or the password; no other instance will think otherwise.",
)  # fmt: skip
_NO_DATABASE = Verdict(
    "no_database", down=False, quarantine=False, then=Next.RAISE, meaning="The database does not exist in this cluster."
)
_FORBIDDEN = Verdict(
    "forbidden", down=False, quarantine=False, then=Next.RAISE, meaning="The user may not do this; ask for the grant."
)
_FULL = Verdict(
    "too_many_connections", down=False, quarantine=True, then=Next.ELSEWHERE,
    meaning="The instance lives and has no connection slot free.",
)  # fmt: skip
_OVERLOADED = Verdict(
    "overloaded", down=False, quarantine=True, then=Next.ELSEWHERE,
    meaning="The instance lives, and has no memory, process or disk space for another connection (now).",
)  # fmt: skip
_STARTING = Verdict(
    "starting_up", down=True, quarantine=True, then=Next.ELSEWHERE,
    meaning="The instance restarts, and accepts no connections yet.",
)  # fmt: skip
RESTARTING = Verdict(
    "restarting", down=True, quarantine=True, then=Next.ELSEWHERE,
    meaning="The instance restarts, and refuses logins for as long as that lasts.",
)  # fmt: skip
_STOPPING = Verdict(
    "shutting_down", down=True, quarantine=True, then=Next.ELSEWHERE, meaning="The instance was shut down or crashed."
)
_READ_ONLY = Verdict(
    "read_only", down=True, quarantine=False, then=Next.ELSEWHERE,
    meaning="The instance is a reader now; connections to it as the writer are stale.",
)  # fmt: skip
_REFUSED = Verdict(
    "refused", down=True, quarantine=True, then=Next.ELSEWHERE, meaning="Nothing listens there: the instance is down."
)
_LOST = Verdict(
    "connection_lost",
    down=True,
    quarantine=True,
    then=Next.ELSEWHERE,
    meaning="The connection broke: reset, or end of file.",
)
_TIMEOUT = Verdict(
    "timeout", down=False, quarantine=True, then=Next.ELSEWHERE,
    meaning="No answer in time: overloaded, hung or unreachable; not known which.",
)  # fmt: skip
_UNREACHABLE = Verdict(
    "unreachable", down=False, quarantine=True, then=Next.ELSEWHERE, meaning="The network knows no way to the instance."
)
_UNRESOLVED = Verdict(
    "name", down=False, quarantine=True, then=Next.ELSEWHERE, meaning="The host name has no address (now)."
)
_REJECTED = Verdict(
    "rejected", down=False, quarantine=True, then=Next.ELSEWHERE,
    meaning="The server refuses the connection for a reason that is not known; another instance may work.",
)  # fmt: skip
_INVALID = Verdict(
    "invalid", down=False, quarantine=False, then=Next.RAISE,
    meaning="The server does not understand what is asked of it; no other instance will.",
)  # fmt: skip
_IDENTITY = Verdict(
    "identity", down=False, quarantine=False, then=Next.RAISE,
    meaning="The server's certificate is for another name than the one that was to be verified.",
)  # fmt: skip
_CLIENT = Verdict(
    "client", down=False, quarantine=False, then=Next.RAISE,
    meaning="The trouble is on this side: a parameter, a certificate, a file.",
)  # fmt: skip
_PROTOCOL = Verdict(
    "protocol", down=False, quarantine=False, then=Next.OTHERS,
    meaning="What answers there is not what is required of it (TLS, a version, a peer), or is not PostgreSQL.",
)  # fmt: skip
_EXHAUSTED = Verdict(
    "exhausted", down=False, quarantine=False, then=Next.ELSEWHERE,
    meaning="This machine has no port or memory for the socket (now); nothing is known of the instance.",
)  # fmt: skip
_LATE_CREDENTIALS = Verdict(
    "credentials", down=False, quarantine=False, then=Next.ELSEWHERE,
    meaning="The provider of credentials has not answered in time, so nothing was dialled.",
)  # fmt: skip
_DENIED = Verdict(
    "denied", down=False, quarantine=False, then=Next.OTHERS,
    meaning="This process may not open that socket; nothing is known of the instance.",
)  # fmt: skip
_UNKNOWN = Verdict(
    "unknown", down=False, quarantine=True, then=Next.ELSEWHERE,
    meaning="The dial failed for a reason that is not known; another instance may work.",
)  # fmt: skip

BY_SQLSTATE: Mapping[str, Verdict] = {
    "08001": _REFUSED,
    "08003": _LOST,
    "08004": _REJECTED,
    "08006": _LOST,
    "25006": _READ_ONLY,
    "28000": _AUTHENTICATION,
    "28P01": _AUTHENTICATION,
    "3D000": _NO_DATABASE,
    "42501": _FORBIDDEN,
    "53300": _FULL,
    "55P02": _INVALID,
    "57P01": _STOPPING,
    "57P02": _STOPPING,
    "57P03": _STARTING,
}
"""SQLSTATE -> verdict (PostgreSQL documentation, appendix A)."""

BY_CLASS: Mapping[str, Verdict] = {
    "0A": _INVALID,
    "22": _INVALID,
    "28": _AUTHENTICATION,
    "3D": _NO_DATABASE,
    "42": _INVALID,
    "53": _OVERLOADED,
}
"""Class of an SQLSTATE -> verdict, where all of the class mean the same. The kind of fault decides the others."""

BY_KIND: Mapping[FaultKind, Verdict] = {
    FaultKind.REFUSED: _REFUSED,
    FaultKind.TIMEOUT: _TIMEOUT,
    FaultKind.RESET: _LOST,
    FaultKind.UNREACHABLE: _UNREACHABLE,
    FaultKind.NAME: _UNRESOLVED,
    FaultKind.REJECTED: _REJECTED,
    FaultKind.IDENTITY: _IDENTITY,
    FaultKind.CLIENT: _CLIENT,
    FaultKind.PROTOCOL: _PROTOCOL,
    FaultKind.EXHAUSTED: _EXHAUSTED,
    FaultKind.DENIED: _DENIED,
    FaultKind.CREDENTIALS: _LATE_CREDENTIALS,
    FaultKind.UNKNOWN: _UNKNOWN,
}
"""Kind of fault -> verdict, where the server gave no SQLSTATE that decides."""


def judge(fault: Fault, temporary: Container[str] = ()) -> Verdict:
    """What a fault of a dial, or of a query on a fresh connection, means.

    Args:
        fault: what was said.
        temporary: SQLSTATEs with which servers of this kind refuse logins for as long as they restart.
    """
    code = fault.sqlstate or ""
    if code in temporary:
        return RESTARTING
    return BY_SQLSTATE.get(code) or BY_CLASS.get(code[:2]) or BY_KIND[fault.kind]


def refuses_login(fault: Fault, temporary: Container[str] = ()) -> bool:
    """Whether the monitor's login is refused, for all that is known: to ask again soon would not help.

    Args: see `judge`.
    """
    verdict = judge(fault, temporary)
    if fault.kind in ON_THIS_SIDE and fault.kind is not FaultKind.CREDENTIALS:
        return False
    return verdict.then is Next.RAISE or verdict.then is Next.OTHERS or verdict is _REJECTED
