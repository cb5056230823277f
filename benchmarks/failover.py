"""How long a lost writer costs a client: killed, or frozen; ours beside psycopg's own list of hosts, in one run.

Every contender runs the same loop: write a row, autocommit; on an error close, connect again, go on. They all run at
once, each in a process of its own, with an independent probe beside them that asks each instance by itself, tightly,
for a write on a connection that it has: what a client could have had at the earliest. All read one clock, the
machine's.

* *kill*: every process of the writer gets SIGKILL. Figure: first ack on the new writer minus the probe's.
* *freeze*: every process of the writer is stopped; nothing is answered, nothing is reset. Figure: the error that the
  loop sees (*noticed*) minus the freeze.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster import LocalCluster
    from benchmarks.setting import Setting

ROUNDS = {"kill": 50, "freeze": 10}
PATIENCE = 40.0  # seconds after which a contender counts as one that never noticed

LOOP = """
import json, sys, time, psycopg
kind, conninfo = sys.argv[1:]
if kind == "psycopg":
    connect = lambda: psycopg.connect(conninfo, autocommit=True)
else:
    import aurora_router
    connect = lambda: aurora_router.connect(conninfo, autocommit=True)
where = "SELECT pg_catalog.aurora_db_instance_identifier()"
conn = connect()
first = conn.execute(where).fetchone()[0]
print(json.dumps({"ready": first}), flush=True)
noticed = None
while True:
    try:
        conn.execute("INSERT INTO failover_ledger VALUES (1)")
        if noticed is not None and (instance := conn.execute(where).fetchone()[0]) != first:
            print(json.dumps({"noticed": noticed, "acked": time.monotonic(), "instance": instance}), flush=True)
            break
    except psycopg.Error:
        noticed = noticed or time.monotonic()
        conn.close()
        try:
            conn = connect()
        except psycopg.Error:
            time.sleep(0.002)
conn.close()
"""

PROBE = """
import json, sys, time, psycopg
first, *places = sys.argv[1:]
def probe(place):
    try:
        with psycopg.connect(place, autocommit=True) as conn:
            while True:
                try:
                    conn.execute("INSERT INTO failover_ledger VALUES (2)")
                    return time.monotonic()
                except psycopg.errors.ReadOnlySqlTransaction:
                    time.sleep(0.001)
    except psycopg.Error:
        return None
import threading
found = []
def work(place):
    while not found:
        if (at := probe(place)) is not None:
            found.append(at)
        time.sleep(0.002)
for place in places:
    threading.Thread(target=work, args=(place,), daemon=True).start()
print(json.dumps({"ready": first}), flush=True)
while not found:
    time.sleep(0.001)
print(json.dumps({"acked": found[0]}), flush=True)
"""


class Contender:
    """One process that runs a loop, and what it tells."""

    def __init__(self, name: str, code: str, *arguments: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.ready = self._line()

    def told(self, until: float) -> dict[str, Any] | None:
        """What it found; None: nothing until then."""
        try:
            out, _ = self._process.communicate(timeout=max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        return json.loads(out) if out else None

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def contenders(cluster: LocalCluster) -> dict[str, tuple[str, str]]:
    """Name -> kind of loop and conninfo."""
    hosts = ",".join(each.host for each in cluster.instances)
    several = f"host={hosts} port={cluster.port} user={cluster.user} password={cluster.password}"
    return {
        "ours": ("ours", cluster.conninfo()),
        "ours, aggressive": ("ours", cluster.conninfo(aurora_profile="aggressive")),
        "psycopg, list of hosts": (
            "psycopg",
            f"{several} dbname={cluster.dbname} target_session_attrs=read-write connect_timeout=2",
        ),
    }


def failover(cluster: LocalCluster, fault: str) -> dict[str, dict[str, float]]:
    """One fault; name -> seconds from it to what each contender told."""
    old = cluster.writer
    assert old is not None
    places = [cluster.plain_conninfo(f"instance:{each.name}") for each in cluster.instances if each.name != old]
    running = [Contender(name, LOOP, *how) for name, how in contenders(cluster).items()]
    running.append(Contender("probe", PROBE, old, *places))
    try:
        time.sleep(0.2)
        getattr(cluster, fault)(old)
        began = time.monotonic()
        told = {each.name: each.told(began + PATIENCE) for each in running}
    finally:
        for each in running:
            each.end()
    if fault == "freeze":
        cluster.thaw(old)
    settled(cluster)
    return {
        name: {key: value - began for key, value in found.items() if isinstance(value, float)}
        for name, found in told.items()
        if found is not None
    }


def settled(cluster: LocalCluster) -> None:
    """Wait until every instance is available again."""
    deadline = time.monotonic() + 60.0
    while any(each.state != "available" for each in cluster.instances):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the cluster did not recover: {cluster.instances}")
        time.sleep(0.1)


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures of both faults."""
    import psycopg

    cluster = setting.cluster
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as conn:
        conn.execute("CREATE TABLE IF NOT EXISTS failover_ledger (n int)")
    for fault, count in ROUNDS.items():
        rounds = [failover(cluster, fault) for _ in range(setting.rounds(count))]
        for name in contenders(cluster):
            yield from _figures(fault, name, rounds)


def _figures(fault: str, name: str, rounds: list[dict[str, dict[str, float]]]) -> Iterator[Figure]:
    there = [each for each in rounds if name in each and "probe" in each]
    told = f"failover, {fault}, {name}"
    yield Figure.told(f"{told}: rounds that ended within {PATIENCE:g} s", len(there), f"of {len(rounds)}")
    if not there:
        return
    late = sorted((each[name]["acked"] - each["probe"]["acked"]) * 1e3 for each in there)
    noticed = sorted(each[name]["noticed"] for each in there)
    bounds = {"ours": (20.0, 150.0), "ours, aggressive": (20.0, 150.0)}.get(name)
    if fault == "kill" and bounds is not None:
        yield Figure.at_most(f"{told}: ack after the probe, median", statistics.median(late), "ms", bounds[0])
        yield Figure.at_most(f"{told}: ack after the probe, p99", late[int(0.99 * (len(late) - 1))], "ms", bounds[1])
    else:
        yield Figure.told(f"{told}: ack after the probe, median", statistics.median(late), "ms")
    if fault == "freeze":
        longest, limit = f"{told}: noticed after the freeze, longest", {"ours": 2.5, "ours, aggressive": 0.6}.get(name)
        if limit is None:
            yield Figure.told(longest, noticed[-1], "s", "the cluster kills a frozen writer when it replaces it")
        else:
            yield Figure.at_most(longest, noticed[-1], "s", limit)
