"""Authentication of a node and its caller: both sides prove that they know the cluster's secret, and neither says it.

The node sends a nonce, the caller answers with a nonce of its own and an HMAC-SHA-256 over both under the secret, the
node answers with another HMAC over the same (RFC 2104). A label keeps the two from being each other's, the node's
number keeps a node from being taken for another one. What follows is neither encrypted nor signed: between hosts it
belongs in a private network or a tunnel.
"""

from __future__ import annotations

import hmac
import secrets

NONCE = 32
"""Bytes of a nonce, and of a proof."""

CALLER, NODE = b"aurora-node-caller", b"aurora-node-server"


def nonce() -> bytes:
    """Fresh random bytes."""
    return secrets.token_bytes(NONCE)


def prove(secret: str, label: bytes, node: int, theirs: bytes, ours: bytes) -> bytes:
    """The proof of one side.

    Args:
        secret: the cluster's.
        label: the side that proves: `CALLER` or `NODE`.
        node: number of the node that is spoken to.
        theirs: nonce of the node.
        ours: nonce of the caller.
    """
    return hmac.digest(secret.encode(), b"\0".join((label, str(node).encode(), theirs, ours)), "sha256")


def holds(secret: str, label: bytes, node: int, theirs: bytes, ours: bytes, claim: bytes) -> bool:
    """Whether `claim` is that proof."""
    return hmac.compare_digest(prove(secret, label, node, theirs, ours), claim)
