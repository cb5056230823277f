"""Why a connection could not be made, in one word: read from the SQLSTATE, or from the text of libpq and OpenSSL."""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurora_router.doctor.facts import Failure


class Reason(enum.Enum):
    """Why a connection could not be made."""

    NO_ROOTS = "no file with trusted roots"
    WEAK_MODE = "sslrootcert=system needs verify-full"
    EXPIRED = "the certificate has expired"
    NAME = "the certificate is for other names"
    UNTRUSTED = "no trusted root has signed the certificate"
    NO_TLS = "the server has no TLS"
    NEEDS_TLS = "the server accepts no connection without TLS"
    PASSWORD = "the password is rejected"  # noqa: S105 - a sentence
    NO_PASSWORD = "no password is given"  # noqa: S105
    NOT_PERMITTED = "the server does not permit it"
    DATABASE = "there is no such database"
    FULL = "no connection slot is left"
    CREDENTIALS = "the provider gives no credentials"
    STARTING = "the server starts or stops"
    OTHER = "another reason"


_TEXTS = (
    (Reason.NO_ROOTS, r"root certificate file .* does not exist|could not read root certificate file"),
    (Reason.WEAK_MODE, r"may not be used with sslrootcert=system"),
    (Reason.EXPIRED, r"certificate (has )?expired|certificate verify failed.*expired"),
    (Reason.NAME, r"does not match host name|could not get server's host name|does not match IP address"),
    (Reason.UNTRUSTED, r"certificate verify failed|self[- ]signed certificate|unable to get local issuer"),
    (Reason.NO_TLS, r"server does not support SSL"),
    (Reason.NEEDS_TLS, r"pg_hba.conf .*(no encryption|SSL off)"),
    (Reason.NO_PASSWORD, r"no password supplied"),
    (Reason.PASSWORD, r"(password|PAM|LDAP|RADIUS) authentication failed"),
    (
        Reason.NOT_PERMITTED,
        r"no pg_hba.conf entry|pg_hba.conf rejects|is not permitted to log in|permission denied for d",
    ),
    (Reason.DATABASE, r"database .* does not exist"),
    (Reason.FULL, r"too many (clients|connections)|remaining connection slots|no more connections allowed"),
)
_STATES = {
    "28P01": Reason.PASSWORD, "3D000": Reason.DATABASE, "53300": Reason.FULL, "57P03": Reason.STARTING,
}  # fmt: skip


def reason_of(failure: Failure) -> Reason:
    """Return why a connection could not be made."""
    for reason, text in _TEXTS:
        if re.search(text, failure.text, re.IGNORECASE | re.DOTALL):
            return reason
    return _STATES.get(failure.sqlstate or "", Reason.OTHER)
