"""Connection routing for Amazon Aurora: the right instance, kept right, with psycopg's own connections."""

from aurora_router._version import __version__
from aurora_router.checking import check
from aurora_router.connection import AsyncConnection, Connection, Placement, connect
from aurora_router.errors import (
    Attempt,
    AuroraRouterError,
    CommitOutcomeUnknown,
    FailoverError,
    InvalidOption,
    MalformedHost,
    NameNotResolved,
    NameNotVerifiable,
    NoInstanceAvailable,
    RoutingError,
    StaleConnection,
    TransactionEnded,
    WriterUnavailable,
)
from aurora_router.model.event import (
    Blinded,
    ClaimRefused,
    ConnectionsCut,
    Doubted,
    Event,
    HangRefuted,
    HangSuspected,
    InstanceAdded,
    InstanceFailed,
    InstanceRemoved,
    RoleChanged,
    Settled,
    Starved,
    WriterChanged,
    WriterLost,
)
from aurora_router.model.instance import Instance, Role
from aurora_router.model.ticket import Ticket
from aurora_router.model.view import View
from aurora_router.observe import subscribe
from aurora_router.policy.outcome import Outcome
from aurora_router.router import AsyncRouter, Explanation, Router

__all__ = [
    "AsyncConnection",
    "AsyncRouter",
    "Attempt",
    "AuroraRouterError",
    "Blinded",
    "ClaimRefused",
    "CommitOutcomeUnknown",
    "Connection",
    "ConnectionsCut",
    "Doubted",
    "Event",
    "Explanation",
    "FailoverError",
    "HangRefuted",
    "HangSuspected",
    "Instance",
    "InstanceAdded",
    "InstanceFailed",
    "InstanceRemoved",
    "InvalidOption",
    "MalformedHost",
    "NameNotResolved",
    "NameNotVerifiable",
    "NoInstanceAvailable",
    "Outcome",
    "Placement",
    "Role",
    "RoleChanged",
    "Router",
    "RoutingError",
    "Settled",
    "StaleConnection",
    "Starved",
    "Ticket",
    "TransactionEnded",
    "View",
    "WriterChanged",
    "WriterLost",
    "WriterUnavailable",
    "__version__",
    "check",
    "connect",
    "subscribe",
]
