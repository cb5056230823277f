"""Faults out of the driver's exceptions: what the text of a failed dial says, in whatever language.

Theory. libpq gives no SQLSTATE for a connection that was refused, and no error number for a socket that failed: only a
text, which may be in three languages. Its own sentences are in the language of this process (``LC_MESSAGES``), if its
catalogue is installed; they end with the system's name of an error (`os.strerror`), which is in that language too; and
a sentence of the server's is in the server's ``lc_messages``. So:

- A sentence of the server's is recognised by its form, ``SEVERITY:  sentence`` (two blanks, which libpq writes in every
  language), and its SQLSTATE by the English words, or those of `languages`. One that is not known is a refusal for an
  unknown reason.
- An error of the system is recognised by the name that it has in this process at that moment, or the English one.
- A sentence of libpq's is recognised by its English words, or by what the catalogue makes of them.
- What is not recognised is `FaultKind.UNKNOWN`, which is tried elsewhere: an unknown text never ends a connect.

What an error of the system means (`_ERRORS`; a kind of fault is judged by `policy.verdict`):

| error | kind | because |
|---|---|---|
| ECONNREFUSED, ENOENT | refused | nothing listens on that port, or on that Unix socket |
| ETIMEDOUT | timed out | no answer to any packet |
| EHOSTUNREACH, ENETUNREACH, EHOSTDOWN, ENETDOWN | unreachable | no packet gets there; so it is if a host died |
| ECONNRESET, ECONNABORTED, ENETRESET, EPIPE | connection lost | the other end, or something in between, ended it |
| EADDRNOTAVAIL, EADDRINUSE | exhausted | all local ports towards that address are in use or in TIME_WAIT |
| ENOBUFS, ENOMEM | exhausted | the kernel has no memory for a socket |
| EMFILE, ENFILE | denied | no file descriptor is left; the same for every instance |
| EACCES, EPERM | denied | a local firewall, or the mode of a Unix socket |
| EAFNOSUPPORT | denied | this machine has no IPv6 |

Where libpq has no descriptor for a socket, it may say nothing at all, and psycopg that there are "no error details". So
it does of other faults; whether a descriptor can be had at that moment decides.

Exhausted and denied are no evidence about the server: nothing was sent. EAGAIN (the queue of a Unix socket is full) is
not listed: it is about that one server, and passes.
"""

from __future__ import annotations

import errno
import locale
import os
import re
from typing import TYPE_CHECKING

import psycopg

from aurora_router import errors
from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router.policy.verdict import Fault, FaultKind

if TYPE_CHECKING:
    from collections.abc import Iterator

# Patterns are compiled (and kept, by `re`) when the first failure is read: most processes have none.
_SEVERITY = r"(?:^|\s)[^\s:]+:  \S|FATAL:|ERROR:|could not fork new process"
"""How a sentence of the server's begins. A postmaster that cannot fork sends its sentence without a severity."""

_SENTENCES = (
    ("28P01", r"password authentication failed"),
    (
        "28000",
        (
            r"pg_hba\.conf|authentication failed|role .* does not exist|not permitted to log in"
            r"|no such user|auth failed|login rejected|SSL required|no credentials for the role"  # PgBouncer, RDS Proxy
        ),
    ),
    # The server's code for the second is 55000, which others mean otherwise; for routing, it is the same.
    (
        "3D000",
        r"database .* does not exist|is not currently accepting connections|no such database",
    ),
    (
        "53300",
        r"too many clients|too many connections|remaining connection slots|no more connections allowed",
    ),
    (
        "53000",
        (
            r"could not fork new process|out of memory|insufficient resources|could not write init file"
            r"|query_wait_timeout|canceling authentication due to timeout"
        ),
    ),
    # What a pooler says whose server does not answer; it sends 08P01 or 58000 with it.
    ("08001", r"server login has been failing|cannot connect to server|server conn crashed"),
    (
        "57P03",
        r"is starting up|not yet accepting|in recovery mode|is shutting down|not accepting connections",
    ),
    ("57P01", r"terminating connection due to (administrator|unexpected postmaster exit)"),
    ("57P02", r"terminating connection because of crash"),
    ("42501", r"permission denied|must be superuser"),
    ("0A000", r"unsupported frontend protocol|unsupported startup parameter|bouncer config error"),
    ("42704", r"unrecognized configuration parameter"),
    (
        "22023",
        (
            r"invalid value for parameter|invalid command-line argument|requires an? (\w+ )?value"
            r"|outside the valid range for parameter"
        ),
    ),
    ("55P02", r"parameter \S+ cannot be changed"),
)
"""SQLSTATE <- the sentences of src/backend (and of PgBouncer and RDS Proxy), the first that fits."""

