"""One PostgreSQL instance: its directory, its configuration, its processes.

An `Engine` knows nothing of clusters. Its waits are coroutines that hold no state of an event loop, so that
synchronous code may call ``asyncio.run(engine.wait())``. It must be started from a thread that lasts: the
instance is killed when that thread ends (see `launcher`).

::

    home/                 mode 0700, the account's: no other user reaches the trusting socket in it
        data/             PGDATA
        log               what the server printed
        .s.PGSQL.<port>   Unix socket, superuser trusted
"""

from __future__ import annotations

import asyncio
import enum
import json
import shutil
import signal
import sys
import time
from typing import TYPE_CHECKING

from aurora_router_cluster import limits
from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import processes, programs, settings, sysv
from aurora_router_cluster.postgres.endpoints import EngineAddress

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.postgres.endpoints import RecoveryPoint

POLL = 0.002  # seconds between two looks at postmaster.pid; a promotion takes 4 to 12 ms
DB_IN_ARCHIVE_RECOVERY = 5  # of enum DBState, pg_control.h
STATUS_FILE = "aurora_status.json"


class State(str, enum.Enum):
    """What an instance is doing; the last two take connections."""

    DOWN = "down"
    STARTING = "starting"
    STOPPING = "stopping"
    STANDBY = "standby"
    READY = "ready"


