"""Whether a server's report of its role, which comes with every start-up, is to be believed.

Theory. PostgreSQL 14 and later report ``in_hot_standby`` when a session starts: the role of the server for nothing. But
the report passes through whatever lies between. A pooler remembers it from another session, a relay may write it
itself, an engine may report a constant: believed, each of them makes a demoted writer the writer. So a report counts
only where two things are proven.

1. *The path is direct*: nothing ended the connection between this process and the server. A query shows it: the backend
   that answers is the one that was reported at start-up (``PQbackendPID`` equals ``pg_backend_pid()``; another one
   proves a pooler), and the server sees the connection come from the same port that it leaves from here
   (``inet_client_port()``; another one proves a relay, a tunnel or a pooler, whatever process id that reports). A path
   is an address and a port, not an instance: addresses are used again by others. So the proof ends with a dial that
   fails there, with every change of the writer, and after `PROOF_SECONDS`. A path that was once seen not to be direct
   never counts as direct again.
2. *This engine reports what it is*: a standby of the cluster has reported ``on`` on a direct path. A constant ``off``
   is indistinguishable from a writer's, so a cluster of which no standby was seen has its servers asked. A report that
   a query contradicts ends the belief in all reports of the cluster, for good.

Everywhere else ``pg_is_in_recovery()`` is asked: one round trip. Local sockets show no port, so they are always asked.
"""

from __future__ import annotations

from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

T = TypeVar("T")
Path = tuple[str | None, int]
"""Where a connection leads: a numeric address (None for a local socket) and a port."""

PROOF_SECONDS = 60.0
"""How long a path counts as direct after the last proof: within a minute, a query more is not noticed."""
MAX_PATHS = 256
"""How many paths of each kind are remembered: more than a cluster has, and a bound where addresses come and go."""
MAX_PID = 2**22
"""Highest process id (PID_MAX_LIMIT of Linux, the highest of the systems that PostgreSQL runs on). What a pooler gives
instead is a random number of 32 bits, so that one that took the place of a server is nearly always seen at once."""


@frozen
class RoleCheck:
    """What a server answered about a session, beside what was known of the session here.

    Attributes:
        standby: the answer: whether the server is in recovery.
        reported: what had been reported of that at start-up, and what after the answer (a promotion is reported with
            the next one); None: nothing.
        same_backend: the backend that answered is the one that was reported at start-up.
        same_port: the server sees the connection come from the port that it leaves from here.
    """

    standby: bool
    reported: tuple[bool | None, bool | None]
    same_backend: bool
    same_port: bool

    @property
    def direct(self) -> bool:
        """Whether nothing lies between that ends the connection."""
        return self.same_backend and self.same_port

    @property
    def wrong(self) -> bool:
        """Whether a report contradicts the answer."""
        return None not in self.reported and self.standby not in self.reported


@frozen
class RoleReports:
    """What is known of a cluster's role reports; replaced as a whole.

    Attributes:
        honest: whether reports on direct paths are what the servers are: None until a standby has reported, False once
            a report was wrong.
        direct: paths that are proven to be direct, and until when (by the runtime's clock, in seconds).
        indirect: paths that are not, and whether a pooler was seen there: the server behind may change at any moment.
    """

    honest: bool | None = None
    direct: Mapping[Path, float] = field(default_factory=lambda: MappingProxyType({}))
    indirect: Mapping[Path, bool] = field(default_factory=lambda: MappingProxyType({}))

    def believes(self, path: Path, pid: int, now: float) -> bool:
        """Whether the report of a new session counts; `pid`: the backend's process id that was reported with it."""
        return self.honest is True and 0 < pid <= MAX_PID and now < self.direct.get(path, now)

    @property
    def lacks_standby(self) -> bool:
        """Whether the report of a standby is all that is missing to do without queries."""
        return self.honest is None and bool(self.direct)

    def is_pooled(self, path: Path) -> bool:
        """Whether a pooler was seen on a path."""
        return self.indirect.get(path, False)

    def record_check(self, path: Path, check: RoleCheck, now: float) -> RoleReports:
        """After a server was asked on a session of that path."""
        if not check.direct:
            pooled = self.is_pooled(path) or not check.same_backend
            if self.indirect.get(path) is pooled and path not in self.direct:
                return self
            return replace(self, direct=_remove(self.direct, {path}), indirect=_limit({**self.indirect, path: pooled}))
        if path in self.indirect:
            return self
        if check.wrong:
            return replace(self, honest=False)
        if None in check.reported:
            return self
        honest = True if check.standby and self.honest is None else self.honest
        return replace(self, honest=honest, direct=_limit({**self.direct, path: now + PROOF_SECONDS}))

    def record_dial_failure(self, addresses: Collection[str]) -> RoleReports:
        """After a dial of some addresses failed: something else may listen there next time."""
        gone = {path for path in self.direct if path[0] in addresses}
        return replace(self, direct=_remove(self.direct, gone)) if gone else self

    def record_writer_change(self) -> RoleReports:
        """After a change of the writer: each path is checked again."""
        return replace(self, direct=MappingProxyType({})) if self.direct else self


def _remove(paths: Mapping[Path, float], gone: Collection[Path]) -> Mapping[Path, float]:
    return MappingProxyType({path: until for path, until in paths.items() if path not in gone})


def _limit(paths: dict[Path, T]) -> Mapping[Path, T]:
    while len(paths) > MAX_PATHS:
        del paths[next(iter(paths))]
    return MappingProxyType(paths)
