"""A topology function whose answers lack rows, or have rows that make no sense: healthy connections stay."""

from __future__ import annotations

import time
from contextlib import contextmanager

import psycopg
import pytest

import aurora_router
from aurora_router.model.event import ConfigurationAdvice, ConnectionsCut, InstanceRemoved, RoleChanged, WriterLost
from tests.superuser import connect_as_superuser

pytestmark = [pytest.mark.cluster, pytest.mark.case]

ORIGINAL = "pg_catalog.aurora_replica_status"
READER = "pg_catalog.pg_is_in_recovery()"
OWN = "pg_catalog.aurora_db_instance_identifier()"


@pytest.fixture(scope="module")
def cluster(request):
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=1, postgres=request.config.getoption("--aurora-postgres")) as started:
        with connect_as_superuser(started) as conn:
            conn.execute("SET allow_system_table_mods = on")
            conn.execute(f"ALTER FUNCTION {ORIGINAL}() RENAME TO true_replica_status")
        with answering(started, "SELECT * FROM pg_catalog.true_replica_status()"):
            yield started


@contextmanager
def answering(cluster, body):
    """Let the topology function answer with the rows of a query, until the end of the block."""

    def put(body):
        with connect_as_superuser(cluster) as conn:
            conn.execute("SET allow_system_table_mods = on")
            (columns,) = conn.execute(
                "SELECT pg_get_function_arguments('pg_catalog.true_replica_status'::regproc)"
            ).fetchone()
            conn.execute(
                f"CREATE OR REPLACE FUNCTION {ORIGINAL}({columns}) RETURNS SETOF record LANGUAGE sql "
                f"SECURITY DEFINER SET search_path = pg_catalog AS $body$ {body} $body$"
            )

    put(body)
    try:
        yield
    finally:
        put("SELECT * FROM pg_catalog.true_replica_status()")


def real(where="true", id_="s.server_id", session="s.session_id", lsn="s.durable_lsn"):
    """A query for the true rows, with some columns replaced."""
    return (
        f"SELECT {id_}, {session}, {lsn}, s.highest_lsn_rcvd, s.current_read_lsn, s.cur_replay_latency_in_usec, "
        "s.active_txns, s.is_current, s.last_transport_error, s.last_error_timestamp, s.last_update_timestamp, "
        "s.feedback_xmin, s.feedback_epoch, s.replica_lag_in_msec, s.log_stream_speed_in_kib_per_second, "
        "s.log_buffer_sequence_number, s.oldest_read_view_trx_id, s.oldest_read_view_lsn, s.pending_read_ios, "
        f"s.read_ios, s.iops, s.cpu FROM pg_catalog.true_replica_status() s WHERE {where}"
    )


ODD = {
    "a reader lists itself alone": real(f"NOT {READER} OR s.server_id = {OWN}"),
    "a reader lists nothing": real(f"NOT {READER}"),
    "nothing is listed": real("false"),
    "ids are missing": real(id_="CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN NULL ELSE s.server_id END"),
    "ids are no labels": real() + " UNION ALL " + real(id_="'a b.c' || s.server_id"),
    "two writers": real(session="'MASTER_SESSION_ID'::text"),
    "rows come twice": real() + " UNION ALL " + real(),
    "positions are missing": real(lsn="NULL::bigint"),
    "upper case": real(id_="upper(s.server_id)"),
}


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_a_healthy_transaction_goes_on(cluster, body, events):
    with (
        aurora_router.connect(cluster.conninfo("writer")) as conn,
        aurora_router.connect(cluster.conninfo("reader"), autocommit=True) as reader,
        aurora_router.connect(cluster.conninfo("writer")) as broken,
    ):
        conn.execute("CREATE TEMP TABLE t (i int)")
        with answering(cluster, body):
            del events[:]
            with connect_as_superuser(cluster) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [broken.info.backend_pid])
            with pytest.raises(psycopg.OperationalError):
                broken.execute("SELECT 1")
            deadline = time.monotonic() + 20.0
            while not any(type(event).__name__ == "WriterConfirmed" for event in events):
                assert time.monotonic() < deadline, events
                conn.execute("INSERT INTO t VALUES (1)")
                time.sleep(0.02)
            with aurora_router.connect(cluster.conninfo("writer")) as again:
                assert again.execute(f"SELECT {READER}").fetchone() == (False,)
            with aurora_router.connect(cluster.conninfo("reader"), autocommit=True) as again:
                assert again.execute(f"SELECT {READER}").fetchone() == (True,)
        conn.commit()
        assert conn.placement.current
        assert reader.placement.current
        reader.execute("SELECT 1")
        harm = (ConnectionsCut, InstanceRemoved, RoleChanged, WriterLost)
        assert not [event for event in events if isinstance(event, harm)]
        assert len([event for event in events if isinstance(event, ConfigurationAdvice)]) <= 1


@pytest.mark.parametrize("body", ODD.values(), ids=ODD)
def test_a_new_process_connects(cluster, body):
    from aurora_router.runtime.registry import REGISTRY

    with answering(cluster, body):
        REGISTRY.reset()
        with aurora_router.connect(cluster.conninfo("writer"), aurora_monitor=False) as conn:
            assert conn.execute(f"SELECT {READER}").fetchone() == (False,)
            assert conn.placement.current
