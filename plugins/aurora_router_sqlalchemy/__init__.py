"""SQLAlchemy dialects ``postgresql+aurora`` (sync and async): the stock psycopg dialects on the right instance."""

from aurora_router_sqlalchemy.transaction import run_transaction, run_transaction_async

__all__ = ["run_transaction", "run_transaction_async"]
