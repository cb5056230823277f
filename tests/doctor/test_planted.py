"""Misconfigurations that are planted for real are named, each by its own code; healthy setups get no finding."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

import aurora_router
from aurora_router_cluster import LocalCluster
from tests.doctor.conftest import free_port, listening, make_database, make_plain, make_role
from tests.poolers.poolers import HAProxy, NotInstalled, PgBouncer, program
from tests.runtime.test_inspection import until
from tests.superuser import connect_as_superuser, hold_replay

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2) as cluster:
        yield cluster


@contextlib.contextmanager
def disturbed():
    """A cluster with a relay in front of its instances, which is a proxy for what dials them by address."""
    with LocalCluster.start(readers=1, faults=True) as cluster:
        yield cluster


class Planted(NamedTuple):
    """A setup with one thing wrong: what the doctor is given, and what it has to find."""

    codes: tuple[str, ...]
    words: str
    conninfo: str
    more: tuple[str, ...] = ()


def needed(name):
    try:
        program(name)
    except NotInstalled as missing:
        pytest.skip(f"no pooler: {missing}")


def hosts_of(cluster):
    return {each.name: f"{each.host}:{each.port}" for each in cluster.instances}


def by_address(cluster, name=None, **more):
    there = cluster.instance(name or cluster.writer)
    return " ".join(
        f"{key}={value}"
        for key, value in {
            "host": there.host, "port": there.port, "user": "app", "password": "app", "dbname": "app", **more
        }.items()
    )  # fmt: skip


# ---------------------------------------------------------------- names


def misspelt_host(cluster, running, monkeypatch):
    host = cluster.endpoint("writer").replace("demo.", "demmo.")
    return Planted(("unresolved",), host, cluster.conninfo(host=host))


def silent_name_server(cluster, running, monkeypatch):
    silent = running.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    silent.bind(("127.0.0.1", 0))
    dns = f"127.0.0.1:{silent.getsockname()[1]}"
    return Planted(("name-server",), dns, cluster.conninfo(aurora_dns=dns, aurora_dns_timeout=0.2))


def records_that_hold_for_an_hour(cluster, running, monkeypatch):
    slow = running.enter_context(LocalCluster.start(readers=1, dns_ttl=3600))
    return Planted(("long-ttl",), "3600 s", slow.conninfo())


def swapped_aliases(cluster, running, monkeypatch):
    cluster.add_cname("writer.db.example.com", cluster.endpoint("reader"))
    return Planted(("alias",), "swapped", cluster.conninfo(host="writer.db.example.com"))


def stale_record(cluster, running, monkeypatch):
    own = running.enter_context(disturbed())
    running.enter_context(own.faults.dns_stale())
    own.failover("demo-2")
    until(lambda: own.instance("demo-1").state == "available")
    return Planted(("stale-record",), "leads to demo-1, a reader", own.conninfo())


# ---------------------------------------------------------------- what was given, and what was not


def host_from_the_environment(cluster, running, monkeypatch):
    monkeypatch.setenv("PGHOST", cluster.endpoint("writer"))
    return Planted(("environment",), "PGHOST", cluster.conninfo(host=None))


def address_from_the_environment(cluster, running, monkeypatch):
    monkeypatch.setenv("PGHOSTADDR", cluster.instance(cluster.writer).host)
    return Planted(("environment", "instance-hosts"), "unset PGHOSTADDR", cluster.conninfo())


def role_from_the_environment(cluster, running, monkeypatch):
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-only")
    return Planted(("environment",), "PGTARGETSESSIONATTRS", cluster.conninfo())


def fixed_address(cluster, running, monkeypatch):
    return Planted(("fixed-address", "instance-hosts"), "Remove hostaddr", cluster.plain_conninfo())


def misspelt_option(cluster, running, monkeypatch):
    return Planted(("refused",), "did you mean aurora_role", cluster.conninfo(aurora_rol="reader"))


def contradicting_options(cluster, running, monkeypatch):
    return Planted(("refused",), "aurora_role", cluster.conninfo(aurora_instance="demo-1", aurora_role="reader"))


def two_roles(cluster, running, monkeypatch):
    chosen = cluster.conninfo(target_session_attrs="read-write", aurora_role="reader")
    return Planted(("session-attributes",), "Remove target_session_attrs", chosen)


def reader_endpoint_for_writes(cluster, running, monkeypatch):
    return Planted(("reader-endpoint",), "cluster endpoint", cluster.conninfo("reader", aurora_role="writer"))


def lag_bound_of_a_writer(cluster, running, monkeypatch):
    return Planted(("no-effect",), "aurora_max_lag", cluster.conninfo(aurora_max_lag="1"))


def balance_of_libpq(cluster, running, monkeypatch):
    return Planted(("no-effect",), "load_balance_hosts", cluster.conninfo("reader", load_balance_hosts="random"))


def no_monitor(cluster, running, monkeypatch):
    chosen = cluster.conninfo(aurora_monitor="off", aurora_ping_timeout="0.5")
    return Planted(("monitor-off",), "aurora_ping_timeout have no effect", chosen)


def dial_beyond_the_pool(cluster, running, monkeypatch):
    return Planted(("timeouts",), "60 s", cluster.conninfo(connect_timeout=60, aurora_failover_timeout=90))


def dial_beyond_the_connect(cluster, running, monkeypatch):
    chosen = cluster.conninfo(connect_timeout=20, aurora_failover_timeout=15)
    return Planted(("timeouts",), "aurora_failover_timeout", chosen)


def impatient_pool(cluster, running, monkeypatch):
    return Planted(("timeouts",), "checkout from the pool 3 s", cluster.conninfo(), ("--pool-timeout", "3"))


def readable_password_file(cluster, running, monkeypatch):
    path = Path(running.enter_context(tempfile.TemporaryDirectory())) / "pgpass"
    path.write_text("*:*:*:app:app\n")
    path.chmod(0o644)
    return Planted(("password-file", "login"), f"chmod 600 {path}", cluster.conninfo(password=None, passfile=path))


# ---------------------------------------------------------------- reaching and logging in


def wrong_port(cluster, running, monkeypatch):
    return Planted(("unreachable",), "nothing listens", by_address(cluster, port=free_port()))


def hung_server(cluster, running, monkeypatch):
    return Planted(("unreachable",), "sends nothing", f"host=127.0.0.1 port={running.enter_context(listening())}")


def web_server(cluster, running, monkeypatch):
    port = running.enter_context(listening(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    return Planted(("unreachable",), "is no PostgreSQL server", f"host=127.0.0.1 port={port} user=app")


def wrong_password(cluster, running, monkeypatch):
    return Planted(("login",), "rejects the credentials", cluster.conninfo(password="wrong"))


def no_password(cluster, running, monkeypatch):
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    return Planted(("login",), "no password is given", cluster.conninfo(password=None))


def no_database(cluster, running, monkeypatch):
    return Planted(("login",), "no such database", cluster.conninfo(dbname="orders"))


def no_right_to_connect(cluster, running, monkeypatch):
    found = make_database(cluster)
    with connect_as_superuser(cluster) as conn:
        conn.execute(f"REVOKE CONNECT ON DATABASE {found['dbname']} FROM PUBLIC")
    return Planted(("login",), "GRANT CONNECT", cluster.conninfo(**found, **make_role(cluster)))


def no_slot_left(cluster, running, monkeypatch):
    login = make_role(cluster, "ALTER ROLE {role} CONNECTION LIMIT 1")
    running.enter_context(aurora_router.connect(cluster.conninfo("instance:demo-1", **login)))
    return Planted(("login",), "no connection slot is left", cluster.conninfo("instance:demo-1", **login))


def variable_that_is_not_set(cluster, running, monkeypatch):
    monkeypatch.delenv("AURORA_PASSWORD", raising=False)
    return Planted(("credentials",), "AURORA_PASSWORD", cluster.conninfo(password=None, aurora_credentials="env"))


def slow_network(cluster, running, monkeypatch):
    distant = running.enter_context(disturbed())
    running.enter_context(distant.faults.slow("demo-1", latency=0.2))
    return Planted(("slow-dial",), "aurora_ping_timeout", distant.conninfo())


def tls_of_a_server_without_it(cluster, running, monkeypatch):
    return Planted(("tls-missing",), "sslmode=require", cluster.conninfo(sslmode="require"))


# ---------------------------------------------------------------- the cluster


def no_right_to_the_topology(cluster, running, monkeypatch):
    found = make_database(cluster, "REVOKE EXECUTE ON FUNCTION aurora_replica_status FROM PUBLIC")
    return Planted(("topology-rights",), "GRANT EXECUTE", cluster.conninfo(**found))


def no_instance_hosts(cluster, running, monkeypatch):
    return Planted(("instance-hosts",), "aurora_instance_host", by_address(cluster))


def a_forgotten_instance(cluster, running, monkeypatch):
    hosts = ",".join(f"{name}={at}" for name, at in hosts_of(cluster).items() if name != "demo-3")
    return Planted(("instance-hosts",), "Add demo-3=", by_address(cluster, aurora_instance_host=hosts))


def swapped_instances(cluster, running, monkeypatch):
    at = hosts_of(cluster)
    hosts = f"demo-1={at['demo-2']},demo-2={at['demo-1']},demo-3={at['demo-3']}"
    return Planted(("swapped",), "demo-1 leads to demo-2", by_address(cluster, aurora_instance_host=hosts))


def instances_as_a_list(cluster, running, monkeypatch):
    at = cluster.instances
    hosts, ports = ",".join(each.host for each in at), ",".join(str(each.port) for each in at)
    return Planted(
        ("instance-hosts",), "cluster endpoint as the only host", by_address(cluster, host=hosts, port=ports)
    )


def an_instance_behind_a_firewall(cluster, running, monkeypatch):
    parted = running.enter_context(disturbed())
    running.enter_context(parted.faults.partition("demo-2", clients_only=True))
    return Planted(("unreachable",), "demo-2", parted.conninfo(aurora_connect_timeout=1))


def a_standby_as_the_writer(cluster, running, monkeypatch):
    return Planted(("roles",), "only readers are reached", by_address(cluster, "demo-2", **make_plain(cluster)))


def no_reader_where_one_is_required(cluster, running, monkeypatch):
    lone = running.enter_context(LocalCluster.start(readers=0))
    chosen = lone.conninfo("reader", aurora_reader_fallback="error")
    return Planted(("roles", "no-failover-target"), "Add a reader", chosen)


def an_instance_that_is_not_there(cluster, running, monkeypatch):
    return Planted(("unknown-instance",), "demo-9", cluster.conninfo(aurora_instance="demo-9"))


def weight_of_an_instance_that_is_not_there(cluster, running, monkeypatch):
    chosen = cluster.conninfo("reader", aurora_balance="weighted", aurora_weights="demo-2=3,demo-7=1")
    return Planted(("unknown-instance",), "aurora_weights names demo-7", chosen)


def zones_that_are_not_known(cluster, running, monkeypatch):
    return Planted(("zones",), "aurora_zone_map", cluster.conninfo("reader", aurora_zones="eu-test-1a"))


def a_zone_without_an_instance(cluster, running, monkeypatch):
    zones = "demo-1=eu-test-1a,demo-2=eu-test-1b,demo-3=eu-test-1b"
    chosen = cluster.conninfo("reader", aurora_zones="eu-test-1c,eu-test-1b", aurora_zone_map=zones)
    return Planted(("zones",), "eu-test-1c, where no instance is", chosen)


def readers_that_lag(cluster, running, monkeypatch):
    running.enter_context(hold_replay(cluster))
    with connect_as_superuser(cluster) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS lagging (id int)")
    for _ in range(1000):
        with connect_as_superuser(cluster) as conn:
            lags = conn.execute("SELECT replica_lag_in_msec FROM aurora_replica_status()").fetchall()
        if sum(lag is not None and lag > 100 for (lag,) in lags) == 2:
            break
    return Planted(("lag",), "raise aurora_max_lag", cluster.conninfo("reader", aurora_max_lag="0.05"))


def a_clock_that_is_wrong(cluster, running, monkeypatch):
    skewed = running.enter_context(disturbed())
    running.enter_context(skewed.faults.clock_skew("demo-2", 400))
    with connect_as_superuser(skewed) as conn:
        for _ in range(10_000):
            ahead = "SELECT max(last_update_timestamp) > now() + interval '300 s' FROM aurora_replica_status()"
            if conn.execute(ahead).fetchone() == (True,):
                break
    return Planted(("clock",), "demo-2 +", skewed.conninfo())


# ---------------------------------------------------------------- in between


def pooler_with_prepared_statements(cluster, running, monkeypatch):
    needed("pgbouncer")
    there = cluster.instance(cluster.writer)
    pooler = running.enter_context(PgBouncer({"app": (there.host, there.port)}, pool_mode="transaction"))
    chosen = by_address(cluster, host=pooler.host, port=pooler.port, tcp_user_timeout=5000)
    return Planted(("prepared-statements", "instance-hosts"), "prepare_threshold=None", chosen)


def pooler_without_a_limit_for_silence(cluster, running, monkeypatch):
    needed("pgbouncer")
    there = cluster.instance(cluster.writer)
    pooler = running.enter_context(PgBouncer({"app": (there.host, there.port)}, pool_mode="session"))
    chosen = by_address(cluster, host=pooler.host, port=pooler.port)
    return Planted(("hang-detection", "instance-hosts"), "tcp_user_timeout", chosen, ("--prepare-threshold", "none"))


def load_balancer(cluster, running, monkeypatch):
    needed("haproxy")
    balancer = running.enter_context(HAProxy([(each.host, each.port) for each in cluster.instances]))
    chosen = by_address(cluster, host=balancer.host, port=balancer.port, tcp_user_timeout=5000)
    return Planted(("load-balancer", "instance-hosts"), "different servers", chosen)


# ---------------------------------------------------------------- capacity and commits


def pools_that_are_too_large(cluster, running, monkeypatch):
    words = ("--pool-size", "50", "--processes", "40")
    return Planted(("pool-size",), "40 processes with 50 connections", cluster.conninfo(), words)


def pools_beyond_the_limit_of_the_role(cluster, running, monkeypatch):
    login = make_role(cluster, "ALTER ROLE {role} CONNECTION LIMIT 20")
    return Planted(("pool-size",), "limit of the role", cluster.conninfo(**login), ("--pool-size", "20"))


def idle_sessions_are_ended(cluster, running, monkeypatch):
    login = make_role(cluster, "ALTER ROLE {role} SET idle_session_timeout = '10s'")
    return Planted(("idle-limit",), "10s", cluster.conninfo(**login))


def no_witness_table(cluster, running, monkeypatch):
    chosen = cluster.conninfo(**make_database(cluster), aurora_outcome="witness")
    return Planted(("witness",), "aurora-router outcome install URL", chosen)


def no_right_to_the_witness_table(cluster, running, monkeypatch):
    from aurora_router.flow import commit_sql

    found = make_database(cluster, *commit_sql.INSTALL.split(";"), "REVOKE INSERT ON aurora_router.witness FROM PUBLIC")
    return Planted(("witness",), "GRANT SELECT, INSERT", cluster.conninfo(**found))


def read_only_by_the_role(cluster, running, monkeypatch):
    login = make_role(cluster, "ALTER ROLE {role} SET default_transaction_read_only = on")
    return Planted(("read-only",), "RESET default_transaction_read_only", cluster.conninfo(**login))


def commits_that_can_be_lost(cluster, running, monkeypatch):
    return Planted(("lossy-commits",), "synchronous_commit", cluster.conninfo(options="-csynchronous_commit=off"))


PLANTED = (
    misspelt_host, silent_name_server, records_that_hold_for_an_hour, swapped_aliases, stale_record,
    host_from_the_environment, address_from_the_environment, role_from_the_environment, fixed_address, misspelt_option,
    contradicting_options, two_roles, reader_endpoint_for_writes, lag_bound_of_a_writer, balance_of_libpq,
    no_monitor, dial_beyond_the_pool, dial_beyond_the_connect, impatient_pool, readable_password_file, wrong_port,
    hung_server, web_server, wrong_password, no_password, no_database, no_right_to_connect, no_slot_left,
    variable_that_is_not_set, slow_network, tls_of_a_server_without_it, no_right_to_the_topology, no_instance_hosts,
    a_forgotten_instance, swapped_instances, instances_as_a_list, an_instance_behind_a_firewall,
    a_standby_as_the_writer, no_reader_where_one_is_required, an_instance_that_is_not_there,
    weight_of_an_instance_that_is_not_there, zones_that_are_not_known, a_zone_without_an_instance, readers_that_lag,
    a_clock_that_is_wrong, pooler_with_prepared_statements, pooler_without_a_limit_for_silence, load_balancer,
    pools_that_are_too_large, pools_beyond_the_limit_of_the_role, idle_sessions_are_ended, no_witness_table,
    no_right_to_the_witness_table, read_only_by_the_role, commits_that_can_be_lost,
)  # fmt: skip


@pytest.mark.parametrize("plant", PLANTED, ids=lambda each: each.__name__)
def test_what_is_planted_is_named(plant, cluster, examine, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    with contextlib.ExitStack() as running:
        planted = plant(cluster, running, monkeypatch)
        status, found = examine(planted.conninfo, *planted.more)
    assert set(found) == set(planted.codes), found
    first = found[planted.codes[0]]
    assert planted.words in " ".join(first.values())
    assert all(first[part] for part in ("what", "meaning", "remedy"))
    assert status == (2 if any(each["level"] == "error" for each in found.values()) else 1)
