"""Authentication of a server and its caller: both sides prove that they know the cluster's secret, and neither says it.

The server sends a nonce, the caller answers with a nonce of its own and an HMAC-SHA-256 over both under the secret, the
server answers with another HMAC over the same (RFC 2104). The side keeps the two from being each other's, the identity
keeps a server from being taken for another one. What follows is neither encrypted nor signed: between hosts it belongs
in a private network or a tunnel.
"""

from __future__ import annotations

import hmac
import secrets
from typing import NamedTuple

NONCE = 32
"""Bytes of a nonce, and of a proof."""

CALLER, SERVER = b"caller", b"server"
"""The sides."""


class Identity(NamedTuple):
    """Which server a caller means.

    Attributes:
        kind: what it serves, e.g. ``node``.
        number: which of that kind.
    """

    kind: str
    number: int = 0


def nonce() -> bytes:
    """Fresh random bytes."""
    return secrets.token_bytes(NONCE)


def prove(secret: str, side: bytes, server: Identity, theirs: bytes, ours: bytes) -> bytes:
    """The proof of one side.

    Args:
        secret: the cluster's.
        side: the one that proves: `CALLER` or `SERVER`.
        server: the one that is spoken to.
        theirs: nonce of the server.
        ours: nonce of the caller.
    """
    words = side, server.kind.encode(), str(server.number).encode(), theirs, ours
    return hmac.digest(secret.encode(), b"\0".join(words), "sha256")


def holds(secret: str, side: bytes, server: Identity, theirs: bytes, ours: bytes, claim: bytes) -> bool:
    """Whether `claim` is that proof."""
    return hmac.compare_digest(prove(secret, side, server, theirs, ours), claim)