_WORDS = (
    (FaultKind.IDENTITY, r"does not match host name"),
    (
        FaultKind.CLIENT,
        (
            r"certificate|unknown ca\b|private (SSL )?key|sslmode|sslrootcert|no password supplied|channel binding"
            r"|authentication method|invalid .*value|invalid connection option|service file|definition of service"
            r"|could not match|is too long|require_auth|not compiled in|invalid port number"
            r"|could not parse network address|local user with ID|is not supported on this platform"
            r"|GSSAPI encryption required but|(GSSAPI|SSPI|Kerberos \d|Crypt) authentication not supported"
            r"|SASL authentication mechanisms are supported|OAuth"
            r"|invalid SSL protocol version range|host name must be specified|SSL engine|could not create SSL context"
            r"|could not set (minimum |maximum )?SSL|no protocols available"
        ),
    ),
    (FaultKind.NAME, r"could not translate host name|failed to resolve host"),
    (FaultKind.TIMEOUT, r"timeout expired|timed out"),
    (
        FaultKind.RESET,
        r"closed the connection unexpectedly|EOF detected|unexpected eof|has been closed unexp",
    ),
)
"""What libpq and psycopg say themselves, in English; a file or a certificate before the system's error about it."""

_OTHERWISE = (
    r"does not support SSL|doesn't support GSSAPI|invalid response to (SSL|GSSAPI) negotiation"
    r"|expected authentication request|unsupported protocol|wrong version number"
    r"|only supports protocol version|does not support any SSL protocol version|alert protocol version"
    r"|handshake failure|no shared cipher|ALPN|takes no direct TLS|unencrypted data after|over a non-SSL connection"
    r"|could not initiate GSSAPI|GSSAPI (continuation|name import) error|requirepeer specifies"
    r"|server signature|protocol negotiation message|invalid authentication request"
    r"|unexpected (message|response) from server"
)
"""How libpq says that what answers is not what was required: last, as that may be the second try after a broken one.

Another instance may be what was required, and this one too, after an upgrade; but no retry within seconds changes it.
"""

_STATEMENT_POOLING = "transaction blocks not allowed in statement pooling"
"""How PgBouncer refuses a BEGIN, which it answers with 08P01 as it does nearly everything; then it ends the session."""

_NO_DETAILS = "no error details available"
"""What psycopg says, in every language, where libpq gave up and left no text."""

_CATALOGUE = (
    (FaultKind.IDENTITY, 'server certificate for "%s" does not match host name "%s"'),
    (FaultKind.CLIENT, 'root certificate file "%s" does not exist\n'),
    (FaultKind.CLIENT, 'could not read root certificate file "%s": %s'),
    (FaultKind.CLIENT, 'could not open certificate file "%s": %s'),
    (FaultKind.CLIENT, 'could not load private key file "%s": %s'),
    (FaultKind.CLIENT, "fe_sendauth: no password supplied"),
    (FaultKind.CLIENT, "GSSAPI encryption required but no credential cache"),
    (FaultKind.CLIENT, "GSSAPI encryption required but it is not supported over a local socket"),
    (FaultKind.CLIENT, "channel binding is required, but client does not support it"),
    (FaultKind.CLIENT, "channel binding required, but SSL not in use"),
    (FaultKind.CLIENT, "channel binding required, but server authenticated client without channel binding"),
    (FaultKind.CLIENT, "channel binding required but not supported by server's authentication request"),
    (FaultKind.CLIENT, 'authentication method requirement "%s" failed: %s'),
    (FaultKind.CLIENT, "server did not request an SSL certificate"),
    (FaultKind.CLIENT, "server accepted connection without a valid SSL certificate"),
    (FaultKind.CLIENT, "invalid SSL protocol version range"),
    (FaultKind.CLIENT, "none of the server's SASL authentication mechanisms are supported"),
    (FaultKind.NAME, 'could not translate host name "%s" to address: %s'),
    (FaultKind.TIMEOUT, "timeout expired"),
    (
        FaultKind.RESET,
        (
            "server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally\n"
            "\tbefore or while processing the request."
        ),
    ),
    (FaultKind.RESET, "SSL SYSCALL error: EOF detected"),
    (FaultKind.RESET, "SSL connection has been closed unexpectedly"),
    (FaultKind.PROTOCOL, "server does not support SSL, but SSL was required"),
    (FaultKind.PROTOCOL, "received invalid response to SSL negotiation: %c"),
    (FaultKind.PROTOCOL, "server doesn't support GSSAPI encryption, but it was required"),
    (FaultKind.PROTOCOL, 'requirepeer specifies "%s", but actual peer user name is "%s"'),
    (FaultKind.PROTOCOL, 'server only supports protocol version %d.%d, but "%s" was set to %d.%d'),
    (
        FaultKind.PROTOCOL,
        "This may indicate that the server does not support any SSL protocol version between %s and %s.",
    ),
)
"""Sentences as libpq's catalogue has them; up to PostgreSQL 15 with a newline at the end."""

