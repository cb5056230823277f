"""A real Patroni cluster of three members on etcd, on loopback, without systemd; for tests and `benchmarks.patroni`.

Debian's packages `patroni`, `etcd-server` and `postgresql` have the programs. They run as an ordinary user: as root the
one that the reference cluster uses.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router_cluster.postgres import processes
from aurora_router_cluster.postgres.account import Account

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Self

PASSWORD = "app"
ZONES = ("a", "b", "c")
PATIENCE = 120.0
SEARCHED = os.pathsep.join([os.environ.get("PATH", ""), "/usr/bin", "/usr/local/bin"])


class NotInstalled(Exception):
    """A program is missing; the text says how to install it."""


def programs() -> tuple[str, str, Path]:
    """Patroni, etcd, and the directory of PostgreSQL's programs.

    Raises:
        NotInstalled: one is missing.
    """
    patroni, etcd = shutil.which("patroni", path=SEARCHED), shutil.which("etcd", path=SEARCHED)
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: int(each.parent.name))
    missing = [
        package
        for package, found in (("patroni", patroni), ("etcd-server", etcd), ("postgresql", servers))
        if not found
    ]
    if missing or patroni is None or etcd is None:
        raise NotInstalled(f"not tested: apt-get install --no-install-recommends {' '.join(missing)}")
    return patroni, etcd, servers[-1]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def find_postmaster(data: Path) -> int | None:
    """The process id of the server that runs in a data directory; None: none does."""
    try:
        return int((data / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return None


def reap(directory: Path) -> None:
    """Wait until the process that started a cluster has ended, or closes it; end the servers, and delete the files.

    Patroni's servers outlive Patroni, so they would outlive a test that was killed.
    """
    sys.stdin.read()
    time.sleep(0.2)  # Patroni ends with the process that started it
    for data in directory.glob("n*"):
        postmaster = find_postmaster(data)
        if postmaster is not None:
            processes.kill(postmaster)
    shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Node:
    """One member.

    Attributes:
        name: its name.
        port: of PostgreSQL.
        rest: port of its REST API.
    """

    name: str
    port: int
    rest: int


class PatroniCluster:
    """Three members and their etcd; ended by `close`.

    Args:
        tags: of members, by name, beside their zones.
        dcs: of the dynamic configuration, on top of what makes a test short.
        rest: of the section ``restapi`` of each member.
    """

    def __init__(
        self,
        tags: dict[str, dict[str, Any]] | None = None,
        dcs: dict[str, Any] | None = None,
        rest: dict[str, Any] | None = None,
    ) -> None:
        self._patroni, self._etcd, self._bin = programs()
        self.account = Account.default()
        self.directory = Path(tempfile.mkdtemp(prefix="ar-patroni-", dir="/tmp"))
        self.account.own(self.directory)
        self._reaper = subprocess.Popen(
            [sys.executable, "-m", "tests.patroni.managed", "--reap", str(self.directory)],
            stdin=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        )
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        client, peer, *ports = _free_ports(8)
        self.nodes = {f"n{i + 1}": Node(f"n{i + 1}", ports[i], ports[3 + i]) for i in range(3)}
        self._tags, self._rest = tags or {}, rest or {}
        self._dcs = {"ttl": 20, "loop_wait": 1, "retry_timeout": 3, "synchronous_mode": True, **(dcs or {})}
        self._urls = {"client": f"http://127.0.0.1:{client}", "peer": f"http://127.0.0.1:{peer}"}
        try:
            self._start_etcd()
            for name in self.nodes:
                self._configure(name)
                self.start(name)
            self.eventually(self.is_settled, "three members run")
            with psycopg.connect(self.conninfo(user="postgres", dbname="postgres"), autocommit=True) as conn:
                conn.execute(f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'")
                conn.execute("CREATE DATABASE app OWNER app")
        except BaseException:
            self.close()
            raise

    # ------------------------------------------------------------ processes

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._processes[name] = self.account.spawn(list(command), log=log)

    def _start_etcd(self) -> None:
        own, peer = self._urls["client"], self._urls["peer"]
        listen = ["--listen-client-urls", own, "--advertise-client-urls", own, "--listen-peer-urls", peer]
        first = ["--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
        self._spawn("etcd", [self._etcd, "--data-dir", str(self.directory / "etcd"), *listen, *first])
        host, port = own.removeprefix("http://").split(":")

        def answers() -> bool:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1.0):
                return True
            return False

        self.eventually(answers, "etcd answers")

    def _configure(self, name: str) -> None:
        node, number = self.nodes[name], list(self.nodes).index(name)
        local = "host all all 127.0.0.1/32 scram-sha-256"
        parameters = {"max_connections": 60, "shared_buffers": "16MB", "wal_keep_size": "128MB", "fsync": "off"}
        parameters["dynamic_shared_memory_type"] = "mmap"  # in its directory, which is removed after kill -9 too
        configuration = {
            "scope": "c",
            "name": name,
            "restapi": {"listen": f"127.0.0.1:{node.rest}", "connect_address": f"127.0.0.1:{node.rest}", **self._rest},
            "etcd3": {"hosts": self._urls["client"].removeprefix("http://")},
            "bootstrap": {
                "dcs": {**self._dcs, "postgresql": {"use_pg_rewind": True, "parameters": parameters}},
                "initdb": ["no-sync", "no-locale", "data-checksums", {"encoding": "UTF8"}],
            },
            "tags": {"availability_zone": ZONES[number], **self._tags.get(name, {})},
            "postgresql": {
                "listen": f"127.0.0.1:{node.port}",
                "connect_address": f"127.0.0.1:{node.port}",
                "data_dir": str(self.directory / name),
                "bin_dir": str(self._bin),
                "pgpass": str(self.directory / f"{name}.pgpass"),
                "pg_hba": ["local all all trust", local, "host replication all 127.0.0.1/32 scram-sha-256"],
                "authentication": {
                    role: {"username": user, "password": PASSWORD}
                    for role, user in (("superuser", "postgres"), ("replication", "repl"), ("rewind", "rewind"))
                },
                "parameters": {"unix_socket_directories": str(self.directory), "cluster_name": name},
            },
        }
        self.account.write(self.directory / f"{name}.yml", json.dumps(configuration))  # YAML is a superset

    def start(self, name: str) -> None:
        """Start a member, which follows the leader, or leads."""
        self._spawn(name, [self._patroni, str(self.directory / f"{name}.yml")])

    def kill(self, name: str) -> None:
        """SIGKILL to a member: Patroni and PostgreSQL, as the loss of its machine."""
        postmaster = find_postmaster(self.directory / name)
        process = self._processes[name]
        process.kill()
        process.wait()
        if postmaster is not None:
            processes.kill(postmaster)

    def close(self) -> None:
        """End everything, and delete its files."""
        for process in reversed(list(self._processes.values())):
            process.kill()
            process.wait()
        self._reaper.communicate()  # the end of its input

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------ what it says

    def rest(self, name: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, str]:
        """Ask a member's REST API; with a body it is a POST."""
        connection = http.client.HTTPConnection("127.0.0.1", self.nodes[name].rest, timeout=60.0)
        try:
            data = None if body is None else json.dumps(body)
            connection.request("GET" if body is None else "POST", path, data, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def members(self) -> list[dict[str, Any]]:
        """The members, as any of them lists them; empty: none answers."""
        for name in self.nodes:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                found: list[dict[str, Any]] = json.loads(self.rest(name, "/cluster")[1])["members"]
                return found
        return []

    @property
    def leader(self) -> str | None:
        """The member that takes writes, by its own report."""
        for name in self.nodes:
            with contextlib.suppress(psycopg.Error), self._session(name) as conn:
                row = conn.execute("SELECT NOT pg_is_in_recovery()").fetchone()
                if row is not None and row[0]:
                    return name
        return None

    @contextlib.contextmanager
    def _session(self, name: str) -> Iterator[psycopg.Connection[Any]]:
        login = f"user=postgres password={PASSWORD} dbname=postgres connect_timeout=2"
        with psycopg.connect(f"host=127.0.0.1 port={self.nodes[name].port} {login}", autocommit=True) as conn:
            yield conn

    def is_settled(self) -> bool:
        """Whether all members run, one of them leads, and a standby is synchronous where that is asked for."""
        members = self.members()
        healthy = [each for each in members if each.get("state") in {"running", "streaming"}]
        synchronous = not self._dcs["synchronous_mode"] or any(each["role"] == "sync_standby" for each in members)
        return len(healthy) == len(self.nodes) and synchronous and self.leader is not None

    def switch(self) -> None:
        """Ask for a switchover to a standby that is in sync."""
        leader = next(each["name"] for each in self.members() if each["role"] == "leader")
        standbys = [each for each in self.members() if each["role"] != "leader"]
        standbys.sort(key=lambda each: each["role"] != "sync_standby")
        status, text = self.rest(leader, "/switchover", {"leader": leader, "candidate": standbys[0]["name"]})
        assert status == 200, text

    def conninfo(self, *names: str, **options: Any) -> str:
        """A conninfo with the given members as hosts, all of them if none is named."""
        nodes = [self.nodes[name] for name in names or self.nodes]
        keys = {
            "host": ",".join("127.0.0.1" for _ in nodes),
            "port": ",".join(str(each.port) for each in nodes),
            "user": "app",
            "password": PASSWORD,
            "dbname": "app",
            **options,
        }
        if options.get("user") == "postgres":
            keys["target_session_attrs"] = "read-write"
        return " ".join(f"{key}={value}" for key, value in keys.items())

    def plain_conninfo(self) -> str:
        """A conninfo by which psycopg alone finds the leader."""
        return self.conninfo(target_session_attrs="read-write", connect_timeout=2)

    def urls(self, *names: str) -> str:
        """The value of ``aurora_patroni``."""
        return ",".join(f"http://127.0.0.1:{self.nodes[name].rest}" for name in names or self.nodes)

    @staticmethod
    def eventually(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
        """Wait for a condition."""
        deadline = time.monotonic() + patience
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not after {patience:g} s: {what}")
            time.sleep(0.05)


def main() -> None:
    """Start a cluster, print how to connect to it, and end it when interrupted."""
    with PatroniCluster() as cluster, contextlib.suppress(KeyboardInterrupt):
        print(cluster.conninfo("n1", "n2", aurora_source="patroni", aurora_patroni=cluster.urls()), flush=True)
        while True:
            time.sleep(1.0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--reap"]:
        reap(Path(sys.argv[2]))
    else:
        main()
