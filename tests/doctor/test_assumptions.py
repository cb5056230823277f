"""Assumptions about Aurora: what evidence says of each, and what the driver does where a cluster is otherwise."""

from __future__ import annotations

import json
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest

import aurora_router
from aurora_router.cli.main import main
from aurora_router.doctor import assumptions
from aurora_router.doctor.assumptions import ASSUMPTIONS, Evidence, Look, Verdict, judge_all
from aurora_router.doctor.facts import Certificate, Facts, Name, Server, Session, Topology, Wire
from aurora_router.doctor.gathering import evidence as evidence_module
from aurora_router.model.observation import Row
from tests.doctor.conftest import wait_for_readers
from tests.doctor.test_checks import HOST, NAMES, NOW, READERS, setup
from tests.doctor.test_planted import by_address, needed
from tests.poolers.poolers import PgBouncer
from tests.runtime.test_inspection import until
from tests.superuser import connect_as_superuser

DOMAIN = "c9ak.eu-west-1.rds.amazonaws.com"
CERTIFICATE = Certificate((*NAMES, f"demo-2.{DOMAIN}"), 0.0, NOW + 1e9)


def server(id_, session=None, **more):
    found = {"host": f"{id_}.{DOMAIN}", "wire": Wire.TLS, "certificate": CERTIFICATE, "instance": id_, **more}
    return Server(name=id_, session=session, **found)


def writer(**more):
    return Session(**{"instance": "demo-1", "system": "7", "reported_standby": False, **more})


def reader(**more):
    known = {"instance": "demo-2", "standby": True, "system": "7", "reported_standby": True, "write_refusal": "25006"}
    return Session(**{**known, **more})


def rows(token=100, at=NOW, behind=2, lag=0.01, age=0.5):
    return (
        Row("demo-1", writer=True, token=token, updated=None, age=None),
        Row("demo-2", lag=lag, token=token - behind, updated=at, age=age),
    )


def looks(**more):
    """What both instances answer at one moment."""
    return (Look("demo-1", False, NOW, rows(**more)), Look("demo-2", True, NOW, rows(**more)))


def evidence(*instances, at=None, **more):
    """A cluster that is as it is believed to be, with what is changed."""
    facts = Facts(
        now=NOW,
        setup=setup(),
        names=(Name(host=HOST, addresses=("10.0.0.1",), ttl=5),),
        given=(Server(name=HOST, host=HOST, session=writer()),),
        topology=Topology(source="aurora", is_aurora=True, members=READERS),
        instances=instances or (server("demo-1", writer()), server("demo-2", reader())),
    )
    seen = (looks(token=100), looks(token=140, at=NOW + 2.0)) if at is None else at
    return Evidence(replace(facts, **more), seen)


def pair(one, two=None):
    return evidence(server("demo-1", one), server("demo-2", two or reader()))


def changed(look, of="demo-2", **values):
    return look._replace(rows=tuple(replace(row, **values) if row.id == of else row for row in look.rows))


def both(change):
    return evidence(at=(tuple(map(change, looks())), tuple(map(change, looks(token=140, at=NOW + 2.0)))))


FALSE = {
    "standby-report": pair(writer(), reader(reported_standby=False)),
    "process-id": pair(writer(pooled=True)),
    "direct-names": pair(writer(direct=False)),
    "read-only": pair(writer(), reader(write_refusal=None)),
    "one-system": pair(writer(), reader(system="8")),
    "own-row": both(lambda look: look._replace(rows=tuple(row for row in look.rows if row.id != look.instance))),
    "one-writer": both(lambda look: changed(look, writer=True)),
    "own-mark": both(lambda look: look._replace(standby=not look.standby)),
    "agreement": evidence(
        at=((looks()[0], changed(changed(looks()[1], writer=True), of="demo-1", writer=False)),),
    ),
    "ids-are-names": pair(writer(instance="demo-2")),
    "durable-lsn": evidence(at=(looks(token=140), looks(token=100, at=NOW + 2.0))),
    "writer-leads": both(lambda look: changed(look, token=1000)),
    "row-age": both(lambda look: changed(look, age=8.0)),
    "row-updates": evidence(at=(looks(), looks(token=140))),
    "lag": both(lambda look: changed(look, lag=None)),
    "certificate-names": evidence(
        server("demo-1", writer(), certificate=Certificate((f"demo-1.{DOMAIN}",), 0.0, NOW)), server("demo-2", reader())
    ),
    "endpoint-ttl": evidence(names=(Name(host=HOST, addresses=("10.0.0.1",), ttl=60),)),
    "endpoint-roles": evidence(given=(Server(name=HOST, host=HOST, session=reader()),)),
}


def verdicts(found):
    return {each.code: judgement.verdict for each, judgement in judge_all(found)}


