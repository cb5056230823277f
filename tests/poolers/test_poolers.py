"""The poolers that other tests rely on: they start, pass queries on, and come back at the same port."""

from __future__ import annotations

import time

import psycopg
import pytest

from tests.poolers.poolers import HAProxy, PgBouncer

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]

WHERE = "SELECT aurora_db_instance_identifier(), pg_is_in_recovery(), pg_backend_pid()"


def ask(listener):
    info = f"host={listener.host} port={listener.port} dbname=app user=app password=app sslmode=disable"
    with psycopg.connect(info, gssencmode="disable") as conn:
        return (*conn.execute(WHERE).fetchone(), conn.info.backend_pid)


@pytest.mark.usefixtures("pgbouncer")
def test_pgbouncer_gives_process_ids_of_its_own_and_returns_to_its_port(aurora_cluster):
    writer = aurora_cluster.instance(aurora_cluster.writer)
    with PgBouncer({"app": (writer.host, writer.port)}, pool_mode="transaction") as pooler:
        id_, standby, pid, reported = ask(pooler)
        assert (id_, standby) == (writer.name, False)
        assert pid != reported
        port = pooler.port
        pooler.stop()
        with pytest.raises(psycopg.OperationalError, match="refused"):
            ask(pooler)
        pooler.start()
        assert pooler.port == port
        assert ask(pooler)[:2] == (writer.name, False)


@pytest.mark.usefixtures("pgbouncer")
def test_pgbouncer_leads_elsewhere_when_its_operator_says_so(aurora_cluster):
    first, second, *_ = aurora_cluster.instances
    with PgBouncer({"app": (first.host, first.port)}) as pooler:
        assert ask(pooler)[0] == first.name
        pooler.redirect({"app": (second.host, second.port)})
        deadline = time.monotonic() + 10
        while ask(pooler)[0] != second.name:
            assert time.monotonic() < deadline


@pytest.mark.usefixtures("haproxy")
def test_haproxy_leads_to_all_servers(aurora_cluster):
    servers = [(each.host, each.port) for each in aurora_cluster.instances]
    with HAProxy(servers) as balancer:
        answers = [ask(balancer) for _ in range(3 * len(servers))]
    assert {each[0] for each in answers} == {each.name for each in aurora_cluster.instances}
    assert all(pid == reported for _, _, pid, reported in answers)
