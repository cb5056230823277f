"""What goes wrong on a replication connection.

WireError
 ├── ProtocolError           the peer broke the protocol, or answered something impossible
 ├── ServerError             the peer reported an error of its own (SQLSTATE and message are kept)
 │    └── AuthenticationError
 ├── ScramError              a SCRAM exchange failed: wrong secret, or a peer that cannot prove that it knows it
 ├── ConnectionLostError     the connection ended without a word (also a `ConnectionError`)
 └── LogRemovedError         a log position was asked for that is no longer, or not yet, stored
"""

from __future__ import annotations

from dataclasses import dataclass


class WireError(Exception):
    """Root of all errors of the replication protocol's two ends."""


class ProtocolError(WireError):
    """The peer sent something that the protocol does not allow here."""


class ScramError(WireError):
    """The SCRAM exchange failed; nothing of the secret is part of the message."""


class ConnectionLostError(WireError, ConnectionError):
    """The connection ended, or could not be made."""


class LogRemovedError(WireError):
    """The log at a position is not stored: removed by garbage collection, or never written."""


@dataclass(frozen=True, slots=True)
class ErrorFields:
    """The fields of an ErrorResponse or NoticeResponse that matter (protocol documentation, section 55.8).

    Attributes:
        severity: not localized, e.g. ``ERROR`` or ``FATAL``.
        sqlstate: five characters.
        message: primary message.
        detail: optional detail, empty if none.
        hint: what to do about it, empty if none.
    """

    severity: str
    sqlstate: str
    message: str
    detail: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """One line, as psql would show it."""
        parts = [f"{self.severity}: {self.message} (SQLSTATE {self.sqlstate})"]
        parts += [f"{name}: {text}" for name, text in (("DETAIL", self.detail), ("HINT", self.hint)) if text]
        return "; ".join(parts)


class ServerError(WireError):
    """An ErrorResponse of the peer.

    Attributes:
        fields: severity, SQLSTATE, message, detail and hint.
    """

    def __init__(self, fields: ErrorFields) -> None:
        super().__init__(str(fields))
        self.fields = fields

    @property
    def sqlstate(self) -> str:
        """The five-character SQLSTATE."""
        return self.fields.sqlstate


class AuthenticationError(ServerError):
    """The peer refused the authentication (SQLSTATE class 28)."""
