"""SCRAM-SHA-256, both sides, without I/O (RFC 5802, RFC 7677; PostgreSQL documentation 55.3, "SASL Authentication").

Why here: each cluster has a replication secret of its own. The exchange proves it in both directions: the endpoint lets
no stranger read the log, and a reader that meets a foreign cluster on a reused port finds that the server cannot sign.

The server keeps a verifier, never the secret. Every comparison of a proof or a signature takes constant time. A
password is used as it is if it is printable ASCII, where SASLprep (RFC 4013) changes nothing; others are refused.
Channel binding is not offered, so a client that insists on it is refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from aurora_router_cluster.wire.errors import ScramError

MECHANISM: Final = "SCRAM-SHA-256"
ITERATIONS: Final = 4096
"""PostgreSQL's default; the secrets here are random and long, so that more would only cost time."""


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.digest(key, data, "sha256")


def _xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(text: str, what: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ScramError(f"the SCRAM message's {what} is not base64") from error
    if _encode(data) != text:  # one value has one spelling: stray bits behind the last byte are refused
        raise ScramError(f"the SCRAM message's {what} is not canonical base64")
    return data


def _attributes(text: str, names: str) -> dict[str, str]:
    """Split ``r=…,s=…`` and insist on the attributes `names`, first, in this order."""
    found = [part.partition("=") for part in text.split(",")]
    if [name for name, _, _ in found[: len(names)]] != list(names):
        raise ScramError(f"the SCRAM message should have the attributes {', '.join(names)}, in this order")
    return {name: value for name, _, value in found}


def _salt_password(password: str, salt: bytes, iterations: int) -> bytes:
    if not (password and password.isascii() and password.isprintable()):
        raise ScramError("the password must be printable ASCII and not empty")
    return hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)


@dataclass(frozen=True, slots=True, repr=False)
class ScramVerifier:
    """What a server stores of a password.

    Attributes:
        salt: random bytes.
        iterations: rounds of PBKDF2.
        stored_key: H(ClientKey), 32 bytes.
        server_key: 32 bytes.
    """

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    @classmethod
    def from_password(cls, password: str, *, salt: bytes | None = None, iterations: int = ITERATIONS) -> ScramVerifier:
        """Derive the verifier of `password`, by default with a new random salt.

        Raises:
            ScramError: the password is empty or not printable ASCII.
        """
        salt = secrets.token_bytes(16) if salt is None else salt
        salted = _salt_password(password, salt, iterations)
        stored = hashlib.sha256(_hmac(salted, b"Client Key")).digest()
        return cls(salt, iterations, stored, _hmac(salted, b"Server Key"))

    @classmethod
    def impossible(cls) -> ScramVerifier:
        """A verifier that no password meets, so that an unknown user sees the same exchange as a wrong password."""
        return cls(*(secrets.token_bytes(16), ITERATIONS, secrets.token_bytes(32), secrets.token_bytes(32)))


