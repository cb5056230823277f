"""The pools of psycopg_pool, SQLAlchemy and ours, on containers."""

from tests.conformance.test_pools import *  # noqa: F403
