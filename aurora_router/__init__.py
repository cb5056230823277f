"""Connection routing for Amazon Aurora: the right instance, kept right, with psycopg's own connections."""

from aurora_router._version import __version__
from aurora_router.connection import AsyncConnection, Connection, Placement, connect
from aurora_router.errors import (
    Attempt,
    AuroraRouterError,
    InvalidOption,
    MalformedHost,
    NameNotResolved,
    NameNotVerifiable,
    NoInstanceAvailable,
    RoutingError,
)
from aurora_router.model.event import (
    ClaimRefused,
    Event,
    InstanceAdded,
    InstanceFailed,
    InstanceRemoved,
    RoleChanged,
    WriterChanged,
    WriterLost,
)
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.observe import subscribe
from aurora_router.router import AsyncRouter, Explanation, Router

__all__ = [
    "AsyncConnection",
    "AsyncRouter",
    "Attempt",
    "AuroraRouterError",
    "ClaimRefused",
    "Connection",
    "Event",
    "Explanation",
    "Instance",
    "InstanceAdded",
    "InstanceFailed",
    "InstanceRemoved",
    "InvalidOption",
    "MalformedHost",
    "NameNotResolved",
    "NameNotVerifiable",
    "NoInstanceAvailable",
    "Placement",
    "Role",
    "RoleChanged",
    "Router",
    "RoutingError",
    "View",
    "WriterChanged",
    "WriterLost",
    "__version__",
    "connect",
    "subscribe",
]
