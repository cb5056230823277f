"""The contenders of `failover`, and the processes in which they run."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import incumbent

if TYPE_CHECKING:
    from aurora_router_cluster import LocalCluster

PATIENCE = 60.0  # seconds for a contender to import and to connect
TUNED = {  # the incumbent's own settings for noticing soon
    "failure_detection_time_ms": 1000,
    "failure_detection_interval_ms": 500,
    "failure_detection_count": 2,
    "monitoring-connect_timeout": 2,
}


@dataclass(frozen=True)
class Contender:
    """One contender, which runs the loop.

    Attributes:
        name: as figures call it.
        kind: of `contender_child.SESSIONS`.
        bounded: whether the bounds are for it.
        noticed: seconds within which it has to notice a hang; None: no bound.
    """

    name: str
    kind: str
    bounded: bool = False
    noticed: float | None = None


OURS = [
    Contender("ours", "ours", bounded=True, noticed=2.5),
    Contender("ours, async", "ours-async", bounded=True, noticed=2.5),
    Contender("ours, SQLAlchemy", "ours-engine", bounded=True, noticed=2.5),
]
AGGRESSIVE = Contender("ours, aggressive", "ours", noticed=0.6)
LISTED = Contender("psycopg, list of hosts", "psycopg")
PRE_PING = Contender("SQLAlchemy, pre-ping", "pre-ping")
INCUMBENT = Contender("incumbent", "theirs")
INCUMBENT_TUNED = Contender("incumbent, tuned", "theirs")


class Process:
    """One process of `contender_child`.

    Args:
        kind: what it does.
        places: where it connects.
        prefix: command before it.
        python: which interpreter.
    """

    def __init__(self, kind: str, *places: str, prefix: tuple[str, ...] = (), python: str = sys.executable) -> None:
        self._process = subprocess.Popen(
            [*prefix, python, "-m", "benchmarks.contender_child", kind, *places],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout.fileno()
        os.set_blocking(self._output, False)
        self._text = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._output, selectors.EVENT_READ)

    def begin(self) -> None:
        """Let it connect, once it has imported; returns at once."""
        if self.line(PATIENCE) is None:
            raise RuntimeError("a contender did not start")
        self.go()

    def go(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def line(self, seconds: float) -> dict[str, Any] | None:
        """What it reports next; None: nothing within so many seconds, or it has ended."""
        until = time.monotonic() + seconds
        while b"\n" not in self._text:
            if not self._selector.select(max(0.0, until - time.monotonic())):
                return None
            piece = os.read(self._output, 65536)
            if not piece:
                return None
            self._text += piece
        first, _, self._text = self._text.partition(b"\n")
        found: dict[str, Any] = json.loads(first)
        return found

    def end(self) -> None:
        """End the process."""
        self._selector.close()
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()


class Field:
    """All contenders that can run against a cluster.

    Args:
        cluster: which one.
        names: where a hosts file for the incumbent may be written; None: it does not take part.
    """

    def __init__(self, cluster: LocalCluster, names: Path | None) -> None:
        self.cluster = cluster
        self._names = names
        self._python = str(incumbent.environment()) if names is not None else ""

    @property
    def alone(self) -> list[Contender]:
        """The contenders that are timed alone but for the probe."""
        return [*OURS, LISTED, PRE_PING, *([INCUMBENT] if self._names else [])]

    @property
    def all(self) -> list[Contender]:
        """All contenders."""
        return [*OURS, AGGRESSIVE, LISTED, PRE_PING, *([INCUMBENT, INCUMBENT_TUNED] if self._names else [])]

    def start(self, contender: Contender) -> Process:
        """Start the process of a contender; it has not connected yet."""
        if contender.kind != "theirs":
            return Process(contender.kind, self.place(contender))
        assert self._names is not None
        hosts = self._names / "hosts"
        incumbent.write_hosts(self.cluster, hosts)
        return Process("theirs", self.place(contender), prefix=incumbent.alone(hosts), python=self._python)

    def place(self, contender: Contender) -> str:
        """Where a contender connects."""
        if contender.kind == "theirs":
            tuning = TUNED if contender is INCUMBENT_TUNED else {}
            pattern = f"?.{self.cluster.domain}"  # it does not know names outside of amazonaws.com by itself
            return self.cluster.conninfo(aurora_dns=None, cluster_instance_host_pattern=pattern, **tuning)
        if contender.kind in {"psycopg", "pre-ping"}:
            return self.listed()
        if contender.kind == "ours-engine":
            return self.cluster.url()
        return self.cluster.conninfo(**({"aurora_profile": "aggressive"} if contender is AGGRESSIVE else {}))

    def listed(self) -> str:
        """All instances by their addresses, for libpq to find the writer among them."""
        cluster = self.cluster
        hosts = ",".join(each.host for each in cluster.instances)
        login = f"user={cluster.user} password={cluster.password} dbname={cluster.dbname}"
        return f"host={hosts} port={cluster.port} {login} target_session_attrs=read-write connect_timeout=2"

    def probe(self) -> Process:
        """The probe of all instances but the present writer."""
        return Process("probe", *(self.cluster.plain_conninfo(f"instance:{name}") for name in self.cluster.readers))

    def readers(self) -> Process:
        """Two readers' connections on each reader."""
        places = [self.cluster.conninfo("reader", aurora_instance=name) for name in self.cluster.readers]
        return Process("readers", *places, *places)
