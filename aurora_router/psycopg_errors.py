"""The errors of connections of psycopg's: those of `aurora_router.errors`, which are psycopg's own errors, too.

These are the classes that `aurora_router` has under their names, and that a connect raises: code that catches or
retries on `psycopg.OperationalError` still works. Another driver family derives its classes in the same way.
"""

from __future__ import annotations

from typing import Final

import psycopg

from aurora_router import errors
from aurora_router.errors import ErrorFamily


class CredentialsUnavailable(errors.CredentialsUnavailable, psycopg.OperationalError):
    __doc__ = errors.CredentialsUnavailable.__doc__


class RoutingError(errors.RoutingError, psycopg.OperationalError):
    __doc__ = errors.RoutingError.__doc__


class NoInstanceAvailable(RoutingError, errors.NoInstanceAvailable):
    __doc__ = errors.NoInstanceAvailable.__doc__


class NameNotResolved(RoutingError, errors.NameNotResolved):
    __doc__ = errors.NameNotResolved.__doc__


class FailoverError(RoutingError, errors.FailoverError):
    __doc__ = errors.FailoverError.__doc__


class WriterUnavailable(FailoverError, NoInstanceAvailable, errors.WriterUnavailable):
    __doc__ = errors.WriterUnavailable.__doc__


class InstanceTimeout(NoInstanceAvailable, errors.InstanceTimeout, psycopg.errors.ConnectionTimeout):
    __doc__ = errors.InstanceTimeout.__doc__


class WriterTimeout(WriterUnavailable, InstanceTimeout, errors.WriterTimeout):
    __doc__ = errors.WriterTimeout.__doc__


class StaleConnection(FailoverError, errors.StaleConnection):
    __doc__ = errors.StaleConnection.__doc__


class NameNotVerifiable(RoutingError, errors.NameNotVerifiable):
    __doc__ = errors.NameNotVerifiable.__doc__


class TransactionEnded(errors.TransactionEnded, psycopg.ProgrammingError):
    __doc__ = errors.TransactionEnded.__doc__


class CommitOutcomeUnknown(RoutingError, errors.CommitOutcomeUnknown, psycopg.errors.TransactionResolutionUnknown):
    __doc__ = errors.CommitOutcomeUnknown.__doc__


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
"""What a runtime of psycopg's raises."""

RETRYABLE: Final[tuple[type[Exception], ...]] = (
    NoInstanceAvailable,
    NameNotResolved,
    StaleConnection,
    psycopg.errors.SerializationFailure,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.ReadOnlySqlTransaction,
)
"""Errors after which it is certain that the connect, or the transaction in which they were raised, had no effect.

Nothing had been sent yet, or the server has rolled the transaction back. The whole of it may be tried again, on another
connection, whatever it does. For ``except``, ``isinstance`` and tenacity. Not among them: a connection that is lost
during a statement or COMMIT (`psycopg.OperationalError`), and `CommitOutcomeUnknown`; ``run_transaction`` deals with
those.
"""
