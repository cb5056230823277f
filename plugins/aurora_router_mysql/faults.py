"""Faults out of PyMySQL's exceptions, in terms that `policy.verdict` judges.

A server's error has a number; MySQL's SQLSTATEs say less (most are ``HY000``). So the number decides, and `SQLSTATES`
gives the SQLSTATE by which the verdicts know that fault: what PostgreSQL and the SQL standard call it.

A client's error has a number of 2000 and more, and PyMySQL keeps the operating system's error that caused it.

| number | what it says | judged as |
|---|---|---|
| 2002, 2003 | no connection to the socket, or the host | by the system's error: refused, timed out, a name … |
| 2006, 2013 | gone away, lost connection | connection lost |
| 2012, 2026 | in the handshake, TLS | a certificate, or not what was required |
| 1040, 1203, 1226 | too many connections, of all or of this user | too many connections |
| 1045, 1044, 1698, 1130 | access denied, host not permitted | authentication |
| 1053, 1079, 1077 | shutdown in progress | shutting down |
| 1205, 1213 | lock wait timeout, deadlock | of no meaning for routing; the transaction may be retried |
| 1290, 1836, 1792 | ``--read-only``, read-only mode, read-only transaction | read only |
"""

from __future__ import annotations

import errno
import socket
import ssl
from typing import TYPE_CHECKING

from pymysql.constants import CR, ER
from pymysql.err import Error

from aurora_router.policy.verdict import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_ONLY = "25006"
OPTION_PREVENTS_STATEMENT, READ_ONLY_MODE, READ_ONLY_TRANSACTION = 1290, 1836, 1792
READ_ONLY_ERRORS = frozenset({OPTION_PREVENTS_STATEMENT, READ_ONLY_MODE, READ_ONLY_TRANSACTION})
"""The errors of a write that is refused; 1836 (ER_READ_ONLY_MODE) is MySQL's, and of Aurora's readers."""
KILLED, INACTIVE = 1927, 4031
ENDED_BY_TIMEOUT = frozenset({KILLED, INACTIVE})
"""A session that the server ended by itself, or was asked to end: the instance is fine."""
_LOST = frozenset({CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, 2055, KILLED, INACTIVE})
_SLOW = frozenset({3024, 1969})

SQLSTATES: Mapping[int, str] = {
    **dict.fromkeys((ER.ACCESS_DENIED_ERROR, ER.DBACCESS_DENIED_ERROR, 1698, ER.HOST_NOT_PRIVILEGED, 3118), "28000"),
    ER.BAD_DB_ERROR: "3D000",
    **dict.fromkeys((ER.CON_COUNT_ERROR, ER.TOO_MANY_USER_CONNECTIONS, ER.USER_LIMIT_REACHED), "53300"),
    **dict.fromkeys((ER.OUT_OF_RESOURCES, ER.OUTOFMEMORY, ER.CANT_CREATE_THREAD, ER.HOST_IS_BLOCKED), "53000"),
    **dict.fromkeys((ER.SERVER_SHUTDOWN, ER.NORMAL_SHUTDOWN, ER.SHUTDOWN_COMPLETE), "57P01"),
    **dict.fromkeys(READ_ONLY_ERRORS, READ_ONLY),
    **dict.fromkeys((ER.TABLEACCESS_DENIED_ERROR, ER.COLUMNACCESS_DENIED_ERROR, 1227, 1370), "42501"),
    ER.UNKNOWN_SYSTEM_VARIABLE: "42704",
    **dict.fromkeys((1109, ER.NO_SUCH_TABLE), "42P01"),
    **dict.fromkeys(_SLOW, "57014"),
    ER.LOCK_WAIT_TIMEOUT: "55P03",
    ER.LOCK_DEADLOCK: "40P01",
}
"""MySQL's number -> the SQLSTATE by which the verdicts know that fault; others are refusals for an unknown reason."""

_SYSTEM: Mapping[int, FaultKind] = {
    **dict.fromkeys((errno.ECONNREFUSED, errno.ENOENT), FaultKind.REFUSED),
    errno.ETIMEDOUT: FaultKind.TIMEOUT,
    **dict.fromkeys((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN), FaultKind.UNREACHABLE),
    **dict.fromkeys((errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENETRESET), FaultKind.RESET),
    **dict.fromkeys((errno.EADDRNOTAVAIL, errno.EADDRINUSE, errno.ENOBUFS, errno.ENOMEM), FaultKind.EXHAUSTED),
    **dict.fromkeys((errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT), FaultKind.DENIED),
}
"""The system's error -> kind of fault; `aurora_router.runtime.faults` has the reasons."""


_MISMATCH = frozenset({62, 63, 64})
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_EMAIL_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


def number_of(error: BaseException) -> int | None:
    """Return the number of an error of PyMySQL's; None: it has none."""
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) and isinstance(error, Error) else None


def fault_of(error: BaseException) -> Fault:
    """What an exception of a dial, or of a service query, says."""
    line = " ".join(str(error.args[1] if number_of(error) is not None and len(error.args) > 1 else error).split())
    number = number_of(error)
    if (number is not None and 1000 <= number < 2000) or number in SQLSTATES or (number or 0) >= 3000:
        if number in _LOST:
            return Fault(FaultKind.RESET, None, line)
        return Fault(FaultKind.REJECTED, SQLSTATES.get(number or 0), line)
    cause = getattr(error, "original_exception", None) or error
    if isinstance(cause, OSError):
        return Fault(_kind_of(cause), None, line)
    if number in _LOST:
        return Fault(FaultKind.TIMEOUT if "timed out" in line else FaultKind.RESET, None, line)
    if number == CR.CR_SSL_CONNECTION_ERROR:
        return Fault(FaultKind.PROTOCOL, None, line)
    if number in {CR.CR_AUTH_PLUGIN_CANNOT_LOAD, CR.CR_AUTH_PLUGIN_ERR} or not isinstance(error, Error):
        return Fault(FaultKind.CLIENT, None, line)
    return Fault(FaultKind.UNKNOWN, None, line)


def _kind_of(error: OSError) -> FaultKind:
    """Find the kind of a fault in an error of the operating system, or of TLS."""
    if isinstance(error, ssl.SSLCertVerificationError):
        is_name = getattr(error, "verify_code", None) in _MISMATCH
        return FaultKind.IDENTITY if is_name else FaultKind.CLIENT
    if isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return FaultKind.RESET
    if isinstance(error, TimeoutError):
        return FaultKind.TIMEOUT
    if isinstance(error, ssl.SSLError):
        return FaultKind.PROTOCOL
    if isinstance(error, socket.gaierror):
        return FaultKind.NAME
    return _SYSTEM.get(error.errno or 0, FaultKind.UNKNOWN)
