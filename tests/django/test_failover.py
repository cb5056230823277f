"""What happens to Django's connections, kept by it or by a pool, when the cluster changes."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack, nullcontext

import django
import psycopg
import pytest

import aurora_router
from aurora_router.pool import ConnectionPool

pytestmark = pytest.mark.cluster

PATIENCE = 30.0


@pytest.fixture
def trips(monkeypatch):
    """How often a connection waited for the server: all that is blocking in psycopg goes through `wait`."""
    seen = []
    wait = psycopg.Connection.wait

    def counted(self, *args, **kwargs):
        seen.append(self)
        return wait(self, *args, **kwargs)

    monkeypatch.setattr(psycopg.Connection, "wait", counted)
    return seen


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def instance_of(one):
    with one.cursor() as cursor:
        cursor.execute("select aurora_db_instance_identifier(), pg_is_in_recovery()")
        return cursor.fetchone()


def test_a_kept_connection_is_replaced_between_requests_without_a_round_trip(default, cluster, trips):
    from django.db import close_old_connections

    former = cluster.writer
    assert instance_of(default) == (former, False)
    kept = default.connection
    assert trips.count(kept) > 0, "what is counted is counted"
    trips.clear()
    close_old_connections()
    assert default.connection is kept
    cluster.failover()
    until(lambda: close_old_connections() or default.connection is None, "dropped")
    assert kept.closed
    assert trips == []
    assert instance_of(default) == (cluster.writer, False)
    assert cluster.writer != former


def test_a_kept_connection_is_dropped_where_its_reader_has_too_many(wrapper, cluster):
    """Those of other threads count: here they are plain connections by the same options."""
    one = wrapper("replica")
    with ExitStack() as stack:
        instance, _ = instance_of(one)
        kept = one.connection
        others = [aurora_router.connect(cluster.conninfo("reader")) for _ in range(7)]
        for each in others:
            stack.enter_context(each)
            if each.placement.instance != instance:
                each.close()
        assert sum(each.placement.instance == instance for each in others) >= 3
        until(lambda: one.close_if_unusable_or_obsolete() or one.connection is None, "dropped")
        assert kept.closed
        again, _ = instance_of(one)
        assert again != instance
        one.close_if_unusable_or_obsolete()
        assert one.connection is not None


@pytest.mark.parametrize("healthy", [True, False])
def test_a_health_check_asks_what_is_not_stale(wrapper, cluster, trips, healthy):
    one = wrapper(CONN_HEALTH_CHECKS=True)
    assert instance_of(one) == (cluster.writer, False)
    kept = one.connection
    if not healthy:
        kept.pgconn.finish()
    trips.clear()
    one.health_check_done = False  # as a request begins
    one.close_if_health_check_failed()
    assert (one.connection is kept, len(trips) > 0) == (healthy, healthy)


with_pools = pytest.mark.skipif(django.VERSION < (5, 1), reason="Django has pools from 5.1 on")


@with_pools
def test_a_pool_hands_out_no_stale_connection(wrapper, cluster):
    one = wrapper("pooled")
    assert isinstance(one.pool, ConnectionPool)
    assert instance_of(one) == (cluster.writer, False)
    kept = one.connection
    one.close()
    assert not kept.closed, "the pool has it"
    cluster.failover()
    until(lambda: not kept.sound(), "known to be stale")
    for _ in range(4):
        assert instance_of(one) == (cluster.writer, False)
        one.close()
    assert kept.closed


@with_pools
@pytest.mark.parametrize("asked", [True, False])
def test_a_pool_asks_only_with_health_checks(wrapper, trips, asked):
    one = wrapper("pooled", {"pool": {"min_size": 1, "max_size": 1}}, CONN_HEALTH_CHECKS=asked)
    one.ensure_connection()
    kept = one.connection
    one.close()
    trips.clear()
    assert one.pool.getconn() is kept
    assert (len(trips) > 0) is asked
    one.pool.putconn(kept)


@with_pools
def test_a_pool_of_bad_settings_is_told_at_once(wrapper):
    from django.core.exceptions import ImproperlyConfigured

    one = wrapper("pooled", {"aurora_rol": "reader"})
    with pytest.raises(aurora_router.InvalidOption, match="did you mean aurora_role"):
        one.ensure_connection()
    with pytest.raises(ImproperlyConfigured, match="CONN_MAX_AGE"):
        wrapper("pooled", CONN_MAX_AGE=60).ensure_connection()


def test_no_writer_is_djangos_operational_error_and_ours_its_cause(wrapper, default, cluster):
    from django.db import OperationalError, close_old_connections

    former = cluster.writer
    assert instance_of(default) == (former, False)
    cluster.kill(former, hold=True)
    try:
        with pytest.raises(OperationalError) as caught:
            instance_of(default)
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert caught.value.incident.instance == former
        said = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert f"aurora-router: the connection to {former} " in said
        with pytest.raises(OperationalError, match="writer") as caught:
            wrapper(options={"aurora_failover_timeout": 0.5}).ensure_connection()
        assert isinstance(caught.value.__cause__, aurora_router.FailoverError)
        assert caught.value.__cause__.attempts
    finally:
        cluster.failover()
        cluster.start_instance(former)
    close_old_connections()
    assert instance_of(default) == (cluster.writer, False)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("in_transaction", [False, True])
def test_a_forked_child_never_speaks_on_its_parents_connection(in_transaction, default):
    """It connects for itself; where the parent was within a transaction it gets an error."""
    from django.db import OperationalError, transaction

    def backend():
        with default.cursor() as cursor:
            cursor.execute("select pg_backend_pid()")
            return cursor.fetchone()[0]

    def child(parents):
        if in_transaction:
            with pytest.raises(OperationalError, match="closed"):
                backend()
        else:
            assert backend() != parents
        default.close()

    with transaction.atomic(default.alias) if in_transaction else nullcontext():
        before = backend()
        pid = os.fork()
        if pid == 0:
            try:
                child(before)
            except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
                os.write(2, f"{error!r}\n".encode())
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        assert backend() == before
