"""False alarms of the default profile: nothing is wrong, but much is odd. ``python -m benchmarks.alarms --minutes 10``.

All at once, for so many minutes, on one cluster whose machine is loaded to 100 % by the writer's backends:

* *loaded*: a client of the writer under that load; *long*: one whose statements take 30 s, asleep or busy;
* *stopped*: a client of a reader whose server is stopped (SIGSTOP) for half a second, again and again;
* *starved*: a client that is itself stopped for one to four seconds; *gil* and *gil3*: one with a thread in a C call
  that holds the GIL for one or three seconds; *gc*: one that collects a million cycles at a time; *loop*: one whose
  event loop stands still for one to four seconds;
* *postmaster*: a client of a server whose postmaster alone is stopped for four seconds, so that new connections get no
  answer; *reset*: one with every fourth handshake reset; *pooler*: one behind a proxy all of whose slots are taken.

An alarm is a statement that fails, an instance that is declared hung, or a connection that is cut or made stale.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.figures import Figure, report
from benchmarks.relay import Relay
from benchmarks.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster import LocalCluster

MINUTES = 10.0
STOPPED = 0.5  # seconds
LONGEST = 0.9  # of a stop that counts as one of half a second: this process is starved, too
LOADERS = 2 * (os.cpu_count() or 1)
LATE = 120.0  # seconds that a client may take beyond its time
KINDS = {
    "loaded": "server under full load",
    "long": "statements of 30 s",
    "stopped": "server stopped for 0.5 s",
    "starved": "client stopped for 1..4 s",
    "gil": "client's GIL held by a C call",
    "gil3": "client's GIL held for 3 s",
    "gc": "client's pauses of the garbage collector",
    "loop": "client's event loop blocked for 1..4 s",
    "postmaster": "server's postmaster stopped for 4 s",
    "reset": "handshakes reset",
    "pooler": "proxy with busy slots",
}
STALLED = 4.0  # seconds for which a postmaster stands still
_LOAD = """
import sys, time, psycopg
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        connection.execute("SELECT count(*) FROM generate_series(1, 3000000)")
"""


def measure(setting: Setting) -> Iterator[Figure]:
    """One figure for each oddity: the alarms, with what the monitor made of it."""
    yield from played(setting.cluster, 60.0 if setting.quick else 60.0 * MINUTES)


def played(cluster: LocalCluster, seconds: float) -> Iterator[Figure]:
    """Let all clients work for so long, while what is odd happens."""
    first, second = cluster.readers[:2]
    where = {"loaded": "writer", "long": "writer", "stopped": f"instance:{first}"}
    conninfos = {kind: cluster.conninfo(where.get(kind, f"instance:{second}")) for kind in KINDS}
    stalled = cluster.add_reader().name
    conninfos["postmaster"] = cluster.conninfo(f"instance:{stalled}")
    place = cluster.instance(second)
    with Relay(place.host, place.port, slots=2) as busy, Relay(place.host, place.port, resets=0.25) as rude:
        places = {each.name: f"{each.host}:{each.port}" for each in cluster.instances}
        places[second] = f"{rude.host}:{rude.port}"
        hosts = ",".join(f"{name}={place}" for name, place in places.items())
        conninfos["reset"] = cluster.conninfo(f"instance:{second}", aurora_instance_host=hosts)
        conninfos["pooler"] = cluster.conninfo(host=busy.host, port=busy.port, aurora_role="any")
        clients: dict[str, subprocess.Popen[str]] = {}
        load: list[subprocess.Popen[str]] = []
        stall = threading.Thread(target=_stall, args=[cluster.instance(stalled).pid or 0, seconds])
        try:
            for kind in KINDS:
                clients[kind] = _run("-m", "benchmarks.alarms_child", kind, conninfos[kind], str(seconds))
                _await(kind, clients[kind])
            load += [_run("-c", _LOAD, cluster.plain_conninfo(), str(seconds)) for _ in range(LOADERS)]
            stall.start()
            stops, too_long = _disturb(cluster, first, clients["starved"], seconds)
            for kind, client in clients.items():
                out, _ = client.communicate(timeout=LATE)
                yield _figure(kind, json.loads(out.splitlines()[-1]), seconds)
        finally:
            if stall.ident is not None:
                stall.join()
            for each in [*clients.values(), *load]:
                each.kill()
                each.communicate()
            cluster.remove(stalled)
    yield Figure.unbounded("stops of the server", stops, "", f"{too_long} more took longer than {LONGEST:g} s")


def _figure(kind: str, reported: dict[str, Any], seconds: float) -> Figure:
    alarms = reported.get("InstanceFailed", 0) + reported.get("ConnectionsCut", 0) + len(reported["errors"])
    about = (
        f"{reported.get('statements', 0)} statements, {reported.get('HangSuspected', 0)} suspicions, "
        f"{reported.get('HangRefuted', 0)} refuted, found itself starved {reported.get('ProcessStalled', 0)} times"
    )
    return Figure.at_most(f"false alarms in {seconds / 60:g} min, {KINDS[kind]}", alarms, "", 0, about)


def _await(kind: str, client: subprocess.Popen[str]) -> None:
    assert client.stdout is not None
    if client.stdout.readline() != "ready\n":
        raise RuntimeError(f"the client {kind!r} did not come up: see what it wrote to its standard error")


def _run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)


def _disturb(cluster: LocalCluster, reader: str, client: subprocess.Popen[str], seconds: float) -> tuple[int, int]:
    """Stop the reader's server and the client, again and again; how often the server was stopped, and too long."""
    rng, until = random.Random(), time.monotonic() + seconds
    lengths: list[float] = []
    while time.monotonic() < until:
        lengths.append(_stopped(_tree(cluster.instance(reader).pid or 0), STOPPED))
        time.sleep(rng.uniform(0.5, 3.0))
        if time.monotonic() < until - 5.0:
            _stopped([client.pid], rng.uniform(1.0, 4.0))
    too_long = sum(each > LONGEST for each in lengths)
    return len(lengths) - too_long, too_long


def _stall(postmaster: int, seconds: float) -> None:
    """Stop a postmaster, and none of its children, again and again."""
    until = time.monotonic() + seconds
    while time.monotonic() + STALLED < until:
        _stopped([postmaster], STALLED)
        time.sleep(2.0)


def _stopped(pids: list[int], seconds: float) -> float:
    """Stop processes for a while; returns for how long it was in the end."""
    began = time.monotonic()
    _send_signal(pids, signal.SIGSTOP)
    time.sleep(seconds)
    _send_signal(pids, signal.SIGCONT)
    return time.monotonic() - began


def _send_signal(pids: list[int], what: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, what)
        except ProcessLookupError:  # a backend that has ended
            continue


def _tree(postmaster: int) -> list[int]:
    """A postmaster and its children."""
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [postmaster, *map(int, children)]


def main() -> int:
    """Measure; 1: there was a false alarm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    setting = Setting()
    try:
        figures = list(played(setting.cluster, 60.0 * options.minutes))
    finally:
        setting.close()
    return report(figures, options.json)


if __name__ == "__main__":
    sys.exit(main())
