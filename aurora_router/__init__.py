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

__all__ = [
    "AsyncConnection",
    "Attempt",
    "AuroraRouterError",
    "Connection",
    "InvalidOption",
    "MalformedHost",
    "NameNotResolved",
    "NameNotVerifiable",
    "NoInstanceAvailable",
    "Placement",
    "RoutingError",
    "__version__",
    "connect",
]
