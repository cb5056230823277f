"""Everything that this library raises of its own.

::

    Exception
    └── AuroraRouterError                       the root: catches all that is ours, and nothing else
        ├── InvalidOption (ValueError)          an option is unknown, malformed or contradicts another
        ├── MalformedHost (ValueError)          a host name that no name server could know
        ├── CausalTokenRejected (ValueError)    a causal token is malformed, forged, or of another cluster
        ├── ExtensionFailed (RuntimeError)      a function that was given to this library raised, or returned nonsense
        ├── CredentialsUnavailable 28000 (OperationalError)  the provider of credentials gave none
        ├── TransactionEnded (ProgrammingError) a work that was to run in a transaction ended it, or let it fail
        └── RoutingError (OperationalError)     the driver's: code that retries on that class still works
            ├── NoInstanceAvailable 08001       no instance fits the request, or none that fits could be reached
            │   └── InstanceTimeout 08001       (also a psycopg.errors.ConnectionTimeout) every dial timed out
            ├── NameNotResolved 08001           a host name has no address
            ├── CommitOutcomeUnknown 08007      COMMIT got no answer, and its outcome is not known
            ├── NameNotVerifiable               sslmode=verify-full would verify a name that only DNS vouches for
            └── FailoverError 08006             what failed because the cluster changed, or is changing
                ├── WriterUnavailable 08001     (also a NoInstanceAvailable) no writer confirmed itself in time
                │   └── WriterTimeout 08001     (also an InstanceTimeout) every dial timed out
                └── StaleConnection 08003       a pool's connection whose instance is not what it was

In parentheses: the built-in error, or the error of the driver's DB-API, that it is as well. The classes of this module
know no driver; a driver family derives its own from them (`aurora_router.psycopg_errors`), and those are what a connect
raises and what ``aurora_router`` has under their names.

The five characters are the SQLSTATE (PostgreSQL documentation, appendix A), as the attribute ``sqlstate``.

Errors of the server and of libpq stay what they are: a wrong password is psycopg's `OperationalError`, a duplicate
key its `UniqueViolation`. What a `RoutingError` adds is what was tried (`attempts`) and what was known (`view`).
"""

from __future__ import annotations

import re
import sys
from itertools import groupby
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aurora_router.model.commit_token import CommitToken
    from aurora_router.model.event import Event
    from aurora_router.model.view import View


_LISTED = 12
"""How many (groups of) attempts a message lists; the attribute has all of them."""


def redact(value: object) -> str:
    """Return a given value as a message may show it; what may hold a password is not shown.

    A URL or a conninfo ends up in the place of a host name, a port or an option when arguments are mixed up, and a
    password with an unescaped ``@`` or ``/`` is read as a part of the host or as the port.
    """
    text = str(value)
    if "://" in text:
        return "(a URL, not shown: it may hold a password)"
    if re.search(r"(?i)(\b|_)(pass\w*|user|host|dbname)\s*=", text):
        return "(a conninfo, not shown: it may hold a password)"
    if "@" in text[1:]:
        return repr("***@" + text.rpartition("@")[2])
    return repr(value)


class AuroraRouterError(Exception):
    """The root of all errors that this library adds."""


class InvalidOption(AuroraRouterError, ValueError):
    """An option is unknown, malformed, or contradicts another one."""


class MalformedHost(AuroraRouterError, ValueError):
    """A host name that no name server could know."""


class CausalTokenRejected(AuroraRouterError, ValueError):
    """A causal token is malformed or forged, of another cluster, or of a position that the writer has not reached.

    Drop the token. The cluster is well; a retry with the same token fails in the same way.
    """


class CredentialsUnavailable(AuroraRouterError):
    """The provider of credentials gave none; its own error is the cause."""

    sqlstate: str | None = "28000"


class ExtensionFailed(AuroraRouterError, RuntimeError):
    """A function that was given to this library raised (its error is the cause), or returned what it may not.

    That is a topology source of another distribution, for example; a retry would fail in the same way.
    """


@frozen
class Attempt:
    """One thing that was tried.

    Attributes:
        target: the instance or host, as a person would name it.
        outcome: what came of it.
        seconds: how long it took, in seconds.
    """

    target: str
    outcome: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.target}: {self.outcome} ({self.seconds:.3f} s)"


