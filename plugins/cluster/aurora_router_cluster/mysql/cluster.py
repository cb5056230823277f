"""One cluster of MariaDB and everything that serves it, in the supervisor's process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.channel import ControlServer
from aurora_router_cluster.control.directory import Directory
from aurora_router_cluster.control.status import ClusterStatus, InstanceStatus
from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import ClusterError, RequestError, TooManyReadersError, WriterRequiredError
from aurora_router_cluster.mysql import binaries
from aurora_router_cluster.mysql.front import Front
from aurora_router_cluster.mysql.plane import Cluster, Heartbeat, Instance
from aurora_router_cluster.mysql.server import ADMIN, REPLICATION, Server
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.addresses import Address, Allocator
from aurora_router_cluster.postgres.settings import DATABASE, PASSWORD, USER
from aurora_router_cluster.rpc.served import find_served, served

if TYPE_CHECKING:
    from pathlib import Path

    from aurora_router_cluster.dns.server import DnsServer
    from aurora_router_cluster.options import ClusterOptions
    from aurora_router_cluster.registry import ClusterDirectory

log = logging.getLogger(__name__)

MOST_READERS = 15
RELEASE_SECONDS = 10.0
"""How long a reader that is to be removed may be needed."""
GRANTED = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, REFERENCES, INDEX, ALTER, CREATE TEMPORARY TABLES, LOCK TABLES, "
    "EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE, EVENT, TRIGGER, PROCESS, RELOAD, SHOW DATABASES"
)
"""What the user may do: all that works on data, and nothing that a reader would permit to write."""
NO_STORAGE = "none: semi-synchronous replication of MariaDB; there is no quorum storage under this engine"


class MySqlCluster:
    """One cluster of MariaDB and everything that serves it; `SupervisedCluster` is that of PostgreSQL.

    Args:
        options: what to start.
        home: its directory, claimed.
        run: directory of the instances' homes.
    """

    def __init__(self, options: ClusterOptions, home: ClusterDirectory, run: Path) -> None:
        self.options = options
        self.home = home
        self.run = run
        self.account = Account.default()
        self.binaries = binaries.find(self.account, options.mysql)
        self.allocator = Allocator(port=options.port, first=options.address)
        self._inner = Allocator()  # the port of replication, which no client knows
        self._passwords = {each: secrets.token_urlsafe(18) for each in (ADMIN, REPLICATION)}
        own = names.Names(options.name, names.check_domain(options.domain or names.random_domain()))
        self.cluster = Cluster(own, self._passwords[REPLICATION])
        self.directory = Directory(self.cluster, ttl=options.dns_ttl)
        self.cluster.changed = self.directory.on_state_change
        self.heartbeat = Heartbeat(self.cluster, options.detect, auto=options.auto)
        requests = find_served(self)
        requests["start"] = requests.pop("start_instance")  # as the client calls it
        self.control = ControlServer(home.socket, requests, (run,))
        self.dns: DnsServer | None = None
        self.ended = asyncio.Event()
        self._made = 0
        self._created = time.time()

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Start the instances, the name server and the control socket."""
        from aurora_router_cluster.dns.server import DnsServer  # noqa: PLC0415 - takes 0.1 s

        made = [self._make() for _ in range(self.options.readers + 1)]
        writer, readers = made[0], made[1:]
        await asyncio.to_thread(writer.server.install)
        await asyncio.gather(*(asyncio.to_thread(each.server.copy_installed, writer.server) for each in readers))
        await asyncio.gather(*(each.server.start(password=False) for each in made))
        self.cluster.writer, self.cluster.epoch = writer, 1
        await writer.server.query(*self._first_statements())
        writer.server.use_password()
        for each in readers:
            await self.cluster.follow(each)
        written = await writer.server.query("SELECT @@GLOBAL.gtid_binlog_pos AS pos")
        for each in readers:
            await self._wait_for_users(each, str(written[0]["pos"]))
        for each in made:
            await each.front.start()
            each.state, each.heard_at = "available", time.monotonic()
        await self.cluster.update_holders()
        self.dns = DnsServer(self.directory.picture, port=self.options.dns_port)
        await self.dns.start()
        self.cluster.changed()
        self.heartbeat.start()
        await self.control.start()

    def _first_statements(self) -> list[str]:
        """What the first writer is made with; its readers get it by replication."""
        admin, replication = self._passwords[ADMIN], self._passwords[REPLICATION]
        kept = ", ".join(f"'{each}'" for each in (ADMIN, REPLICATION, USER, "mariadb.sys", "root"))
        return [
            "SET GLOBAL read_only = OFF",
            f"CREATE USER {ADMIN}@localhost IDENTIFIED BY '{admin}'",
            f"GRANT ALL PRIVILEGES ON *.* TO {ADMIN}@localhost WITH GRANT OPTION",
            f"CREATE USER {REPLICATION}@'%' IDENTIFIED BY '{replication}'",
            f"GRANT REPLICATION SLAVE ON *.* TO {REPLICATION}@'%'",
            f"CREATE DATABASE {DATABASE}",
            f"CREATE USER {USER}@localhost IDENTIFIED BY '{PASSWORD}'",
            f"GRANT {GRANTED} ON *.* TO {USER}@localhost",
            # what the installation makes beside these, and root, which is locked
            f"DELETE FROM mysql.global_priv WHERE User NOT IN ({kept})",  # noqa: S608 - our own names
            "ALTER USER root@localhost ACCOUNT LOCK",
            "FLUSH PRIVILEGES",
        ]

    @staticmethod
    async def _wait_for_users(reader: Instance, position: str) -> None:
        await reader.server.query(f"SELECT MASTER_GTID_WAIT('{position}', 30)", seconds=40.0)
        reader.server.use_password()

    def _make(self, name: str | None = None, zone: str | None = None, tier: int = 1) -> Instance:
        """Make an instance without a server that runs."""
        self._made += 1
        name = name or f"{self.options.name}-{self._made}"
        address = self.allocator.take([each.address for each in self.cluster.instances.values()])
        inner = Address(address.host, self._inner.port)
        server = Server(name, self.run / name, self.binaries, self.account, inner, self._made, self._passwords[ADMIN])
        server.make_home()
        front = Front(address, server.socket, self.cluster.rewriter(name))
        zone = zone or names.ZONES[(self._made - 1) % len(names.ZONES)]
        made = self.cluster.instances[name] = Instance(server, front, address, zone, tier)
        return made

    async def close(self) -> None:
        """Stop everything."""
        await self.control.close()
        await self.heartbeat.close()
        self.directory.close()
        for each in self.cluster.instances.values():
            each.state = "deleting"
            await each.front.stop()
            each.server.kill()
        if self.dns is not None:
            await self.dns.close()

    # ------------------------------------------------------------ what is served

    @served
    async def status(self) -> dict[str, Any]:
        """`ClusterStatus` as a dict."""
        cluster, own = self.cluster, self.cluster.names
        return ClusterStatus(
            name=own.cluster,
            key=self.home.key,
            domain=own.domain,
            flavour="replication",
            version=self.binaries.version,
            port=self.allocator.port,
            dns=f"{self.dns.host}:{self.dns.port}" if self.dns is not None else "",
            writer_endpoint=own.writer,
            reader_endpoint=own.reader,
            writer=cluster.writer.name if cluster.writer is not None else None,
            epoch=cluster.epoch,
            instances=tuple(self._instance(each) for each in cluster.instances.values()),
            custom_endpoints=(),
            cnames=dict(self.directory.cnames),
            certificate_authority=None,
            supervisor=os.getpid(),
            started_in=self.options.started_in,
            directory=str(self.run),
            activity=cluster.activity,
            created=self._created,
            volume={"storage": NO_STORAGE, "holders": sorted(cluster.holders), "semi_sync": cluster.semi_sync},
            engine="mysql",
        ).as_dict()

    def _instance(self, each: Instance) -> InstanceStatus:
        writes = each is self.cluster.writer
        return InstanceStatus(
            name=each.name,
            role="writer" if writes else "reader",
            state=each.state,
            zone=each.zone,
            tier=each.tier,
            endpoint=self.cluster.names.instance(each.name),
            host=each.address.host,
            port=each.address.port,
            pid=each.server.pid,
            socket_directory=str(each.server.home),
            lag_ms=None if writes or each.lag is None else round(each.lag * 1e3, 3),
            lsn=each.position,
            cpu=None,
            frozen=each.server.frozen,
            instance_class=self.options.instance_class,
            created=each.created,
        )

    @served
    async def down(self) -> None:
        """End the cluster, soon after this has been answered."""
        asyncio.get_running_loop().call_later(0.01, self.ended.set)

    @served
    async def failover(self, target: str | None = None) -> dict[str, Any]:
        """See `Cluster.fail_over`."""
        async with self.cluster.lock:
            return (await self.cluster.fail_over(target)).as_dict()

    @served
    async def kill(self, name: str, *, hold: bool = False) -> None:
        """SIGKILL to an instance; `hold`: it is not started before that is asked for."""
        instance = self.cluster.get(name)
        if instance.server.pid is None:
            raise RequestError(f"{name} does not run")
        instance.held = hold
        instance.server.kill()

    @served
    async def freeze(self, name: str) -> None:
        """SIGSTOP to an instance: its sockets stay open, it answers nothing."""
        instance = self.cluster.get(name)
        if instance.server.pid is None:
            raise RequestError(f"{name} does not run")
        instance.server.freeze()

    @served
    async def thaw(self, name: str) -> None:
        """Let a frozen instance go on."""
        self.cluster.get(name).server.thaw()

    @served
    async def start_instance(self, name: str) -> None:
        """Start an instance that is down; returns when it answers."""
        instance = self.cluster.get(name)
        instance.held = False
        async with self.cluster.lock:
            if instance.server.pid is None:
                await self.cluster.bring_back(instance)

    @served
    async def restart(self, name: str) -> None:
        """Restart an instance in order; returns when it answers again."""
        instance = self.cluster.get(name)
        async with self.cluster.lock:
            instance.state = "restarting"
            await instance.front.stop()
            await instance.server.stop()
            await self.cluster.bring_back(instance)

    @served
    async def add_reader(
        self, name: str | None = None, zone: str | None = None, tier: int = 1, instance_class: str | None = None
    ) -> str:
        """Add a reader, a copy of the writer; returns its name when it follows."""
        if instance_class is not None:
            raise RequestError("instance_class is shown by the RDS API, which does not serve the engine mysql")
        if len(self.cluster.readers) >= MOST_READERS:
            raise TooManyReadersError(f"the cluster has {MOST_READERS} readers, which is the most that Aurora allows")
        if zone is not None and zone not in names.ZONES:
            raise RequestError(f"unknown zone {zone!r}; there are {', '.join(names.ZONES)}")
        if name is not None:
            names.check_label(name, "an instance")
            if name in self.cluster.instances:
                raise RequestError(f"there is an instance {name!r} already")
        async with self.cluster.lock:
            added = self._make(name, zone, tier)
            added.server.replaced = True
            self.heartbeat.watch(added)
            try:
                await self.cluster.bring_back(added)
            except BaseException:
                await self._delete(added)
                raise
        return added.name

    @served
    async def remove(self, name: str, drain: float = 0.0) -> None:
        """Remove a reader."""
        instance = self.cluster.get(name)
        if instance is self.cluster.writer:
            raise WriterRequiredError(f"{name} is the writer: fail over to another instance before it is removed")
        if drain:
            raise RequestError("drain: the engine mysql ends sessions at once; leave it out")
        async with self.cluster.lock:
            instance.state, instance.held = "deleting", True
            self.cluster.changed()
            await self._release(name)
            await self._delete(instance)

    async def _release(self, name: str) -> None:
        """Wait until another reader has received all that a reader may be the only one to have.

        Raises:
            ClusterError: none has in time.
        """
        until = time.monotonic() + RELEASE_SECONDS
        while name in self.cluster.holders:
            await self.cluster.update_holders()
            if time.monotonic() > until:
                raise ClusterError(f"{name} may be the only one with an acknowledged commit: no other reader follows")
            await asyncio.sleep(0.01)

    async def _delete(self, instance: Instance) -> None:
        await instance.front.stop()
        instance.server.kill()
        self.cluster.instances.pop(instance.name, None)
        self.cluster.holders.discard(instance.name)
        self.cluster.changed()
        with contextlib.suppress(OSError):
            await asyncio.to_thread(_remove, instance.server.home)

    @served
    async def list_faults(self) -> list[dict[str, Any]]:
        """The faults in force: those of the table of `faults` are not served here."""
        return []

    @served
    async def add_cname(self, name: str, target: str) -> None:
        """See `Directory.add_cname`."""
        self.directory.add_cname(name, target)


def _remove(directory: Path) -> None:
    shutil.rmtree(directory)
