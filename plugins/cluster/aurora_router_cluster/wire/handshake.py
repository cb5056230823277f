"""Start-up and authentication of a connection to the endpoint, the server's side, without I/O.

| phase | message | answer | next |
|---|---|---|---|
| start | SSLRequest, GSSENCRequest | ``N`` | start |
| start | CancelRequest | close | closed |
| start | StartupMessage, no login asked for | welcome | ready |
| start | StartupMessage | AuthenticationSASL | sasl |
| sasl | SASLInitialResponse | SASLContinue | proof |
| proof | SASLResponse, right | SASLFinal, welcome | ready |
| any | anything else | FATAL | closed |
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from aurora_router_cluster.wire import messages as m
from aurora_router_cluster.wire.errors import ErrorFields, ProtocolError, ScramError
from aurora_router_cluster.wire.scram import MECHANISM, ScramServer, ScramVerifier

if TYPE_CHECKING:
    from collections.abc import Mapping


class Phase(Enum):
    """Where the start-up stands."""

    START = auto()
    SASL = auto()
    PROOF = auto()
    READY = auto()
    CLOSED = auto()


@dataclass(frozen=True, slots=True)
class Login:
    """What clients must authenticate with.

    Attributes:
        user: the one user name.
        verifier: of the replication secret.
    """

    user: str
    verifier: ScramVerifier


_PARAMETERS: Final = {
    "server_encoding": "UTF8",
    "client_encoding": "UTF8",
    "integer_datetimes": "on",
    "standard_conforming_strings": "on",
    "DateStyle": "ISO, MDY",
    "TimeZone": "UTC",
}
_TRUE: Final = frozenset({"true", "on", "yes", "1"})


class ServerHandshake:
    """One connection's start-up. Feed it messages until `phase` is READY or CLOSED.

    Args:
        login: what clients must authenticate with; None accepts any client (a Unix socket in a closed directory).
        server_version: shown to the client.
        session: number that the client may show as the backend's process id.

    Attributes:
        phase: where it stands.
        parameters: of the start-up packet, once it has come.
    """

    __slots__ = ("_login", "_scram", "_session", "_version", "parameters", "phase")

    def __init__(self, login: Login | None, server_version: str, session: int) -> None:
        self._login = login
        self._version = server_version
        self._session = session
        self._scram = ScramServer(ScramVerifier.impossible() if login is None else login.verifier)
        self.phase = Phase.START
        self.parameters: Mapping[str, str] = {}

    def receive(self, message: m.Message) -> bytes:
        """Take one message and return what to send."""
        try:
            if self.phase is Phase.START:
                return self._start(message)
            return self._password(message)
        except ProtocolError as error:
            return self._refuse("08P01", str(error))
        except ScramError as error:
            user = self.parameters.get("user", "")
            return self._refuse("28P01", f'replication authentication failed for user "{user}"', str(error))

    def _start(self, message: m.Message) -> bytes:
        code, parameters = m.parse_startup(message.body)
        if code in (m.SSL_REQUEST, m.GSSENC_REQUEST):
            return b"N"
        if code == m.CANCEL_REQUEST:
            self.phase = Phase.CLOSED
            return b""
        if code >> 16 != 3:
            raise ProtocolError(f"protocol {code >> 16}.{code & 0xFFFF} is not supported, 3.0 is")
        self.parameters = parameters
        if parameters.get("replication", "").lower() not in _TRUE:
            hint = "connect with replication=true (a standby, pg_receivewal); for SQL connect to an instance"
            return self._refuse("0A000", "this port serves the log, not SQL", hint=hint)
        options = [name for name in parameters if name.startswith("_pq_.")]
        negotiated = m.negotiate_protocol_version(options) if code > m.PROTOCOL_3_0 or options else b""
        return negotiated + self._authenticate(parameters.get("user", ""))

    def _authenticate(self, user: str) -> bytes:
        if self._login is None:
            return self._welcome()
        if user != self._login.user:
            self._scram = ScramServer(ScramVerifier.impossible())
        self.phase = Phase.SASL
        return m.authentication_sasl([MECHANISM])

    def _password(self, message: m.Message) -> bytes:
        if message.kind != b"p":
            raise ProtocolError(f"expected a password message, got one of kind {message.kind!r}")
        return self._sasl(message.body) if self.phase is Phase.SASL else self._proof(message.body)

    def _sasl(self, body: bytes) -> bytes:
        mechanism, _, rest = body.partition(b"\0")
        if mechanism != MECHANISM.encode():
            raise ScramError(f"the client chose {mechanism.decode(errors='replace')}, offered is {MECHANISM}")
        if len(rest) < 4 or struct.unpack_from(">I", rest)[0] != len(rest) - 4:
            raise ProtocolError("the SASL initial response is cut short")
        answer = self._scram.first(rest[4:])
        self.phase = Phase.PROOF
        return m.authentication_sasl_continue(answer)

    def _proof(self, body: bytes) -> bytes:
        return m.authentication_sasl_final(self._scram.final(body)) + self._welcome()

    def _welcome(self) -> bytes:
        self.phase = Phase.READY
        parameters = {"server_version": self._version, **_PARAMETERS}
        statuses = b"".join(m.parameter_status(name, value) for name, value in parameters.items())
        key = m.backend_key_data(self._session & 0x7FFFFFFF, 0)
        return m.AUTHENTICATION_OK + statuses + key + m.READY_FOR_QUERY

    def _refuse(self, sqlstate: str, text: str, detail: str = "", hint: str = "") -> bytes:
        self.phase = Phase.CLOSED
        return m.error_response(ErrorFields("FATAL", sqlstate, text, detail, hint))
