"""Real poolers and load balancers in front of instances, on free ports of the loopback address.

>>> with PgBouncer({"app": (instance.host, instance.port)}, pool_mode="transaction") as pooler:
...     aurora_router.connect(f"host={pooler.host} port={pooler.port} dbname=app")
>>> with HAProxy([(instance.host, instance.port) for instance in cluster.instances]) as balancer: ...

Neither needs a privilege: PgBouncer, which refuses to run as root, runs as ``nobody`` then.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Address = tuple[str, int]
"""Host and port."""

HOST = "127.0.0.1"
START_SECONDS = 10.0
ATTEMPTS = 5
"""A port that is free now may be taken a moment later: then another one is tried."""


class NotInstalled(Exception):
    """The program is not here."""


def program(name: str) -> str:
    """The path of a program.

    Raises:
        NotInstalled: it is not here.
    """
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))
    if found is None:
        raise NotInstalled(f"{name} is not installed (Debian: apt install {name})")
    return found


class Listener:
    """A program that listens on a port and passes connections on.

    Args:
        name: of the program.
        port: where it listens; 0: a free one.

    Attributes:
        port: where it listens.
    """

    host = HOST

    def __init__(self, name: str, port: int = 0) -> None:
        self.port = port
        self._program = program(name)
        self._wanted = port
        self._directory = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def directory(self) -> Path:
        """Where its configuration and its log are."""
        return Path(self._directory.name)

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self.host, self.port

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start it, and wait until it accepts connections; after `stop` at the same port again."""
        for _ in range(ATTEMPTS):
            self.port = self._wanted or free_port()
            with (self.directory / "log").open("ab") as log:
                self._process = subprocess.Popen(self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if self._accepts():
                self._wanted = self.port
                return
            self.stop()
        raise RuntimeError(f"{self._program} does not start: {self.log()}")

    def log(self) -> str:
        """What it has written so far."""
        return (self.directory / "log").read_text(errors="replace")

    def stop(self) -> None:
        """End it; its connections break, and nothing listens at its port."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()

    def close(self) -> None:
        """End it for good."""
        self.stop()
        self._directory.cleanup()

    def _command(self) -> list[str]:
        raise NotImplementedError

    def _accepts(self) -> bool:
        assert self._process is not None
        until = time.monotonic() + START_SECONDS
        while self._process.poll() is None and time.monotonic() < until:
            with closing(socket.socket()) as probe:
                if probe.connect_ex((HOST, self.port)) == 0:
                    return True
            time.sleep(0.01)
        return False


class PgBouncer(Listener):
    """PgBouncer.

    Args:
        databases: name that clients give -> where the server is. A name may stand for another database: see `dbname`.
        port: where it listens; 0: a free one.
        dbname: the database behind each of the names; None: the one of that name.
        settings: of its configuration, for example ``pool_mode="transaction"``. By default: session pooling, servers
            that failed are dialled again at once, no password is asked for (it logs in with the user `user`).
        user: the name, and the password, with which it logs in to servers.
    """

    def __init__(
        self,
        databases: Mapping[str, Address],
        *,
        port: int = 0,
        dbname: str | None = None,
        user: str = "app",
        **settings: object,
    ) -> None:
        super().__init__("pgbouncer", port)
        self.databases = dict(databases)
        self._dbname = dbname
        self._user = user
        self._settings = {
            "pool_mode": "session",
            "server_reset_query": "DISCARD ALL",
            "server_login_retry": 0.1,
            "ignore_startup_parameters": "extra_float_digits",
            **settings,
        }

    def redirect(self, databases: Mapping[str, Address]) -> None:
        """Let it lead elsewhere, as its operator does: connections of servers that are in use are closed after it."""
        self.databases = dict(databases)
        self._command()
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def _command(self) -> list[str]:
        targets = [
            f"{name} = host={host} port={port} dbname={self._dbname or name} user={self._user} password={self._user}"
            for name, (host, port) in self.databases.items()
        ]
        fixed = {"listen_addr": HOST, "listen_port": self.port, "auth_type": "any", "unix_socket_dir": ""}
        settings = [f"{key} = {value}" for key, value in {**fixed, **self._settings}.items()]
        path = self.directory / "pgbouncer.ini"
        path.write_text("\n".join(["[databases]", *targets, "[pgbouncer]", *settings, ""]))
        self.directory.chmod(0o755)
        as_nobody = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [self._program, *as_nobody, "-q", str(path)]


class HAProxy(Listener):
    """HAProxy in TCP mode: it passes bytes on, each connection to the next server in turn.

    Args:
        servers: where it leads.
        port: where it listens; 0: a free one.
        checks: whether it leaves out servers that refuse a dial, which it tries every 200 ms.
    """

    def __init__(self, servers: Iterable[Address], *, port: int = 0, checks: bool = True) -> None:
        super().__init__("haproxy", port)
        self.servers = list(servers)
        self._check = " check inter 200ms fall 1 rise 1" if checks else ""

    def _command(self) -> list[str]:
        lines = [
            "defaults",
            "  mode tcp",
            "  timeout connect 2s",
            "  timeout client 1h",
            "  timeout server 1h",
            "listen postgres",
            f"  bind {HOST}:{self.port}",
            "  balance roundrobin",
            *(f"  server s{n} {host}:{port}{self._check}" for n, (host, port) in enumerate(self.servers)),
        ]
        path = self.directory / "haproxy.cfg"
        path.write_text("\n".join([*lines, ""]))
        return [self._program, "-db", "-f", str(path)]


def free_port() -> int:
    """A port of the loopback address on which nothing listens now."""
    with closing(socket.socket()) as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