def test_a_cluster_as_it_is_believed_to_be():
    expected = {each.code: Verdict.TRUE if each.judge else Verdict.UNKNOWN for each in ASSUMPTIONS}
    assert verdicts(evidence()) == expected


@pytest.mark.parametrize("code", FALSE)
def test_each_may_be_false(code):
    assert verdicts(FALSE[code])[code] is Verdict.FALSE


def test_every_judgement_was_seen_to_be_false():
    assert set(FALSE) == {each.code for each in ASSUMPTIONS if each.judge is not None}


def test_nothing_is_said_without_evidence():
    nothing = Evidence(Facts(now=NOW, setup=setup()))
    assert set(verdicts(nothing).values()) == {Verdict.UNKNOWN}


def test_what_has_no_judgement_says_what_it_needs():
    assert all(each.needs.startswith("it needs ") for each in ASSUMPTIONS if each.judge is None)
    assert all(each.otherwise.endswith(".") and each.belief.endswith(".") for each in ASSUMPTIONS)


# ---------------------------------------------------------------- on a real cluster

ORIGINAL = "pg_catalog.aurora_replica_status"
OWN = "pg_catalog.aurora_db_instance_identifier()"


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose topology function can be replaced."""
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=1) as started:
        with connect_as_superuser(started) as conn:
            conn.execute("SET allow_system_table_mods = on")
            conn.execute(f"ALTER FUNCTION {ORIGINAL}() RENAME TO true_replica_status")
        with answering(started, real()):
            yield started


@contextmanager
def answering(cluster, body):
    """Let the topology function answer with the rows of a query, until the end of the block."""

    def put(body):
        with connect_as_superuser(cluster) as conn:
            conn.execute("SET allow_system_table_mods = on")
            asked = "SELECT pg_get_function_arguments('pg_catalog.true_replica_status'::regproc)"
            (columns,) = conn.execute(asked).fetchone()
            conn.execute(
                f"CREATE OR REPLACE FUNCTION {ORIGINAL}({columns}) RETURNS SETOF record LANGUAGE sql "
                f"SECURITY DEFINER SET search_path = pg_catalog AS $body$ {body} $body$"
            )
        wait_for_readers(cluster)

    put(body)
    try:
        yield
    finally:
        put(real())


def real(
    where="true", session="s.session_id", lsn="s.durable_lsn", lag="s.replica_lag_in_msec", at="s.last_update_timestamp"
):
    """A query for the true rows, with some columns replaced."""
    return (
        f"SELECT s.server_id, {session}, {lsn}, s.highest_lsn_rcvd, s.current_read_lsn, s.cur_replay_latency_in_usec, "
        f"s.active_txns, s.is_current, s.last_transport_error, s.last_error_timestamp, {at}, "
        f"s.feedback_xmin, s.feedback_epoch, {lag}, s.log_stream_speed_in_kib_per_second, "
        "s.log_buffer_sequence_number, s.oldest_read_view_trx_id, s.oldest_read_view_lsn, s.pending_read_ios, "
        f"s.read_ios, s.iops, s.cpu FROM pg_catalog.true_replica_status() s WHERE {where}"
    )


IS_READER = "pg_catalog.pg_is_in_recovery()"
SWAPPED = "CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN 'x' ELSE 'MASTER_SESSION_ID' END"
SWAPPED_ON_READERS = f"CASE WHEN {IS_READER} THEN {SWAPPED} ELSE s.session_id END"
FALLING = "(9223372036854775000 - (extract(epoch from clock_timestamp()) * 1000000)::bigint)"
OTHERWISE = {
    "own-row": real(f"s.server_id <> {OWN}"),
    "one-writer": real(session="'MASTER_SESSION_ID'::text"),
    "own-mark": real(session=SWAPPED),
    "agreement": real(session=SWAPPED_ON_READERS),
    "durable-lsn": real(lsn=FALLING),
    "writer-leads": real(lsn="CASE WHEN s.session_id = 'MASTER_SESSION_ID' THEN s.durable_lsn ELSE 9e17::bigint END"),
    "row-age": real(at="s.last_update_timestamp - interval '60 s'"),
    "row-updates": real(at="CASE WHEN s.last_update_timestamp IS NOT NULL THEN now()::date::timestamptz END"),
    "lag": real(lag="NULL::bigint"),
}


def report(conninfo, capsys):
    capsys.readouterr()
    status = main(["doctor", "--assumptions", "--json", conninfo])
    return status, json.loads(capsys.readouterr().out)


def found_in(printed):
    return {each["code"]: each["verdict"] for each in printed["assumptions"]}


def no_wrong_instance(cluster, **more):
    """Connects lead to the instance of the role that is asked for, whatever the rows say."""
    for target, standby in (("writer", False), ("reader", True)) * 3:
        with aurora_router.connect(cluster.conninfo(target, **more), autocommit=True) as conn:
            assert conn.execute(f"SELECT {IS_READER}").fetchone() == (standby,), target


@pytest.mark.cluster
@pytest.mark.one_python
def test_the_reference_cluster_is_as_aurora_is_believed_to_be(cluster, capsys):
    status, printed = report(cluster.conninfo(), capsys)
    false = [each for each in printed["assumptions"] if each["verdict"] == "false"]
    assert (status, false) == (0, [])
    known = {code for code, verdict in found_in(printed).items() if verdict == "true"}
    checked = {each.code for each in ASSUMPTIONS if each.judge is not None}
    assert checked - known <= {"certificate-names"}, "it is without TLS"
    text = json.dumps(printed)
    for private in ("demo", cluster.domain, *(each.host for each in cluster.instances)):
        assert private not in text


@pytest.mark.cluster
@pytest.mark.one_python
def test_people_are_told_what_the_driver_does_where_one_is_false(cluster, capsys):
    with answering(cluster, OTHERWISE["lag"]):
        assert main(["doctor", "--assumptions", cluster.conninfo()]) == 1
    shown = capsys.readouterr().out
    (assumption,) = [each for each in ASSUMPTIONS if each.code == "lag"]
    assert f"false here: {assumption.belief}" in shown
    assert assumption.otherwise in shown
    assert "standby-report" in shown


@pytest.mark.cluster
@pytest.mark.one_python
@pytest.mark.parametrize("code", OTHERWISE)
def test_where_rows_are_otherwise_the_report_says_so_and_no_instance_is_wrong(cluster, code, capsys, events):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as before, answering(cluster, OTHERWISE[code]):
        status, printed = report(cluster.conninfo(), capsys)
        assert (status, found_in(printed)[code]) == (1, "false")
        no_wrong_instance(cluster)
        assert before.execute(f"SELECT {IS_READER}").fetchone() == (False,)
    assert not [event for event in events if type(event).__name__ == "ConnectionsCut"]


@pytest.mark.cluster
@pytest.mark.one_python
def test_where_names_and_sessions_are_otherwise(cluster, capsys):
    """Behind poolers another backend answers, the port is another one, and reports of a role may be stale."""
    needed("pgbouncer")
    with ExitStack() as running:
        poolers = {
            each.name: running.enter_context(PgBouncer({"app": (each.host, each.port)}, pool_mode="transaction"))
            for each in cluster.instances
        }
        hosts = {name: f"127.0.0.1:{each.port}" for name, each in poolers.items()}
        given = {"host": "127.0.0.1", "port": poolers[cluster.writer].port}
        known = ",".join(f"{name}={at}" for name, at in hosts.items())
        status, printed = report(by_address(cluster, **given, aurora_instance_host=known), capsys)
        assert (status, found_in(printed)["process-id"]) == (1, "false")
        swapped = f"demo-1={hosts['demo-2']},demo-2={hosts['demo-1']}"
        conninfo = by_address(cluster, **given, aurora_instance_host=swapped)
        status, printed = report(conninfo, capsys)
        assert (status, found_in(printed)["ids-are-names"]) == (1, "false")
        for role, standby in (("writer", False), ("reader", True)):
            refused = suppress(aurora_router.NoInstanceAvailable)  # which is right where the hosts are wrong
            chosen = {"aurora_role": role, "prepare_threshold": None, "aurora_failover_timeout": 2}
            with refused, aurora_router.connect(conninfo, **chosen) as conn:
                assert conn.execute(f"SELECT {IS_READER}").fetchone() == (standby,)


@pytest.mark.cluster
@pytest.mark.one_python
def test_where_records_are_otherwise(capsys):
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=1, faults=True, dns_ttl=60) as slow, slow.faults.dns_stale():
        slow.failover("demo-2")
        until(lambda: slow.instance("demo-1").state == "available")
        status, printed = report(slow.conninfo(), capsys)
        assert status == 1
        assert found_in(printed)["endpoint-ttl"] == "false"
        assert found_in(printed)["endpoint-roles"] == "false"
        assert found_in(printed)["direct-names"] == "false", "there is a relay in front of the instances"
        no_wrong_instance(slow)


@pytest.mark.cluster
def test_a_cluster_that_cannot_be_asked(capsys):
    assert main(["doctor", "--assumptions", "host=127.0.0.1 port=1 user=x"]) == 2
    assert "says why" in capsys.readouterr().err


def test_looks_are_farther_apart_than_rows_may_be_old():
    assert evidence_module.APART_SECONDS > assumptions.ROW_AGE_SECONDS
