"""Connection routing for Amazon Aurora: the right instance, kept right, with psycopg's own connections.

Importing the package loads no driver and little of itself: each public name is imported when it is first used.
"""

from typing import TYPE_CHECKING, Any

from aurora_router._version import __version__
from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from aurora_router.checking import check, is_surplus
    from aurora_router.connection import AsyncConnection, Connection, connect
    from aurora_router.credentials import Credential, Login
    from aurora_router.errors import (
        Attempt,
        AuroraRouterError,
        CausalTokenRejected,
        ExtensionFailed,
        InvalidOption,
        MalformedHost,
    )
    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.model.event import (
        AnswerRefused,
        ClaimRefused,
        ConfigurationAdvice,
        ConnectionsCut,
        DrainEnded,
        DrainStarted,
        Event,
        HangRefuted,
        HangSuspected,
        InstanceAdded,
        InstanceFailed,
        InstanceRecovered,
        InstanceRemoved,
        MonitorLockedOut,
        ProcessStalled,
        RoleChanged,
        WriterChanged,
        WriterConfirmed,
        WriteRefused,
        WriterLost,
        WriterSuspected,
    )
    from aurora_router.model.incident import Incident
    from aurora_router.model.instance import Instance, Role
    from aurora_router.model.view import View
    from aurora_router.observe import subscribe
    from aurora_router.placement import Placement
    from aurora_router.policy.outcome import Outcome
    from aurora_router.psycopg_errors import (
        RETRYABLE,
        CommitOutcomeUnknown,
        CredentialsUnavailable,
        FailoverError,
        InstanceTimeout,
        NameNotResolved,
        NameNotVerifiable,
        NoInstanceAvailable,
        RoutingError,
        StaleConnection,
        TransactionEnded,
        WriterTimeout,
        WriterUnavailable,
    )
    from aurora_router.router import AsyncRouter, Explanation, Router

__all__ = [
    "RETRYABLE",
    "AnswerRefused",
    "AsyncConnection",
    "AsyncRouter",
    "Attempt",
    "AuroraRouterError",
    "CausalToken",
    "CausalTokenRejected",
    "ClaimRefused",
    "CommitOutcomeUnknown",
    "CommitToken",
    "ConfigurationAdvice",
    "Connection",
    "ConnectionsCut",
    "Credential",
    "CredentialsUnavailable",
    "DrainEnded",
    "DrainStarted",
    "Event",
    "Explanation",
    "ExtensionFailed",
    "FailoverError",
    "HangRefuted",
    "HangSuspected",
    "Incident",
    "Instance",
    "InstanceAdded",
    "InstanceFailed",
    "InstanceRecovered",
    "InstanceRemoved",
    "InstanceTimeout",
    "InvalidOption",
    "Login",
    "MalformedHost",
    "MonitorLockedOut",
    "NameNotResolved",
    "NameNotVerifiable",
    "NoInstanceAvailable",
    "Outcome",
    "Placement",
    "ProcessStalled",
    "Role",
    "RoleChanged",
    "Router",
    "RoutingError",
    "StaleConnection",
    "TransactionEnded",
    "View",
    "WriteRefused",
    "WriterChanged",
    "WriterConfirmed",
    "WriterLost",
    "WriterSuspected",
    "WriterTimeout",
    "WriterUnavailable",
    "__version__",
    "check",
    "connect",
    "is_surplus",
    "subscribe",
]

_LATE = {
    name: module
    for module, names in {
        "aurora_router.checking": ["check", "is_surplus"],
        "aurora_router.connection": ["AsyncConnection", "Connection", "connect"],
        "aurora_router.credentials": ["Credential", "Login"],
        "aurora_router.errors": [
            "Attempt",
            "AuroraRouterError",
            "CausalTokenRejected",
            "ExtensionFailed",
            "InvalidOption",
            "MalformedHost",
        ],
        "aurora_router.model.causal_token": ["CausalToken"],
        "aurora_router.model.commit_token": ["CommitToken"],
        "aurora_router.model.event": [
            "AnswerRefused",
            "ClaimRefused",
            "ConfigurationAdvice",
            "ConnectionsCut",
            "Event",
            "HangRefuted",
            "HangSuspected",
            "InstanceAdded",
            "InstanceFailed",
            "DrainEnded",
            "DrainStarted",
            "InstanceRecovered",
            "InstanceRemoved",
            "MonitorLockedOut",
            "ProcessStalled",
            "RoleChanged",
            "WriteRefused",
            "WriterChanged",
            "WriterConfirmed",
            "WriterLost",
            "WriterSuspected",
        ],
        "aurora_router.model.incident": ["Incident"],
        "aurora_router.model.instance": ["Instance", "Role"],
        "aurora_router.model.view": ["View"],
        "aurora_router.observe": ["subscribe"],
        "aurora_router.placement": ["Placement"],
        "aurora_router.policy.outcome": ["Outcome"],
        "aurora_router.psycopg_errors": [
            "RETRYABLE",
            "CommitOutcomeUnknown",
            "CredentialsUnavailable",
            "FailoverError",
            "InstanceTimeout",
            "NameNotResolved",
            "NameNotVerifiable",
            "NoInstanceAvailable",
            "RoutingError",
            "StaleConnection",
            "TransactionEnded",
            "WriterTimeout",
            "WriterUnavailable",
        ],
        "aurora_router.router": ["AsyncRouter", "Explanation", "Router"],
    }.items()
    for name in names
}
"""Public names, and the modules that are imported when they are first used."""


if not TYPE_CHECKING:  # type checkers know the names above, and report a misspelt one

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first asked for (PEP 562)."""
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module  # noqa: PLC0415 - as late as what it imports

        with IMPORTING:
            value = getattr(import_module(_LATE[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """List the public names, also those that were not used yet."""
    return sorted({*globals(), *__all__})
