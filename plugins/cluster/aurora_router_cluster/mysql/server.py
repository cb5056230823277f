"""One MariaDB server: its directory, its process, the control plane's session with it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pymysql
from pymysql.cursors import DictCursor

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import processes

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from aurora_router_cluster.mysql.binaries import Binaries
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.addresses import Address

START_SECONDS = 60.0
"""How long a start may take."""
STOP_SECONDS = 10.0
ADMIN = "rdsadmin"
"""The user of the control plane, over the Unix socket alone."""
REPLICATION = "rdsrepladmin"
BACKUP_INFO = ("mariadb_backup_binlog_info", "xtrabackup_binlog_info")

OPTIONS = (
    "--log-bin=binlog", "--relay-log=relay", "--max-relay-log-size=4194304", "--log-slave-updates=ON",
    "--gtid-strict-mode=ON", "--skip-slave-start",
    "--rpl-semi-sync-slave-enabled=ON", "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
    # never degrade to asynchronous by time: the control plane decides that
    "--rpl-semi-sync-master-timeout=4294967295", "--slave-net-timeout=4", "--local-infile=OFF",
    # what the machine loses is lost, what a process loses is not
    "--innodb-flush-log-at-trx-commit=2", "--sync-binlog=0", "--innodb-buffer-pool-size=32M",
    "--innodb-log-file-size=16M", "--performance-schema=OFF", "--skip-name-resolve", "--character-set-server=utf8mb4",
    "--innodb-fast-shutdown=2",
)  # fmt: skip


class Server:
    """One MariaDB server.

    Args:
        name: the instance.
        home: its directory.
        binaries: MariaDB's programs.
        account: the account that runs it.
        inner: where the other servers reach it, for replication; clients never do.
        number: its server id.
        password: of the control plane's user.

    Attributes:
        on_exit: called in the event loop when the process has ended, however that came about.
        frozen: every thread of it is stopped.
        replaced: it was the writer, and another one is: its data have to be built again.
    """

    def __init__(
        self,
        name: str,
        home: Path,
        binaries: Binaries,
        account: Account,
        inner: Address,
        number: int,
        password: str,
    ) -> None:
        self.name = name
        self.home = home
        self.binaries = binaries
        self.account = account
        self.replication = inner
        self.number = number
        self.on_exit: Callable[[], None] = lambda: None
        self.frozen = self.replaced = False
        self._password: str | None = None
        self._admin_password = password
        self._process: subprocess.Popen[bytes] | None = None
        self._watched: int | None = None
        self._session: Any = None
        self._lock = asyncio.Lock()

    @property
    def data(self) -> Path:
        """Its data directory."""
        return self.home / "data"

    @property
    def scratch(self) -> Path:
        """Where it keeps temporary tables: a server that starts deletes those of all that share the directory."""
        return self.home / "tmp"

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.home / "mysql.sock"

    @property
    def pid(self) -> int | None:
        """Process id; None: it does not run."""
        return self._process.pid if self.alive and self._process is not None else None

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    # ------------------------------------------------------------ its directory

    def make_home(self) -> None:
        """Make the directory of the instance, which the account alone may enter."""
        for each in (self.home, self.scratch):
            each.mkdir(mode=0o700, exist_ok=True)
            self.account.own(each)

    def install(self) -> None:
        """Make an empty data directory.

        Raises:
            EngineError: that failed.
        """
        self._run(
            self.binaries.install, "--no-defaults", f"--datadir={self.data}", f"--tmpdir={self.scratch}",
            "--skip-test-db", "--skip-name-resolve",
            "--auth-root-authentication-method=normal", "--innodb-log-file-size=16M",
        )  # fmt: skip

    def copy_installed(self, source: Server) -> None:
        """Begin with a copy of another server's data directory, which has never been started."""
        self._run("/bin/cp", "-a", source.data, self.data)

    def clone(self, source: Server) -> str:
        """Build the data directory from a server that runs; returns the GTID position of the copy.

        Raises:
            EngineError: that failed.
        """
        shutil.rmtree(self.data, ignore_errors=True)
        login = (f"--user={ADMIN}", f"--password={source._admin_password}", f"--socket={source.socket}")
        backup = source.binaries.backup
        where = (f"--target-dir={self.data}", f"--tmpdir={self.scratch}")
        self._run(backup, "--no-defaults", "--backup", *where, f"--datadir={source.data}", *login)
        self._run(backup, "--no-defaults", "--prepare", *where)
        written = next((self.data / each for each in BACKUP_INFO if (self.data / each).exists()), None)
        if written is None:
            raise EngineError(f"the copy of {source.name} does not say its GTID position")
        return written.read_text().split()[2]

    def _run(self, *command: str | Path) -> None:
        done = self.account.run(command)
        if done.returncode:
            program = str(command[0]).rpartition("/")[2]
            raise EngineError(f"{self.name}: {program} failed ({done.returncode}):\n{done.stdout[-2000:]}")

    # ------------------------------------------------------------ its process

    async def start(self, *, password: bool = True) -> None:
        """Start the process; returns when it answers. `password`: the control plane's user is there.

        Raises:
            EngineError: it ended, or did not answer in time.
        """
        self._password = self._admin_password if password else None
        self.frozen = False
        command: list[str | Path] = [
            self.binaries.server, "--no-defaults", *OPTIONS, f"--datadir={self.data}", f"--socket={self.socket}",
            f"--tmpdir={self.scratch}",
            f"--bind-address={self.replication.host}", f"--port={self.replication.port}",
            f"--server-id={self.number}", f"--pid-file={self.home / 'pid'}", f"--log-error={self.home / 'error.log'}",
            "--read-only=ON",
        ]  # fmt: skip
        with (self.home / "output.log").open("ab") as output:
            self._process = self.account.spawn(command, log=output)
        self._watch(self._process.pid)
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                await self.query("SELECT 1", seconds=5.0)
            except EngineError as error:
                if not self.alive or time.monotonic() > until:
                    self.kill()
                    raise EngineError(f"{self.name} did not start ({error}):\n{self.log_tail()}") from None
                await asyncio.sleep(0.01)
            else:
                return

    def _watch(self, pid: int) -> None:
        """Have `on_exit` called as soon as the process ends."""
        loop, descriptor = asyncio.get_running_loop(), os.pidfd_open(pid)
        self._watched = descriptor

        def on_end() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            if self._watched == descriptor:
                self._watched = None
                self.on_exit()

        loop.add_reader(descriptor, on_end)

    def kill(self) -> None:
        """SIGKILL; returns when the process is gone."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            self._process.wait()
        self.frozen = False
        self._forget_session()

    async def stop(self) -> None:
        """End the process in order, or by SIGKILL if that takes too long."""
        if self.pid is not None:
            self.thaw()
            processes.send(self.pid, signal.SIGTERM)
            until = time.monotonic() + STOP_SECONDS
            while self.alive and time.monotonic() < until:  # noqa: ASYNC110 - of a process
                await asyncio.sleep(0.01)
        self.kill()

    def freeze(self) -> None:
        """Stop every thread of it."""
        if self.pid is not None:
            processes.freeze(self.pid)
            self.frozen = True

    def thaw(self) -> None:
        """Let it go on."""
        if self.pid is not None and self.frozen:
            processes.send(self.pid, signal.SIGCONT)
        self.frozen = False

    def log_tail(self) -> str:
        """The last lines of its log."""
        with contextlib.suppress(OSError):
            return "\n".join((self.home / "error.log").read_text(errors="replace").splitlines()[-8:])
        return "(it has written no log)"

    # ------------------------------------------------------------ its answers

    async def query(self, *statements: str, seconds: float = 10.0) -> list[dict[str, Any]]:
        """Execute statements one after the other; returns the rows of the last one.

        Raises:
            EngineError: it refused one, or did not answer in time.
        """
        async with self._lock:
            return await asyncio.to_thread(self._query, statements, seconds)

    def _query(self, statements: tuple[str, ...], seconds: float) -> list[dict[str, Any]]:
        try:
            if self._session is None:
                self._session = self._connect(seconds)
            session = self._session
            session._read_timeout = session._write_timeout = seconds  # noqa: SLF001 - it has no setter
            with session.cursor(DictCursor) as cursor:
                for each in statements:
                    cursor.execute(each)
                return list(cursor.fetchall())
        except (pymysql.err.Error, OSError) as error:
            if self._session is None or not self._session.open or error.args[:1] in {(2006,), (2013,)}:
                self._forget_session()
            raise EngineError(f"{self.name}: {error}") from None

    def _connect(self, seconds: float) -> Any:
        user, password = (ADMIN, self._password) if self._password is not None else ("root", "")
        session = pymysql.connections.Connection(
            user=user, password=password, autocommit=True, read_timeout=seconds, write_timeout=seconds,
            ssl_disabled=True, defer_connect=True,
        )  # fmt: skip
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # PyMySQL leaves it open if nothing listens
        try:
            sock.settimeout(seconds)
            sock.connect(str(self.socket))
            session.connect(sock)
        except BaseException:
            sock.close()
            raise
        return session

    def use_password(self) -> None:
        """Log in as the control plane's user from now on: it was made."""
        self._password = self._admin_password
        self._forget_session()

    def _forget_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session._force_close()  # noqa: SLF001 - without a farewell, which could wait
