"""Causal tokens: what a reader must have replayed before it may serve a read.

A token holds one *proof*: something that a session can be asked for, and that is there only after the writes that the
token stands for. `policy.causal` has the argument for each kind.

The text of a token is ASCII without ``;``, ``,``, ``=``, quotes and spaces, so that it fits into a cookie, a header and
a URL. It comes back from a client, so `CausalToken.parse` takes nothing else, and nothing longer than `LONGEST`.
"""

from __future__ import annotations

import base64
import hmac
import re
from dataclasses import field, replace

from aurora_router.errors import CausalTokenRejected
from aurora_router.frozen import frozen
from aurora_router.model.commit_token import WitnessTable

LONGEST = 160
"""Characters of a token's text, its signature included."""
SHORTEST_KEY = 16
"""Bytes of a key that tokens are signed with."""
_SIGNATURE = 16  # bytes of HMAC-SHA256: 128 bits
_NONE = "-"
_LOG = re.compile(r"1l\.([0-9]{1,20})\.([0-9a-f]{1,8})\.([0-9a-f]{1,16})")
_WITNESS = re.compile(
    r"1w\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9]{1,20}|-)\.([0-9]{1,10})\.([0-9]{1,10})"
)
_DURABLE = re.compile(r"1d\.([0-9]{1,20}|-)\.([0-9a-f]{1,16})")
_NO_PROOF = "1n"
_SIGNED = re.compile(r"(.*)\.s([A-Za-z0-9_-]{22})", re.DOTALL)


@frozen
class LogPosition:
    """A position in the log of plain PostgreSQL.

    Attributes:
        system: the system identifier.
        timeline: of the log.
        lsn: where the last record ends, in bytes.
    """

    system: str
    timeline: int
    lsn: int


@frozen
class WitnessRow:
    """A row of the witness table that was committed with, or after, the writes.

    Attributes:
        id: its primary key, a UUID in lower case.
        table: where it is.
    """

    id: str
    table: WitnessTable


@frozen
class DurablePosition:
    """The ``durable_lsn`` that Aurora's writer reported of itself after the writes.

    Attributes:
        system: the system identifier; None where the server does not offer it.
        lsn: the position in Aurora's own log, comparable only with others of the same cluster.
    """

    system: str | None
    lsn: int


@frozen
class NoProof:
    """There were writes, and nothing that would prove them on a reader: the writer serves, until the next token."""


Proof = LogPosition | WitnessRow | DurablePosition | NoProof


@frozen
class CausalToken:
    """What a reader must have replayed: ``str(token)``, or `sign`, and `parse` carry it to another process.

    A token made after another one on the same cluster covers that one as well: only the latest needs to be kept.

    Attributes:
        proof: what is looked for on the reader.
        is_trusted: whether this process made the token, or verified its signature. One that is not is compared with the
            writer before any reader is waited for.
    """

    proof: Proof
    is_trusted: bool = field(default=False, compare=False)

    def __str__(self) -> str:
        proof = self.proof
        if isinstance(proof, LogPosition):
            return f"1l.{proof.system}.{proof.timeline:x}.{proof.lsn:x}"
        if isinstance(proof, WitnessRow):
            return f"1w.{proof.id}.{proof.table.system or _NONE}.{proof.table.database}.{proof.table.table}"
        if isinstance(proof, DurablePosition):
            return f"1d.{proof.system or _NONE}.{proof.lsn:x}"
        return _NO_PROOF

    def sign(self, key: bytes) -> str:
        """Return the token's text with a signature, for what passes through the hands of a client.

        Raises:
            ValueError: the key has fewer than 16 bytes.
        """
        text = str(self)
        return f"{text}.s{_sign(text, key)}"

    @classmethod
    def parse(cls, text: str, *, key: bytes | None = None) -> CausalToken:
        """Read what ``str(token)`` or `sign` wrote.

        Args:
            text: the token's text.
            key: the key that it must have been signed with; None: a signature is not verified, and the token is not
                trusted.

        Raises:
            CausalTokenRejected: it is not a causal token, or its signature is missing or wrong.
            ValueError: the key has fewer than 16 bytes.
        """
        if not isinstance(text, str) or len(text) > LONGEST:
            raise CausalTokenRejected(f"not a causal token: it is longer than {LONGEST} characters, or not text")
        signed = _SIGNED.fullmatch(text)
        plain = text if signed is None else signed[1]
        proof = _read(plain)
        if key is None:
            return cls(proof)
        expected = _sign(plain, key)
        if signed is None or not hmac.compare_digest(signed[2], expected):
            raise CausalTokenRejected("a causal token was not signed with this key, or was changed since")
        return cls(proof, is_trusted=True)

    @staticmethod
    def check_key(key: bytes) -> None:
        """Refuse a key that is too short to sign with.

        Raises:
            ValueError: it has fewer than 16 bytes, or is not of type `bytes`.
        """
        if not isinstance(key, bytes) or len(key) < SHORTEST_KEY:
            raise ValueError(f"a key has at least {SHORTEST_KEY} bytes: take random ones (secrets.token_bytes(32))")

    def trust(self) -> CausalToken:
        """Return the same token, trusted: for what came by a way that only your own processes write to."""
        return replace(self, is_trusted=True)


def _read(text: str) -> Proof:
    if found := _LOG.fullmatch(text):
        return LogPosition(found[1], int(found[2], 16), int(found[3], 16))
    if found := _WITNESS.fullmatch(text):
        return WitnessRow(found[1], WitnessTable(_system(found[2]), int(found[3]), int(found[4])))
    if found := _DURABLE.fullmatch(text):
        return DurablePosition(_system(found[1]), int(found[2], 16))
    if text == _NO_PROOF:
        return NoProof()
    raise CausalTokenRejected(
        "not a causal token: it is not what str(token) writes, or it is of a later version of this library"
    )


def _system(text: str) -> str | None:
    return None if text == _NONE else text


def _sign(text: str, key: bytes) -> str:
    CausalToken.check_key(key)
    digest = hmac.new(key, b"aurora-router causal token\0" + text.encode(), "sha256").digest()
    return base64.urlsafe_b64encode(digest[:_SIGNATURE]).rstrip(b"=").decode()