class Engine:
    """One PostgreSQL instance.

    Args:
        name: instance name, e.g. ``demo-1``; becomes ``cluster_name``.
        home: its directory (see above); made by `clone`.
        binaries: which PostgreSQL.
        account: the user that the server runs as.
        host: address that it listens on; empty: Unix socket only.
        port: its port, part of the socket's name too.
        access: content of ``pg_hba.conf``.

    Attributes:
        here: its processes are this machine's.
        cpu: the processor use that it reports itself; None: the caller has to measure it (see `usage`).
    """

    here = True
    cpu: float | None = None

    def __init__(
        self,
        name: str,
        home: Path,
        binaries: Binaries,
        account: Account,
        *,
        host: str = "",
        port: int = 5432,
        access: str = settings.ACCESS,
    ) -> None:
        self.name = name
        self.home = home
        self.binaries = binaries
        self.account = account
        self.host = host
        self.port = port
        self._access = access
        self.frozen = False
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.home / "data"

    @property
    def where(self) -> EngineAddress:
        """How the storage reaches it."""
        return EngineAddress(self.name, self.home, self.port, settings.SUPERUSER, self.data)

    @property
    def pid(self) -> int | None:
        """Process id of its postmaster; None: it is down."""
        return self.process.pid if self.process is not None and self.alive else None

    @property
    def was_writer(self) -> bool:
        """Whether the data directory belongs to a writer: PostgreSQL deletes ``standby.signal`` on promotion."""
        return not (self.data / "standby.signal").exists()

    @property
    def log(self) -> Path:
        """The file with what the server printed."""
        return self.home / "log"

    # -- the directory -------------------------------------------------------------------------------------

    def make_home(self) -> None:
        """Make the (empty) home directory, closed to all but the account."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.account.own(self.home)

    async def clone(self, source: Path) -> None:
        """Make the home directory with a copy of the data directory `source`, which no server may be using.

        Raises:
            EngineError: the copy failed, e.g. for lack of room.
        """
        self.make_home()
        status, printed = await programs.finish(programs.copying(source, self.data), within=self.home)
        if status != 0:
            raise EngineError(programs.explain_copy(source, self.data, status, printed))

    def configure(self, extra: Mapping[str, str], *, standby: bool) -> None:
        """Write the complete configuration; takes effect at the next start (or `reload`, where PostgreSQL can).

        Args:
            extra: settings on top of `settings.common`; they win.
            standby: start as a standby (follow a log) or as a writer.
        """
        own = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": str(self.home),
            "cluster_name": self.name,
        }
        text = settings.render({**settings.common(self.binaries.major), **own, **extra})
        self.account.write(self.data / "postgresql.conf", text)
        self.account.write(self.data / "pg_hba.conf", self._access)
        if not (self.data / STATUS_FILE).exists():
            self.write_status([])
        if standby:
            self.account.write(self.data / "standby.signal", "")
        else:
            (self.data / "standby.signal").unlink(missing_ok=True)

    def follow(self, extra: Mapping[str, str]) -> None:
        """Change the configuration of a running standby; it reads that only if something has changed.

        Raises:
            EngineError: it is not running.
        """
        conf = self.data / "postgresql.conf"
        before = conf.read_text(encoding="utf-8")
        self.configure(extra, standby=True)
        if conf.read_text(encoding="utf-8") != before:
            self.reload()

    def write_status(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Replace what the instance's ``aurora_replica_status()`` shows (see ``postgres/sql/surface.sql``)."""
        text = json.dumps({"instance": self.name, "rows": rows})
        self.account.write(self.data / STATUS_FILE, text)

    def erase(self) -> None:
        """Delete the data directory of an instance that is down."""
        sysv.remove(self.data)
        shutil.rmtree(self.data, ignore_errors=True)

    def remove(self) -> None:
        """Delete the home directory; the instance must be down."""
        shutil.rmtree(self.home, ignore_errors=True)

    # -- the processes -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the server; returns at once; `wait` returns when it answers."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # of a killed one; no other server uses this directory
        self.frozen = False
        with self.log.open("ab") as log:
            self.process = self.account.spawn([self.binaries.program("postgres"), "-D", self.data], log=log)

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs (a frozen one does)."""
        return self.process is not None and self.process.poll() is None

    def state(self) -> State:
        """What the instance is doing now; two files are read, no connection made.

        Line 8 of ``postmaster.pid`` says "ready" of a hot standby too; the state in ``pg_control`` distinguishes them.
        PostgreSQL writes that after it set the flag behind ``pg_is_in_recovery()`` (StartupXLOG).
        """
        if not self.alive:
            return State.DOWN
        try:
            lines = (self.data / "postmaster.pid").read_text(encoding="utf-8").split("\n")
            state = State(lines[7].strip())
            return State.STANDBY if state is State.READY and self._recovering() else state
        except (OSError, IndexError, ValueError):
            return State.STARTING

    def _recovering(self) -> bool:
        """Whether ``pg_control`` says "in archive recovery"; the field's place is the same in 14 to 18."""
        with (self.data / "global" / "pg_control").open("rb") as control:
            control.seek(16)
            return int.from_bytes(control.read(4), sys.byteorder) == DB_IN_ARCHIVE_RECOVERY

    async def wait(self, *wanted: State, timeout: float = 30.0) -> State:
        """Wait for one of the states `wanted` (default: ready or standby, i.e. it takes connections).

        Raises:
            EngineError: it ended, or took longer than `timeout` seconds; the message ends with its log.
        """
        wanted = wanted or (State.READY, State.STANDBY)
        deadline = time.monotonic() + timeout
        while (state := self.state()) not in wanted:
            if state is State.DOWN:
                raise EngineError(f"{self.name} ended instead of getting {_names(wanted)}:\n{self._last_words()}")
            if time.monotonic() > deadline:
                raise EngineError(
                    f"{self.name} is {state.value}, not {_names(wanted)}, after {timeout:g} s:\n{self.log_tail()}"
                )
            await asyncio.sleep(POLL)
        return state

    def reload(self) -> None:
        """Make the server read its configuration again."""
        self._signal(signal.SIGHUP)

    def leave_out(self, point: RecoveryPoint) -> None:
        """Make a standby that is promoted at `point` leave the timelines below `next_timeline` out.

        PostgreSQL takes the number after the highest of which it finds a history file. What these say is true: nothing
        was written on those timelines after the point.
        """
        logs = self.data / "pg_wal"
        parent = logs / f"{point.timeline:08X}.history"
        known = parent.read_text(encoding="utf-8") if parent.exists() else ""
        line = f"{point.timeline}\t{point.lsn >> 32:X}/{point.lsn & 0xFFFFFFFF:X}\tleft out: of another branch\n"
        for number in range(point.timeline + 1, point.next_timeline):
            self.account.write(logs / f"{number:08X}.history", known + line)

    async def promote(self, timeout: float = 30.0) -> None:
        """Turn a standby into a writer; returns when it takes writes.

        The trigger file and the signal are what ``pg_ctl promote`` uses, but it polls slowly.

        Raises:
            EngineError: it did not become a writer in time.
        """
        self.account.write(self.data / "promote", "")
        self._signal(signal.SIGUSR1)
        await self.wait(State.READY, timeout=timeout)

    async def stop(self, *, immediate: bool = False, timeout: float = 15.0) -> None:
        """End the server: sessions are disconnected, a shutdown checkpoint is written and sent to standbys.

        Args:
            immediate: no checkpoint; the next start is a crash recovery.
            timeout: after so many seconds it is killed.
        """
        if self.process is None or not self.alive:
            sysv.remove(self.data)
            return
        if self.frozen:
            self.thaw()
        self._signal(signal.SIGQUIT if immediate else signal.SIGINT)
        deadline = time.monotonic() + timeout
        while self.alive:
            if time.monotonic() > deadline:
                self.kill()
                return
            await asyncio.sleep(POLL)

    def kill(self) -> None:
        """SIGKILL to every process of the instance, as the loss of its machine."""
        if self.process is None:
            return
        if self.alive:
            processes.kill(self.process.pid)
        self.process.wait()
        self.frozen = False
        sysv.remove(self.data)

    def freeze(self) -> None:
        """Stop every process of the instance: it holds its sockets and answers nothing, as a hung host."""
        if self.process is not None and self.alive:
            self.frozen = True
            processes.freeze(self.process.pid)

    def thaw(self) -> None:
        """Let a frozen instance go on."""
        if self.process is not None and self.alive:
            processes.thaw(self.process.pid)
        self.frozen = False

    def log_tail(self, lines: int = 12) -> str:
        """The last lines that the server printed."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return "(it printed nothing)"
        return "\n".join(text.splitlines()[-lines:])

    def _last_words(self) -> str:
        """The end of the log, and how the server ended where a signal ended it: then it may have printed nothing."""
        status = self.process.poll() if self.process is not None else None
        return self.log_tail() if status is None or status >= 0 else limits.explain_status(status, self.log_tail())

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None or not self.alive:
            raise EngineError(f"{self.name} is not running:\n{self.log_tail()}")
        processes.send(self.process.pid, number)


def _names(states: Sequence[State]) -> str:
    return " or ".join(state.value for state in states)