_ERRORS = (
    (FaultKind.REFUSED, "Connection refused", ("ECONNREFUSED",)),
    (FaultKind.REFUSED, "No such file or directory", ("ENOENT",)),
    (FaultKind.TIMEOUT, "timed out", ("ETIMEDOUT",)),
    (
        FaultKind.UNREACHABLE,
        "No route to host|unreachable|Host is down|Network is down",
        ("EHOSTUNREACH", "ENETUNREACH", "EHOSTDOWN", "ENETDOWN"),
    ),
    (
        FaultKind.RESET,
        "reset by peer|Broken pipe|caused connection abort|dropped connection on reset",
        ("ECONNRESET", "EPIPE", "ECONNABORTED", "ENETRESET"),
    ),
    (
        FaultKind.EXHAUSTED,
        "Can(not|'t) assign requested address|Address already in use|No buffer space|Cannot allocate memory",
        ("EADDRNOTAVAIL", "EADDRINUSE", "ENOBUFS", "ENOMEM"),
    ),
    (
        FaultKind.DENIED,
        "Too many open files|Permission denied|Operation not permitted|Address family not supported",
        ("EMFILE", "ENFILE", "EACCES", "EPERM", "EAFNOSUPPORT"),
    ),
)
"""Kind of fault <- what the system calls the error, in English; and its names in `errno`, where the platform has it."""


def first_line(error: BaseException) -> str:
    """An exception in one line."""
    return " ".join(str(error).split())


def sqlstate_of(error: psycopg.Error) -> str | None:
    """The SQLSTATE of an error; of what a pooler refuses by its own 08P01, the one that says that this is final."""
    return "0A000" if error.sqlstate == "08P01" and _STATEMENT_POOLING in str(error) else error.sqlstate


def fault_of(error: BaseException) -> Fault:
    """What an exception of a dial says, in terms that `policy.verdict` judges."""
    text = str(error)
    line = first_line(error)
    if isinstance(error, errors.CredentialsUnavailable):
        return Fault(FaultKind.CREDENTIALS, error.sqlstate, line)
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return Fault(FaultKind.REJECTED, sqlstate_of(error), line)
    if re.search(_SEVERITY, text):
        sqlstate = next((code for code, sentence in _SENTENCES if re.search(sentence, text)), None)
        return Fault(FaultKind.REJECTED, sqlstate or _find_sqlstate(line), line)
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return Fault(FaultKind.TIMEOUT, None, line)
    if not isinstance(error, (psycopg.OperationalError, psycopg.InternalError)):  # a parameter that is not understood
        return Fault(FaultKind.CLIENT, None, line)
    return Fault(_find_kind(text), None, line)


def _find_sqlstate(line: str) -> str | None:
    """Find the SQLSTATE of a sentence that a server says in another language than English."""
    try:
        with IMPORTING:
            from aurora_router.runtime.languages import SENTENCES  # noqa: PLC0415 - most servers speak English
    except UNREADABLE:
        return None

    for sqlstate, languages in SENTENCES.items():
        if any(re.search(each, line) for patterns in languages.values() for each in patterns):
            return sqlstate
    return None


def _find_kind(text: str) -> FaultKind:
    """Find the kind of a fault in what libpq and the system say, in English or in this process's language."""
    for kind, words in _WORDS:
        if re.search(words, text):
            return kind
    for kind, sentence in _CATALOGUE:
        if _is_translated(sentence, text):
            return kind
    for kind, words_of_system, names in _ERRORS:
        if re.search(words_of_system, text) or any(name in text for name in _names_here(names)):
            return kind
    if re.search(_OTHERWISE, text):
        return FaultKind.PROTOCOL
    return FaultKind.DENIED if _NO_DETAILS in text and not _has_descriptor() else FaultKind.UNKNOWN


def _has_descriptor() -> bool:
    """Whether this process can have another file descriptor now."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno not in {errno.EMFILE, errno.ENFILE}
    return True


def _names_here(names: tuple[str, ...]) -> Iterator[str]:
    """Yield what this process's locale calls errors, also as libpq's text has it if that is not in UTF-8."""
    for each in names:
        if hasattr(errno, each):
            name = os.strerror(getattr(errno, each))
            yield name
            if not name.isascii():
                yield name.encode(locale.getpreferredencoding(do_setlocale=False), "surrogateescape").decode(
                    errors="replace"
                )


def _is_translated(sentence: str, text: str) -> bool:
    """Whether a text is a sentence of libpq's in this process's language."""
    if not hasattr(locale, "dgettext"):  # the platform has no catalogues
        return False
    domain = f"libpq5-{psycopg.pq.version() // 10000}"
    for msgid in (sentence, f"{sentence}\n"):
        translation = locale.dgettext(domain, msgid)
        if translation != msgid:
            parts = re.split(r"%\d*\$?[scd]", translation.strip())
            return re.search(".*?".join(re.escape(each) for each in parts), text) is not None
    return False
