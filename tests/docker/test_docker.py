"""A cluster of separate hosts: every part a container, faults by docker itself."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

import aurora_router
from tests.docker.ledger import TABLE, InThread

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(3600)]

TIMES = int(os.environ.get("AURORA_DOCKER_FAILOVERS", "1"))
ENOUGH = 20  # commits after a fault


def server(connection):
    return connection.execute("select aurora_db_instance_identifier()").fetchone()[0]


@pytest.fixture
def cluster(aurora_cluster):
    return aurora_cluster


def asked_inside(stack, conninfo, query):
    """What a query answers to the client in the container."""
    words = "import sys, aurora_router; print(aurora_router.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])"
    return stack.inside("client", "python3", "-c", words, conninfo, query).strip()


def test_names_lead_to_instances_from_outside_and_inside(stack, cluster):
    writer = cluster.writer
    for target, same in (("writer", True), ("reader", False)):
        with aurora_router.connect(cluster.conninfo(target)) as connection:
            assert (server(connection) == writer) is same
        found = asked_inside(stack, cluster.inner_conninfo(target), "select aurora_db_instance_identifier()")
        assert (found == writer) is same


def test_an_address_leads_to_the_whole_cluster(cluster):
    hosts = {each.name: each.host for each in cluster.instances}
    places = ",".join(f"{name}={host}:{cluster.port}" for name, host in hosts.items())
    for host in hosts.values():
        given = cluster.conninfo(host=host, aurora_dns=None, aurora_role="writer", aurora_instance_host=places)
        with aurora_router.connect(given) as connection:
            assert server(connection) == cluster.writer


def test_what_is_written_outside_is_read_inside(stack, cluster):
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute("create table crossing (i int)")
        connection.execute("insert into crossing select generate_series(1, 1000)")

    def read():
        try:
            return asked_inside(stack, cluster.inner_conninfo("reader"), "select count(*) from crossing")
        except RuntimeError:
            return None  # not replayed there yet

    cluster.eventually(lambda: read() == "1000")


class Inside:
    """The second client: in a container, by its resolver."""

    def __init__(self, stack, conninfo, client):
        self._stack, self._conninfo, self._client, self._stop = stack, conninfo, client, f"/tmp/{client}.stop"

    def __enter__(self):
        words = ["docker", "exec", "-i", self._stack.container("client"), "python3", "-"]
        words += [self._conninfo, self._client, self._stop]
        with Path(__file__).with_name("ledger.py").open("rb") as program:
            self._process = subprocess.Popen(words, stdin=program, stdout=subprocess.PIPE)
        return self

    def __exit__(self, *_exc):
        self._stack.inside("client", "touch", self._stop)
        output, _ = self._process.communicate(timeout=300)
        self.facts = json.loads(output)


def judge(cluster, clients):
    """What the ledger holds, against what was reported to its writers."""
    result = {"acked": 0, "lost": 0, "doubled": 0, "unknown": 0, "outage": 0.0}
    with aurora_router.connect(cluster.conninfo()) as connection:
        for client, facts in clients.items():
            assert facts["errors"] == []
            query = "select entry, count(*) from ledger where client = %s group by 1"
            held = dict(connection.execute(query, (client,)).fetchall())
            result["acked"] += len(facts["acked"])
            result["lost"] += sum(1 for entry in facts["acked"] if entry not in held)
            result["doubled"] += sum(1 for times in held.values() if times > 1)
            result["unknown"] += len(facts["unknown"])
            result["outage"] = max(result["outage"], facts["longest"])
    return result


def through(stack, cluster, name, fault, wanted):
    """Write from outside and inside while `fault` happens, until `wanted` holds and commits go on; then heal."""
    began = time.monotonic()
    with aurora_router.connect(cluster.conninfo(), autocommit=True) as connection:
        connection.execute(TABLE)
    outer, inner = f"{name}-outer-{time.time_ns()}", f"{name}-inner-{time.time_ns()}"
    heals = []
    try:
        with Inside(stack, cluster.inner_conninfo(), inner) as inside, InThread(cluster.conninfo(), outer) as outside:
            cluster.eventually(lambda: len(outside.acked) >= ENOUGH and count(cluster, inner) >= ENOUGH)
            heals += fault()
            cluster.eventually(wanted)
            had, has = len(outside.acked), count(cluster, inner)
            cluster.eventually(lambda: len(outside.acked) >= had + ENOUGH and count(cluster, inner) >= has + ENOUGH)
    finally:
        for heal in heals:
            heal()
    cluster.eventually(cluster.settled)
    found = judge(cluster, {outer: outside.facts(), inner: inside.facts})
    return {**found, "seconds": time.monotonic() - began}


def count(cluster, client):
    try:
        with aurora_router.connect(cluster.conninfo(), connect_timeout=5) as connection:
            return connection.execute("select count(*) from ledger where client = %s", (client,)).fetchone()[0]
    except psycopg.Error:
        return 0


@pytest.mark.parametrize("fault", ["kill", "pause", "disconnect", "blackhole"])
@pytest.mark.parametrize("turn", range(TIMES))
def test_a_lost_writer_costs_no_commit_and_doubles_none(stack, cluster, results, fault, turn):
    writer = cluster.writer
    found = through(
        stack, cluster, fault, lambda: [getattr(stack, fault)(stack.service_of(writer))],
        lambda: cluster.writer not in {None, writer},
    )  # fmt: skip
    results.setdefault(f"writer: {fault}", []).append(found)
    assert (found["lost"], found["doubled"], found["unknown"]) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["kill", "pause", "disconnect"])
def test_a_lost_node_costs_no_commit(stack, cluster, results, fault):
    found = through(stack, cluster, "node", lambda: [getattr(stack, fault)("node-3")], lambda: True)
    results.setdefault(f"node: {fault}", []).append(found)
    assert (found["lost"], found["doubled"], found["unknown"]) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["kill", "pause", "disconnect"])
def test_a_lost_zone_costs_a_failover_and_no_commit(stack, cluster, results, fault):
    writer = cluster.writer
    zone = cluster.instance(writer).zone
    found = through(
        stack, cluster, "zone", lambda: [getattr(stack, fault)(service) for service in stack.zone(zone)],
        lambda: cluster.writer not in {None, writer},
    )  # fmt: skip
    results.setdefault(f"zone: {fault}", []).append(found)
    assert (found["lost"], found["doubled"], found["unknown"]) == (0, 0, 0)
