"""SQLAlchemy dialects ``postgresql+aurora`` (sync and async): the stock psycopg dialects on the right instance."""

from aurora_router_sqlalchemy.causal import causal_token, causal_token_async, connect_after, connect_after_async
from aurora_router_sqlalchemy.routing_session import (
    AsyncEngines,
    AsyncRoutingSession,
    Engines,
    RoutingSession,
    create_async_engines,
    create_engines,
)
from aurora_router_sqlalchemy.transaction import run_transaction, run_transaction_async

__all__ = [
    "AsyncEngines",
    "AsyncRoutingSession",
    "Engines",
    "RoutingSession",
    "causal_token",
    "causal_token_async",
    "connect_after",
    "connect_after_async",
    "create_async_engines",
    "create_engines",
    "run_transaction",
    "run_transaction_async",
]
