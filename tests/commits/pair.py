"""A writer and its standby, real PostgreSQL, behind relays: what a commit's outcome is tried on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import tempfile
import time
from pathlib import Path

import psycopg

from aurora_router_cluster.postgres import template as template_module
from aurora_router_cluster.postgres.engine import Engine, State

from .relay import Relay

SETTINGS = {"wal_writer_delay": "10s", "wal_receiver_status_interval": "1s"}  # what no client waits for stays unflushed
NOWHERE = "host=/nowhere"


def eventually(condition, timeout=45.0):
    """Wait for a condition and return what it returned."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.005)
    return result


def free_ports(count):
    """Ports below those that the system gives to clients, which would come and go while a server starts."""
    found = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
    return found


class Pair:
    """`one` is the writer at first, `two` its standby."""

    def __init__(self, binaries, account, *, sync=False, restart_after_crash="off"):
        self.account = account
        self.sync = sync
        self.settings = {**SETTINGS, "restart_after_crash": restart_after_crash}
        place = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self.directory = Path(tempfile.mkdtemp(prefix="ar-", dir=place))
        self.directory.chmod(0o755)
        self.template = template_module.ensure(binaries, account)
        ports = free_ports(2)
        self.one, self.two = (
            Engine(name, self.directory / name, binaries, account, host="127.0.0.1", port=port)
            for name, port in zip(("one", "two"), ports, strict=True)
        )
        self.relays = {engine: Relay(engine.port) for engine in (self.one, self.two)}

    # ------------------------------------------------------------ life

    def __enter__(self):
        try:
            asyncio.run(self._started())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for relay in self.relays.values():
            relay.close()
        for engine in (self.one, self.two):
            engine.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    async def _started(self):
        for engine in (self.one, self.two):
            await engine.clone(self.template)
        self.one.configure(self._writer_settings(), standby=False)
        self.one.start()
        await self.one.wait()
        self._configure_standby(self._upstream())
        self.two.start()
        await self.two.wait()
        eventually(self.streaming)

    def _writer_settings(self):
        return {**self.settings, "synchronous_standby_names": "two" if self.sync else ""}

    def _upstream(self):
        return f"host={self.one.home} port={self.one.port} user=postgres application_name=two"

    def _configure_standby(self, upstream):
        self.two.configure({**self.settings, "primary_conninfo": upstream}, standby=True)

    # ------------------------------------------------------------ connecting

    def conninfo(self, **options):
        """Both servers, through the relays."""
        ports = ",".join(str(self.relays[engine].port) for engine in (self.one, self.two))
        keys = {
            "host": "127.0.0.1,127.0.0.1", "port": ports, "user": "app", "password": "app", "dbname": "app",
            "sslmode": "disable", "gssencmode": "disable", "aurora_source": "postgresql",
            "aurora_failover_timeout": 20, **options,
        }  # fmt: skip
        return " ".join(f"{key}={value}" for key, value in keys.items())

    def admin(self, engine=None, **options):
        """A direct connection of the superuser, in autocommit."""
        engine = engine or self.one
        return psycopg.connect(
            host=str(engine.home), port=engine.port, user="postgres", dbname="app", autocommit=True, **options
        )

    def run(self, sql, engine=None):
        with self.admin(engine) as connection:
            connection.pgconn.exec_(sql.encode())

    def value(self, sql, engine=None):
        with self.admin(engine) as connection:
            return connection.execute(sql).fetchone()[0]

    # ------------------------------------------------------------ what happens to it

    def streaming(self):
        return self.value("select count(*) from pg_stat_replication where state = 'streaming'") == 1

    def caught_up(self):
        end = self.value("select pg_current_wal_flush_lsn()")
        eventually(lambda: self.value(f"select pg_last_wal_replay_lsn() >= '{end}'", self.two))

    def hold(self):
        """Let nothing of the writer's log reach the standby from now on."""
        self._configure_standby(NOWHERE)
        self.two.reload()
        eventually(lambda: self.value("select count(*) from pg_stat_replication") == 0)

    def resume(self):
        """Let the standby follow again."""
        self._configure_standby(self._upstream())
        self.two.reload()
        eventually(self.streaming)

    def fail_over(self):
        """Kill the writer, promote the standby."""
        self.one.kill()
        self.promote()

    def fail_over_with(self, *, burn):
        """Fail over, and have the xid `burn` committed by another client before any client asks for it."""
        self.relays[self.two].pause()
        self.fail_over()
        self.relays[self.one].resume()
        self.burn(burn, self.two)
        self.relays[self.two].resume()

    def promote(self):
        asyncio.run(self.two.promote())

    def crash_in_place(self):
        """Kill one backend: the postmaster goes through a recovery and lives on."""
        before = self._recovered()
        with self.admin() as victim:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
        eventually(lambda: self._recovered() not in {None, before})

    def restart_in_place(self):
        self.one.kill()
        self.one.start()
        asyncio.run(self.one.wait(State.READY))

    def _recovered(self):
        """How far the last recovery got; None while there is no answer."""
        with contextlib.suppress(psycopg.OperationalError):
            return self.value("select coalesce(pg_last_wal_replay_lsn()::text, 'none')")
        return None

    def burn(self, xid, engine):
        """As another client, commit transactions until `xid` was given to one of them."""
        while int(self.value("select pg_current_xact_id()::text", engine)) < xid:
            pass