class ScramServer:
    """One exchange, the server's side: `first` then `final`.

    Args:
        verifier: of the user's password.
        nonce: this side's part of the nonce; random unless a test gives it.
    """

    __slots__ = ("_bare", "_expected", "_first", "_gs2", "_nonce", "_verifier")

    def __init__(self, verifier: ScramVerifier, nonce: str | None = None) -> None:
        self._verifier = verifier
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._gs2 = self._bare = self._first = self._expected = ""

    def first(self, client_first: bytes) -> bytes:
        """Answer the client-first-message with the server-first-message.

        Raises:
            ScramError: the message is malformed, or asks for channel binding or an authorization identity.
        """
        text = _ascii(client_first)
        flag, _, rest = text.partition(",")
        identity, _, self._bare = rest.partition(",")
        if flag not in ("n", "y"):
            raise ScramError("channel binding is not offered here (connect with channel_binding=disable)")
        if identity:
            raise ScramError("an authorization identity is not supported")
        nonce = _attributes(self._bare, "nr")["r"]
        if not nonce or not nonce.isprintable():
            raise ScramError("the client's nonce is empty or not printable")
        self._gs2 = f"{flag},,"
        self._expected = nonce + self._nonce
        v = self._verifier
        self._first = f"r={self._expected},s={_encode(v.salt)},i={v.iterations}"
        return self._first.encode()

    def final(self, client_final: bytes) -> bytes:
        """Check the client's proof and answer with the server-final-message, this side's signature.

        Raises:
            ScramError: the message is malformed, or the proof is wrong.
        """
        without_proof, separator, proof = _ascii(client_final).rpartition(",p=")
        found = _attributes(without_proof, "cr")
        if not separator or _decode(found["c"], "channel binding") != self._gs2.encode():
            raise ScramError("the client's final message has no proof, or another binding than its first one")
        if not hmac.compare_digest(found["r"].encode(), self._expected.encode()):
            raise ScramError("the client answered with another nonce")
        transcript = f"{self._bare},{self._first},{without_proof}".encode()
        if not self._proves(_decode(proof, "proof"), transcript):
            raise ScramError("the client does not know the password")
        return b"v=" + _encode(_hmac(self._verifier.server_key, transcript)).encode()

    def _proves(self, proof: bytes, transcript: bytes) -> bool:
        if len(proof) != 32:
            return False
        client_key = _xor(proof, _hmac(self._verifier.stored_key, transcript))
        return hmac.compare_digest(hashlib.sha256(client_key).digest(), self._verifier.stored_key)


class ScramClient:
    """One exchange, the client's side: `first`, `final`, `verify`.

    Args:
        password: printable ASCII.
        nonce: this side's nonce; random unless a test gives it.
        user: ignored by PostgreSQL, which takes the name of the start-up packet; tests of the RFC's example need it.
    """

    __slots__ = ("_bare", "_nonce", "_password", "_signature")

    def __init__(self, password: str, nonce: str | None = None, user: str = "") -> None:
        self._password = password
        self._nonce = nonce or secrets.token_urlsafe(18)
        self._bare = f"n={user},r={self._nonce}"
        self._signature = b""

    def first(self) -> bytes:
        """The client-first-message."""
        return f"n,,{self._bare}".encode()

    def final(self, server_first: bytes) -> bytes:
        """Answer the server-first-message with the proof.

        Raises:
            ScramError: the message is malformed or its nonce does not extend ours.
        """
        text = _ascii(server_first)
        found = _attributes(text, "rsi")
        nonce, salt = found["r"], _decode(found["s"], "salt")
        if not nonce.startswith(self._nonce) or len(nonce) == len(self._nonce):
            raise ScramError("the server's nonce does not extend ours")
        if not found["i"].isdecimal() or not 1 <= int(found["i"]) <= 10_000_000:
            raise ScramError(f"the server asks for {found['i']!r} iterations")
        salted = _salt_password(self._password, salt, int(found["i"]))
        without_proof = f"c={_encode(b'n,,')},r={nonce}"
        transcript = f"{self._bare},{text},{without_proof}".encode()
        client_key = _hmac(salted, b"Client Key")
        proof = _xor(client_key, _hmac(hashlib.sha256(client_key).digest(), transcript))
        self._signature = _hmac(_hmac(salted, b"Server Key"), transcript)
        return f"{without_proof},p={_encode(proof)}".encode()

    def verify(self, server_final: bytes) -> None:
        """Check the server's signature.

        Raises:
            ScramError: the server does not know the password's verifier: it is not the one that we meant.
        """
        signature = _decode(_attributes(_ascii(server_final), "v")["v"], "signature")
        if not self._signature or not hmac.compare_digest(signature, self._signature):
            raise ScramError("the server could not prove that it knows the secret: it belongs to another cluster")


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise ScramError("a SCRAM message should be ASCII") from error
