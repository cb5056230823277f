"""The errors of connections of PyMySQL's: those of the core, which are PyMySQL's own errors, too.

Code that catches or retries on `pymysql.err.OperationalError`, or that looks at ``error.args[0]``, still works: the
first of `args` is the number that MySQL's own clients have for the nearest fault, the second the text.
"""

from __future__ import annotations

from typing import Any, Final

from pymysql.constants import CR
from pymysql.err import OperationalError, ProgrammingError

from aurora_router import errors
from aurora_router.errors import ErrorFamily


class RoutingError(errors.RoutingError, OperationalError):
    __doc__ = errors.RoutingError.__doc__
    errno = CR.CR_CONN_HOST_ERROR
    """MySQL's number, the first of `args`."""

    def __init__(self, message: str, **details: Any) -> None:
        super().__init__(message, **details)
        self.args = (self.errno, self.args[0])
        self.sqlstate = type(self).sqlstate  # PyMySQL's class has set it to None

    def __str__(self) -> str:
        return str(self.args[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[RoutingError], args: tuple[Any, ...], state: dict[str, Any]) -> RoutingError:
    """Make an error again that was pickled."""
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class NoInstanceAvailable(RoutingError, errors.NoInstanceAvailable):
    __doc__ = errors.NoInstanceAvailable.__doc__


class NameNotResolved(RoutingError, errors.NameNotResolved):
    __doc__ = errors.NameNotResolved.__doc__


class FailoverError(RoutingError, errors.FailoverError):
    __doc__ = errors.FailoverError.__doc__
    errno = CR.CR_SERVER_GONE_ERROR


class WriterUnavailable(FailoverError, NoInstanceAvailable, errors.WriterUnavailable):
    __doc__ = errors.WriterUnavailable.__doc__
    errno = CR.CR_CONN_HOST_ERROR


class InstanceTimeout(NoInstanceAvailable, errors.InstanceTimeout):
    __doc__ = errors.InstanceTimeout.__doc__


class WriterTimeout(WriterUnavailable, InstanceTimeout, errors.WriterTimeout):
    __doc__ = errors.WriterTimeout.__doc__


class NameNotVerifiable(RoutingError, errors.NameNotVerifiable):
    __doc__ = errors.NameNotVerifiable.__doc__
    errno = CR.CR_SSL_CONNECTION_ERROR


class CommitOutcomeUnknown(RoutingError, errors.CommitOutcomeUnknown):
    __doc__ = errors.CommitOutcomeUnknown.__doc__
    errno = CR.CR_SERVER_LOST


class TransactionEnded(errors.TransactionEnded, ProgrammingError):
    __doc__ = errors.TransactionEnded.__doc__


FAMILY: Final = ErrorFamily(
    no_instance_available=NoInstanceAvailable,
    instance_timeout=InstanceTimeout,
    writer_unavailable=WriterUnavailable,
    writer_timeout=WriterTimeout,
    name_not_resolved=NameNotResolved,
    name_not_verifiable=NameNotVerifiable,
    failover_error=FailoverError,
    commit_outcome_unknown=CommitOutcomeUnknown,
    transaction_ended=TransactionEnded,
)
"""What a runtime of PyMySQL's raises."""

RETRYABLE: Final[tuple[type[Exception], ...]] = (NoInstanceAvailable, NameNotResolved)
"""Errors after which it is certain that the connect had no effect: nothing was sent.

It may be tried again, whatever the work does. For ``except``, ``isinstance`` and tenacity. Fewer than in
`aurora_router.RETRYABLE`: PyMySQL has one class, ``pymysql.err.OperationalError``, for a deadlock, a refused write and
a connection that is lost during COMMIT, so no class stands for a transaction that was rolled back. Of a deadlock, the
first of ``args`` is 1213; then the server has rolled the transaction back, and the whole of it may be run again.
"""
