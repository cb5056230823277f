"""The error that ends a connect: what was tried, what is known, and the driver's own error as its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.errors import WriterUnavailable
from aurora_router.flow.attempt import AttemptFailed, format_seconds
from aurora_router.flow.dial_limiter import TOO_MANY_CONNECTIONS
from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.event import ClaimRefused
from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from aurora_router.errors import NoInstanceAvailable
    from aurora_router.flow.attempt import ConnectAttempt


def new_error(attempt: ConnectAttempt[ConnT], *, early: bool = False) -> NoInstanceAvailable:
    """Return the error that ends a connect; `early`: after one round, without regard to time."""
    cluster, wanted = attempt.cluster, attempt.route.role.value
    given = attempt.request.given[0]
    unnamed = "" if given.host or given.hostaddr else " (the call, PGHOST and the service name no host)"
    known = ", ".join(f"{each.id} ({each.role.value})" for each in cluster.view.instances.values())
    message = (
        f"no {'instance' if wanted == 'any' else wanted} of the cluster at {given}{unnamed} could be "
        f"connected {_describe_end(attempt, early=early)}: {_describe_failure(attempt)}. "
        f"{_describe_refused_claims(attempt)}Known: {known or 'nothing'}.{' Tried:' if attempt.tries else ''}"
    )
    family = attempt.runtime.errors
    late, full = attempt.faults == {FaultKind.TIMEOUT}, attempt.sqlstates == {TOO_MANY_CONNECTIONS}
    if attempt.route.role is WantedRole.WRITER and attempt.view_before.known and not full:
        kind: type[NoInstanceAvailable] = family.writer_timeout if late else family.writer_unavailable
    else:
        kind = family.instance_timeout if late else family.no_instance_available
    error = kind(message, attempts=attempt.tries, view=cluster.view, trail=cluster.state.trail)
    if full:
        error.sqlstate = TOO_MANY_CONNECTIONS
    if isinstance(error, WriterUnavailable):
        error.before = attempt.view_before
    return error


def find_cause(attempt: ConnectAttempt[ConnT]) -> BaseException | None:
    """Return the driver's own error behind the last failure, if there is one."""
    last = attempt.last_failure
    cause = last.__cause__ if isinstance(last, AttemptFailed) else last
    return cause.cause if isinstance(cause, DialFailed) else cause


def _describe_end(attempt: ConnectAttempt[ConnT], *, early: bool) -> str:
    """Say for how long it was tried, and why no longer."""
    if attempt.request.wanted is not None and not attempt.request.wanted():
        tried = attempt.runtime.now() - attempt.started
        return f"(given up after {format_seconds(tried)}: the connection is not wanted any more)"
    patience = attempt.patience()
    return "in one round" if early or patience == 0.0 else f"within {format_seconds(patience)}"


def _describe_failure(attempt: ConnectAttempt[ConnT]) -> str:
    """Say why the last round failed, without the full stop, or the question mark of libpq's hint."""
    if attempt.sqlstates == {TOO_MANY_CONNECTIONS}:
        return f"what was dialled is up, and has no connection slot free for this user ({TOO_MANY_CONNECTIONS})"
    return str(attempt.last_failure).rstrip(".?")


def _describe_refused_claims(attempt: ConnectAttempt[ConnT]) -> str:
    """Say, in sentences, why instances that reported that they are the writer were not accepted meanwhile."""
    if attempt.route.role is not WantedRole.WRITER:
        return ""
    reasons = {
        event.claimed: event.reason
        for at, event in attempt.cluster.state.trail
        if at >= attempt.started and isinstance(event, ClaimRefused)
    }
    return "".join(f"{id_} reports that it is the writer, but {reason}. " for id_, reason in reasons.items())
