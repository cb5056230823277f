"""What an error means for routing: a table from (phase, SQLSTATE, kind of fault) to a verdict.

A fault is what the runtime extracts from an exception: the SQLSTATE where the server gave one, and the kind of
trouble below it (refused, timed out, reset …). The table is the documentation's table, too.

A dial that failed is a dial that failed: the instance is avoided for a while and probed. It is no evidence about the
connections that are established already, which may well work (a firewall or a load balancer reset one handshake, the
server stops and lets its sessions end); those that do not work are found by their own sockets, or by the monitor.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class FaultKind(enum.Enum):
    """What went wrong below SQL, in the operating system's or libpq's terms."""

    REFUSED = "refused"
    TIMEOUT = "timed out"
    RESET = "connection lost"
    UNREACHABLE = "unreachable"
    NAME = "name not resolved"
    REJECTED = "rejected by the server"
    IDENTITY = "certificate of another name"
    CLIENT = "client side (TLS, a parameter, a local file)"


@dataclass(frozen=True, slots=True)
class Fault:
    """What an exception said, without the exception.

    Attributes:
        kind: the kind of trouble.
        sqlstate: the server's five-character code, when it gave one.
        text: one line for people.
    """

    kind: FaultKind
    sqlstate: str | None = None
    text: str = ""


class Next(enum.Enum):
    """What a connect does after a fault."""

    RAISE = "raise the driver's own error at once"
    ELSEWHERE = "try another instance, then this one again"
    AGAIN = "try this one again, and others meanwhile"


@dataclass(frozen=True, slots=True)
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
_STARTING = Verdict(
    "starting_up", down=True, quarantine=True, then=Next.ELSEWHERE,
    meaning="The instance restarts, and accepts no connections yet.",
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
    "rejected", down=False, quarantine=False, then=Next.RAISE,
    meaning="The server refuses the connection for a reason that is not about routing.",
)  # fmt: skip
_IDENTITY = Verdict(
    "identity", down=False, quarantine=False, then=Next.RAISE,
    meaning="The server's certificate is for another name than the one that was to be verified.",
)  # fmt: skip
_CLIENT = Verdict(
    "client", down=False, quarantine=False, then=Next.RAISE,
    meaning="The trouble is on this side: a parameter, a certificate, a file.",
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
    "57P01": _STOPPING,
    "57P02": _STOPPING,
    "57P03": _STARTING,
}
"""SQLSTATE -> verdict (PostgreSQL documentation, appendix A). What is not here says nothing about the instance."""

BY_KIND: Mapping[FaultKind, Verdict] = {
    FaultKind.REFUSED: _REFUSED,
    FaultKind.TIMEOUT: _TIMEOUT,
    FaultKind.RESET: _LOST,
    FaultKind.UNREACHABLE: _UNREACHABLE,
    FaultKind.NAME: _UNRESOLVED,
    FaultKind.REJECTED: _REJECTED,
    FaultKind.IDENTITY: _IDENTITY,
    FaultKind.CLIENT: _CLIENT,
}
"""Kind of fault -> verdict, where the server gave no SQLSTATE that decides."""


def judge(fault: Fault) -> Verdict:
    """What a fault of a dial, or of a query on a fresh connection, means."""
    if fault.sqlstate is not None and fault.sqlstate in BY_SQLSTATE:
        return BY_SQLSTATE[fault.sqlstate]
    return BY_KIND[fault.kind]
