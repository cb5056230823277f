"""Behind a pooler that takes no transactions, one fails at once, and says why."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

import aurora_router
from tests.poolers.poolers import PgBouncer

pytestmark = [pytest.mark.cluster, pytest.mark.one_python, pytest.mark.usefixtures("pgbouncer")]

ENOUGH = {"aurora_transaction_timeout": "600", "prepare_threshold": None}
"""A test that waits for this time-out never ends."""


@pytest.fixture
def conninfo(aurora_cluster):
    writer = aurora_cluster.instance(aurora_cluster.writer)
    with PgBouncer({"app": (writer.host, writer.port)}, pool_mode="statement") as pooler:
        yield f"host={pooler.host} port={pooler.port} dbname=app user=app password=app sslmode=disable"


def test_a_transaction_is_refused_once(conninfo):
    began = []
    router = aurora_router.Router(conninfo, **ENOUGH)
    with pytest.raises(psycopg.Error, match="not allowed in statement pooling mode"):
        router.run_transaction(began.append)
    assert began == []
    with router.connect(autocommit=True) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)


def test_on_an_event_loop_too(conninfo):
    router = aurora_router.AsyncRouter(conninfo, **ENOUGH)
    with pytest.raises(psycopg.Error, match="not allowed in statement pooling mode"):
        asyncio.run(router.run_transaction(lambda conn: conn.execute("SELECT 1")))
