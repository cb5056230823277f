"""SQLAlchemy dialects ``postgresql+aurora`` (sync and async): the stock psycopg dialects on the right instance."""

from aurora_router_sqlalchemy.causal import causal_token, causal_token_async, connect_after, connect_after_async
from aurora_router_sqlalchemy.transaction import run_transaction, run_transaction_async

__all__ = [
    "causal_token",
    "causal_token_async",
    "connect_after",
    "connect_after_async",
    "run_transaction",
    "run_transaction_async",
]