def _group(attempts: Sequence[Attempt]) -> Iterator[tuple[Attempt, str]]:
    """Attempts that came to the same one after the other, as one with a count."""
    for _, same in groupby(attempts, key=lambda attempt: (attempt.target, attempt.outcome)):
        group = list(same)
        yield group[-1], f", {len(group)} times" if len(group) > 1 else ""


class RoutingError(AuroraRouterError):
    """A connection could not be put on the right instance.

    Attributes:
        attempts: what was tried, in order.
        view: the cluster as it was known when the error was raised; None when nothing was known.
        trail: the last events of the cluster, oldest first, each with the monotonic clock's time in seconds.
    """

    sqlstate: str | None = None

    def __init__(
        self,
        message: str,
        *,
        attempts: Sequence[Attempt] = (),
        view: View | None = None,
        trail: Sequence[tuple[float, Event]] = (),
    ) -> None:
        listed = [f"- {attempt}{times}" for attempt, times in _group(attempts)]
        if len(listed) > _LISTED:
            listed = [f"- ({len(listed) - _LISTED} earlier ones)", *listed[-_LISTED:]]
        lines = [message, *listed]
        super().__init__("\n".join(lines))
        self.attempts = tuple(attempts)
        self.view = view
        self.trail = tuple(trail)


class NoInstanceAvailable(RoutingError):
    """No instance of the cluster fits the request, or none that fits could be reached in time."""

    sqlstate: str | None = "08001"


class NameNotResolved(RoutingError):
    """A host name has no address, or no name server answered."""

    sqlstate: str | None = "08001"


class FailoverError(RoutingError):
    """Something failed because the cluster changed, or is changing.

    Attributes:
        before: the cluster as it was known when the work began; `view` is what is known now.
    """

    sqlstate: str | None = "08006"
    before: View | None = None


class WriterUnavailable(FailoverError, NoInstanceAvailable):
    """No writer confirmed itself in time: the failover takes longer than ``aurora_failover_timeout``."""

    sqlstate: str | None = "08001"


class InstanceTimeout(NoInstanceAvailable):
    """No instance could be reached: there were dials, and every one of them timed out."""


class WriterTimeout(WriterUnavailable, InstanceTimeout):
    """No writer could be reached: there were dials, and every one of them timed out."""


class StaleConnection(FailoverError):
    """A connection that a pool keeps is of no use any more: it was lost, or its instance is not what it was."""

    sqlstate: str | None = "08003"


class NameNotVerifiable(RoutingError):
    """Under ``sslmode=verify-full`` the name to verify would come from DNS, which proves nothing."""


class TransactionEnded(AuroraRouterError):
    """The work of ``run_transaction`` ended its transaction itself (it may be committed), or hid that it failed."""


class CommitOutcomeUnknown(RoutingError):
    """The answer to COMMIT was lost, and it is not known (yet) whether the transaction committed.

    Also what an exception becomes that interrupted ``run_transaction`` while COMMIT was under way or after it, as that
    of a signal handler; it is the cause.

    Attributes:
        token: to ask again later, by ``Router.outcome_of``; None where there is no way to ask.
    """

    sqlstate: str | None = "08007"

    def __init__(self, message: str, *, token: CommitToken | None = None) -> None:
        super().__init__(message)
        self.token = token


def annotate(error: BaseException, token: CommitToken | None, text: str) -> None:
    """Say of an exception that stays what it is, as KeyboardInterrupt, that it came while a COMMIT was under way.

    On Python 3.10, which has no notes, the attribute ``token`` alone says it.
    """
    error.token = token  # type: ignore[attr-defined]
    if sys.version_info >= (3, 11):
        error.add_note(text)


@frozen
class ErrorFamily:
    """The classes that a procedure raises: those of a driver family, which are its driver's own errors, too.

    Each is a subclass of the class here that it is named after.
    """

    no_instance_available: type[NoInstanceAvailable]
    instance_timeout: type[InstanceTimeout]
    writer_unavailable: type[WriterUnavailable]
    writer_timeout: type[WriterTimeout]
    name_not_resolved: type[NameNotResolved]
    name_not_verifiable: type[NameNotVerifiable]
    failover_error: type[FailoverError]
    commit_outcome_unknown: type[CommitOutcomeUnknown]
    transaction_ended: type[TransactionEnded]
