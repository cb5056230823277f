"""Connections that work are left alone, whatever happens to new ones; a hang is noticed where that can be known."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import signal
import socket
import threading
import time

import psycopg
import pytest

import aurora_router
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from tests.superuser import connect_as_superuser

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]

SOON = {"aurora_profile": "aggressive"}  # a hang is noticed within 0.44 s
STALL = 1.5  # seconds


def wait_until(condition, what):
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def work(conn, seconds, until, errors):
    try:
        while time.monotonic() < until:
            conn.execute(f"SELECT pg_sleep({seconds})")
    except psycopg.Error as error:
        errors.append(str(error))


@pytest.mark.case
def test_sessions_go_on_while_the_postmaster_stands_still(aurora_cluster, events):
    """New connections get no answer; those that exist do."""
    place, errors = aurora_cluster.instance(aurora_cluster.writer), []
    pool = [aurora_router.connect(aurora_cluster.conninfo(**SOON), autocommit=True) for _ in range(3)]
    until = time.monotonic() + STALL
    threads = [
        threading.Thread(target=work, args=[conn, seconds, until, errors])
        for conn, seconds in zip(pool, (0.01, 0.02, 0.4), strict=True)
    ]
    os.kill(place.pid, signal.SIGSTOP)
    try:
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    finally:
        os.kill(place.pid, signal.SIGCONT)
    assert errors == []
    assert [each.placement.current for each in pool] == [True] * 3
    for each in pool:
        each.close()
    assert not [each for each in events if isinstance(each, aurora_router.ConnectionsCut)]


@pytest.mark.case
def test_sessions_go_on_where_a_login_takes_longer_than_a_ping(aurora_cluster, events):
    """As with a login trigger, or LDAP: the server answers a dial at once, and lets it in much later."""
    conninfo = aurora_cluster.conninfo(options="-c post_auth_delay=1", **SOON)
    with aurora_router.connect(conninfo, autocommit=True) as conn:
        conn.execute(f"SELECT pg_sleep({2 * STALL})")
        assert conn.placement.current
    assert not [each for each in events if isinstance(each, aurora_router.ConnectionsCut)]


@pytest.mark.case
def test_a_proxy_that_lets_new_connections_wait_costs_no_statement(aurora_cluster, events):
    """Its slots are taken: the probe is accepted, and nothing answers it."""
    place = aurora_cluster.instance(aurora_cluster.writer)
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        led = threading.Thread(target=lead_one, args=[proxy, (place.host, place.port)])
        led.start()
        host, port = proxy.getsockname()
        with aurora_router.connect(aurora_cluster.conninfo(host=host, port=port, **SOON), autocommit=True) as conn:
            conn.execute(f"SELECT pg_sleep({STALL})")
        led.join()
    assert not [each for each in events if isinstance(each, aurora_router.ConnectionsCut)]


def test_a_hang_is_noticed_at_an_address_that_leads_straight_to_the_server(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=1)
    place = cluster.instance(cluster.writer)
    conninfo = cluster.conninfo(host=place.host, port=place.port, **SOON)
    with aurora_router.connect(conninfo, autocommit=True) as conn:
        deadline = time.monotonic() + 20.0
        while not any(known.direct for known in conn.placement._cluster.state.paths.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        cluster.freeze(place.name)
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            conn.execute("SELECT 1")
        assert time.monotonic() - began < 10.0  # without the monitor: never


def lead_one(proxy, server):
    """Lead one connection to a server, and accept no other one."""
    client, _ = proxy.accept()
    with client, socket.create_connection(server) as far:
        back = threading.Thread(target=pump, args=[far, client])
        back.start()
        pump(client, far)
        back.join()


def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:  # the other direction has ended
        return


def hang_under_a_statement(cluster):
    """The instance of a new connection hangs under its statement, which is cut."""
    with aurora_router.connect(cluster.conninfo(**SOON), autocommit=True) as conn:
        conn.execute("SELECT 1")
        cluster.freeze(conn.placement.instance)
        try:
            with pytest.raises(psycopg.OperationalError):
                conn.execute("SELECT 1")
        finally:
            cluster.thaw(conn.placement.instance)


def wait_for_the_cut(events):
    """It is published after the cut, which is what the statement saw."""
    wait_until(lambda: [each for each in events if isinstance(each, aurora_router.ConnectionsCut)], "it is published")


@pytest.mark.case
def test_a_subscriber_that_takes_its_time_only_delays_what_is_noticed(aurora_cluster, events):
    """It is called in the monitor's thread, also when a ping begins: its time is not the ping's."""
    unsubscribe = aurora_router.subscribe(lambda *_: time.sleep(0.5))
    try:
        hang_under_a_statement(aurora_cluster)
    finally:
        unsubscribe()
    wait_for_the_cut(events)


class OfARequest(logging.Filter):
    """A filter that works in the threads of requests alone."""

    def __init__(self):
        super().__init__()
        self.request = threading.local()
        self.request.id = 1

    def filter(self, record):
        record.request = self.request.id
        return True


@pytest.mark.case
def test_a_filter_of_logging_that_raises_in_the_monitors_thread(aurora_cluster, events):
    handler = logging.StreamHandler()
    handler.addFilter(OfARequest())
    logging.getLogger().addHandler(handler)
    try:
        for _ in range(2):  # the second time, too, there is a monitor
            hang_under_a_statement(aurora_cluster)
    finally:
        logging.getLogger().removeHandler(handler)
    wait_for_the_cut(events)


@pytest.mark.case
def test_the_monitor_belongs_to_no_request(aurora_cluster):
    request, seen = contextvars.ContextVar("request", default="none"), []

    def hear(*_):
        seen.append((threading.current_thread().name, request.get()))

    unsubscribe = aurora_router.subscribe(hear)
    try:
        request.set("the first")
        with aurora_router.connect(aurora_cluster.conninfo(), autocommit=True) as conn:
            aurora_cluster.failover()
            wait_until(lambda: not conn.placement.current, "the writer is another one")
            wait_until(lambda: [each for each in seen if "monitor" in each[0]], "the monitor has published an event")
    finally:
        unsubscribe()
    assert {of for thread, of in seen if "monitor" in thread} == {"none"}


@pytest.mark.case
@pytest.mark.parametrize("role", ["writer", "reader"])
def test_transactions_that_are_serializable_by_default(aurora_cluster, role):
    """A standby has none; what this library asks for itself needs none."""
    modes = "-c default_transaction_isolation=serializable -c default_transaction_deferrable=on"
    for _ in range(2):  # of a cluster that is not known, and of one that is
        with aurora_router.connect(aurora_cluster.conninfo(role, options=modes), autocommit=True) as conn:
            assert conn.placement.role.value == role
            with pytest.raises(psycopg.Error) if role == "reader" else contextlib.nullcontext():
                conn.execute("SELECT 1")
            conn.execute("SET default_transaction_isolation TO 'repeatable read'")
            assert conn.execute("SELECT 1").fetchone() == (1,)


def test_service_queries_do_not_wait_for_a_safe_snapshot(aurora_cluster):
    """A session for reports waits with each of its transactions until no serializable one is open; ours do not."""
    modes = (
        "-c default_transaction_isolation=serializable -c default_transaction_deferrable=on "
        "-c default_transaction_read_only=on"
    )
    conninfo = aurora_cluster.conninfo("writer", aurora_connect_timeout=2, aurora_failover_timeout=4)
    with connect_as_superuser(aurora_cluster) as other, contextlib.ExitStack() as stack:
        other.execute("CREATE TABLE IF NOT EXISTS waiting (n int)")
        other.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        other.execute("INSERT INTO waiting VALUES (1)")
        stack.callback(other.execute, "ROLLBACK")
        for refresh in (30, 0.001):  # the second connect queries the topology
            began = time.monotonic()
            with aurora_router.connect(conninfo, options=modes, autocommit=True, aurora_refresh=refresh) as conn:
                assert conn.placement.role.value == "writer"
            assert time.monotonic() - began < 2.0


def test_the_topology_does_not_depend_on_extra_float_digits(aurora_cluster):
    """A row's time that seems to stand still is that of an instance that has left."""
    with aurora_router.connect(aurora_cluster.conninfo(), options="-c extra_float_digits=-15", autocommit=True) as conn:
        assert conn.execute("SELECT 123.456::float8::text").fetchone() == ("1e+02",)
        times = [row[-2] for row in conn.execute(AURORA_POSTGRESQL.sql).fetchall()]
        assert any(each is not None and abs(time.time() - float(each)) < 60.0 for each in times)
