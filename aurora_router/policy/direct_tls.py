"""Which paths are dialled with TLS from the first byte on (``aurora_tls_direct``), which saves a round trip.

Theory. PostgreSQL 17 and later take a TLS handshake at once (``sslnegotiation=direct``); an earlier server, and much
that stands before a server, takes its first bytes for a malformed message and closes the connection. So it is tried
only where an earlier session on the same path was encrypted and reported such a version, which it does for nothing.
What is refused all the same is dialled as usual at once, and so is that path from then on, until a session there
reports another version. A dial that was silent proves nothing; the path is dialled as usual once, and learned again.

Invariants (property tests): a path is never dialled directly before a session on it has reported PostgreSQL 17 and TLS,
nor between a refusal and another version.
"""

from __future__ import annotations

from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.bounds import forget_oldest
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Mapping

Path = tuple[str | None, int]
"""What is dialled: an address, or a host name that libpq resolves, and a port."""

FIRST_VERSION = 170000
"""The first version that takes TLS at once, of the server and of libpq, as libpq counts them."""
MAY_BE_REFUSAL = frozenset({FaultKind.RESET, FaultKind.PROTOCOL, FaultKind.UNKNOWN})
"""What a dial may say where TLS was refused. It may be something else: the usual dial that follows shows that."""


@frozen
class DirectTls:
    """What is known of paths; each method returns the next value.

    Attributes:
        versions: of the servers of encrypted sessions, by path.
        refused: the version that was known when a direct handshake was refused, by path.
    """

    versions: Mapping[Path, int] = field(default_factory=lambda: MappingProxyType({}))
    refused: Mapping[Path, int] = field(default_factory=lambda: MappingProxyType({}))

    def is_promising(self, path: Path) -> bool:
        """Whether a path is to be dialled directly."""
        version = self.versions.get(path, 0)
        return version >= FIRST_VERSION and self.refused.get(path) != version

    def record_session(self, path: Path, version: int, *, encrypted: bool) -> DirectTls:
        """A session was opened: the server's version, as libpq counts it, and whether there is TLS."""
        if not encrypted:
            return self.record_silence(path)
        if self.versions.get(path) == version:
            return self
        return replace(self, versions=_with(self.versions, path, version))

    def record_refusal(self, path: Path) -> DirectTls:
        """A direct handshake was refused, and the usual dial succeeded."""
        return replace(self, refused=_with(self.refused, path, self.versions.get(path, 0)))

    def record_silence(self, path: Path) -> DirectTls:
        """A direct dial got no answer in time, or a session there has no TLS: nothing is known of the path."""
        if path not in self.versions:
            return self
        return replace(self, versions=MappingProxyType({at: each for at, each in self.versions.items() if at != path}))


def _with(table: Mapping[Path, int], path: Path, version: int) -> Mapping[Path, int]:
    entries = {**table, path: version}
    forget_oldest(entries)
    return MappingProxyType(entries)
