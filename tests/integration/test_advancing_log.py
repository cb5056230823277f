"""That the statement of `flow.topology_query.advance_log` lets the log of an idle writer grow, on real servers."""

from __future__ import annotations

import time

import pytest

import aurora_router
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL

pytestmark = pytest.mark.cluster

OWN_TOKEN = """SELECT durable_lsn FROM aurora_replica_status()
    WHERE server_id = aurora_db_instance_identifier()"""


@pytest.mark.parametrize("options", ["", "-c default_transaction_read_only=on", "-c synchronous_commit=off"])
def test_one_record_grows_what_the_writer_reports_to_be_durable(aurora_cluster_factory, options):
    cluster = aurora_cluster_factory(readers=1)
    with aurora_router.connect(cluster.conninfo(), options=options, autocommit=True) as conn:
        before = conn.execute(OWN_TOKEN).fetchone()
        conn.execute(AURORA_POSTGRESQL.advance_sql)
        until = time.monotonic() + 10.0
        while conn.execute(OWN_TOKEN).fetchone() <= before:
            assert time.monotonic() < until
            time.sleep(0.01)
