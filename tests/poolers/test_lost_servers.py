"""A pooler that loses its server answers twice: the error is that of a lost connection all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import psycopg
import pytest

import aurora_router
from tests.poolers.poolers import PgBouncer

pytestmark = [pytest.mark.cluster, pytest.mark.one_python, pytest.mark.usefixtures("pgbouncer")]

PID = "SELECT pg_backend_pid()"


@pytest.fixture
def conninfo(aurora_cluster):
    writer = aurora_cluster.instance(aurora_cluster.writer)
    with PgBouncer({"app": (writer.host, writer.port)}) as pooler:
        yield f"host={pooler.host} port={pooler.port} dbname=app user=app password=app sslmode=disable"


def end_at_its_next_command(backend):
    """The backend reads nothing until it ends, which it is to do first."""
    os.kill(backend, signal.SIGSTOP)
    os.kill(backend, signal.SIGTERM)
    threading.Timer(0.2, os.kill, [backend, signal.SIGCONT]).start()


@pytest.mark.parametrize("command", ["BEGIN", "COMMIT"])
def test_a_backend_that_ends_under_a_command(conninfo, command):
    with aurora_router.connect(conninfo) as conn:
        (backend,) = conn.execute(PID).fetchone()
        if command == "BEGIN":
            conn.rollback()
        end_at_its_next_command(backend)
        with pytest.raises(psycopg.OperationalError, match="terminating connection") as caught:
            conn.execute("SELECT 1") if command == "BEGIN" else conn.commit()
        assert conn.closed
    assert caught.value.incident.lost
    assert isinstance(caught.value.__cause__, psycopg.InternalError)


def test_on_an_event_loop_too(conninfo):
    async def go():
        async with await aurora_router.AsyncConnection.connect(conninfo) as conn:
            (backend,) = await (await conn.execute(PID)).fetchone()
            end_at_its_next_command(backend)
            with pytest.raises(psycopg.OperationalError, match="terminating connection"):
                await conn.commit()

    asyncio.run(go())


def test_other_internal_errors_stay_what_they_are(conninfo):
    with aurora_router.connect(conninfo) as conn, pytest.raises(psycopg.InternalError, match="boom"):
        conn.execute("DO $$ BEGIN RAISE EXCEPTION 'boom' USING ERRCODE = 'XX000'; END $$")
