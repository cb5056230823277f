"""One cluster and everything that serves it, in the supervisor's process."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.autoscaling import AutoScaling
from aurora_router_cluster.control.backtrack import Backtrack
from aurora_router_cluster.control.channel import ControlServer
from aurora_router_cluster.control.directory import Directory
from aurora_router_cluster.control.injector import Injector
from aurora_router_cluster.control.nodes import NodeCommands
from aurora_router_cluster.control.pausing import Pausing, is_possible
from aurora_router_cluster.control.plane import ControlPlane
from aurora_router_cluster.control.state import DEFAULT_TIER, ClusterState, together
from aurora_router_cluster.control.status import ClusterStatus, InstanceStatus
from aurora_router_cluster.control.tls import Authority
from aurora_router_cluster.datadir import AWS_KEYS
from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import AddressInUseError, RequestError
from aurora_router_cluster.options import FLAVOURS, SERVERLESS_CLASS
from aurora_router_cluster.postgres import binaries, template
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_cluster.rpc.served import find_served, served
from aurora_router_cluster.storage.direct import DirectVolume
from aurora_router_cluster.storage.inventory import Inventory
from aurora_router_cluster.storage.semisync import SemiSynchronousVolume

if TYPE_CHECKING:
    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.upkeep import Upkeep
    from aurora_router_cluster.datadir import DataDirectory
    from aurora_router_cluster.dns.server import DnsServer
    from aurora_router_cluster.hosts.nameserver import RemoteDns
    from aurora_router_cluster.hosts.spread import Spread
    from aurora_router_cluster.options import ClusterOptions
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.registry import ClusterDirectory
    from aurora_router_cluster.storage.quorum import QuorumVolume

log = logging.getLogger(__name__)


class SupervisedCluster:
    """One cluster and everything that serves it.

    Args:
        options: what to start.
        home: its directory, claimed.
        run: directory of the instances' homes.
        data: where its data are kept, claimed; None: they are deleted when it ends.
    """

    def __init__(
        self, options: ClusterOptions, home: ClusterDirectory, run: Path, data: DataDirectory | None = None
    ) -> None:
        self.options = options
        self.home = home
        self.data = data
        account = Account.default()
        found = binaries.find(account, options.postgres)
        before = data.cluster_state if data is not None and data.exists else {}
        if data is not None:
            data.check_version(found)
        self.template = (
            None
            if before
            else Path(options.source or template.ensure(found, account, FLAVOURS[options.flavour].surface))
        )
        self.spread = make_spread(options)
        volume = make_volume(options, found, account, run, self.spread, data)
        self.quorum = None if isinstance(volume, DirectVolume) else volume
        self.state = ClusterState(
            names=names.Names(options.name, names.check_domain(options.domain or names.random_domain())),
            volume=volume,
            binaries=found,
            account=account,
            run=run,
            allocator=Allocator(
                port=options.port, shared=options.shared_address, first=options.address, before=before.get("port")
            ),
            overrides=options.settings,
            pace=options.failover,
            instance_class=options.instance_class if options.serverless is None else SERVERLESS_CLASS,
            first_capacity=None if options.capacity is None else options.capacity.first,
            hosts=self.spread.hosts if self.spread is not None else None,
            zones=self.spread.plan.zones if self.spread is not None else names.ZONES,
        )
        if options.iam:
            from aurora_router_cluster.control.iam import IamAuthentication  # noqa: PLC0415 - most clusters have none

            aws_keys = data.aws_keys if data is not None else home.path / AWS_KEYS
            find_port, lifetime = self.state.find_port, options.iam_token_lifetime
            self.state.iam = IamAuthentication(self.state.names, found, find_port, aws_keys, lifetime)
        if options.serves_tls:
            certificate, key = (data.certificate, data.key) if data is not None else (home.path / "ca.pem", None)
            self.state.authority = Authority(self.state.names, account, found, certificate, key)
        self.directory = Directory(self.state, ttl=options.dns_ttl, delay=options.failover.dns_delay)
        self.state.changed = self._on_state_change
        self.plane = ControlPlane(self.state, detect=options.detect, auto=options.auto)
        self.faults = Injector(self.plane, self.directory, relayed=options.faults)
        self.pausing = make_pausing(options, self.state)
        self.scaling = AutoScaling(self.plane, options.scaling, options.capacity)
        self.upkeep = make_upkeep(options, self.state, self.quorum) if self.quorum is not None else None
        self.dns: DnsServer | RemoteDns | None = None
        backtrack = Backtrack(self.state, self.plane.procedure)
        requests = find_served(self, self.plane, NodeCommands(self.plane), self.faults, backtrack, self.state.events)
        places = (run,) if data is None else (data.path, run)
        self.control = ControlServer(home.socket, requests, places)
        self.ended = asyncio.Event()
        self._before = before
        self._created = time.time()
        self._kept = False  # whether the instances are written down when they change

    async def start(self) -> None:
        """Start the instances, the name server and the control socket."""
        if self.spread is not None:
            await self.spread.hosts.start()
        if self.faults.relay_client is not None:
            await self.faults.relay_client.start()
        if self.state.iam is not None:
            await self.state.iam.start()
        await together([self._make_instances(), self._start_dns()])
        self._kept = True
        await self._keep()
        if self.upkeep is not None:
            self.upkeep.start()
        self.scaling.start()
        if self.pausing is not None:
            self.pausing.start()
        await self.control.start()

    async def _make_instances(self) -> None:
        volume = self.quorum
        if self.data is None or not self._before or volume is None:
            opened = self._keep if self.data is not None else None
            assert self.template is not None
            if self.data is not None:
                self.data.begin(self._options_to_record(), self.state.binaries, self.state.account, _version())
            await self.plane.create(self.options.readers, self.template, opened)
            return
        self.data.begin(self._options_to_record(), self.state.binaries, self.state.account, _version())
        self.directory.find_again(self._before)
        inventory = Inventory(self.data.storage)
        phases = await self.plane.resume(
            self._before, self.options.readers, lambda: volume.reopen(inventory, inventory.identity())
        )
        log.info("the cluster in %s was started again: %s", self.data.path, phases.times)

    def _options_to_record(self) -> ClusterOptions:
        return replace(self.options, domain=self.state.names.domain)

    def _on_state_change(self) -> None:
        """The cluster state changed: names lead elsewhere, and it is written down."""
        self.directory.on_state_change()
        if self.data is not None and self._kept:
            self.data.keep_soon(self._make_record())

    def _make_record(self) -> dict[str, Any]:
        return {
            **self.state.to_record(),
            **self.directory.to_record(),
            "port": self.state.allocator.port,
            "dns_port": self.dns.port if self.dns is not None else None,
        }

    async def _keep(self) -> None:
        """Write down the instances and endpoints; on the disk when this returns."""
        if self.data is not None:
            await self.data.keep(self._make_record())

    async def _start_dns(self) -> None:
        if self.spread is not None and (remote := self.spread.name_server(self.directory)) is not None:
            self.dns = remote
            await remote.start()
            return
        await asyncio.sleep(0)  # let the instances' copying begin, which goes on while this process imports
        from aurora_router_cluster.dns.server import DnsServer  # noqa: PLC0415 - takes 0.1 s

        before: int = self._before.get("dns_port") or 0 if not self.options.dns_port else 0
        try:
            self.dns = DnsServer(self.faults.zone, port=self.options.dns_port or before, mute=self.faults.mute)
            await self.dns.start()
        except AddressInUseError:
            if not before:
                raise
            self.dns = DnsServer(self.faults.zone, mute=self.faults.mute)
            await self.dns.start()

    async def close(self) -> None:
        """Stop everything."""
        await self.control.close()  # first: what was asked for and is not done yet, is not done
        self.directory.close()
        await self.scaling.close()
        if self.pausing is not None:
            await self.pausing.close()
        if self.upkeep is not None:
            await self.upkeep.close()
        await self.plane.close()
        if self.state.iam is not None:
            await self.state.iam.close()
        if self.faults.relay_client is not None:
            await self.faults.relay_client.close()
        if self.dns is not None:
            await self.dns.close()
        if self.spread is not None:
            await self.spread.hosts.close()
        if self.data is not None:
            await self.data.settle()

    @served
    async def status(self) -> dict[str, Any]:
        """`ClusterStatus` as a dict."""
        state = self.state
        await state.volume.look()
        port = state.writer.address.port if state.writer is not None else state.allocator.port
        return ClusterStatus(
            name=state.names.cluster,
            key=self.home.key,
            domain=state.names.domain,
            flavour=state.volume.flavour,
            version=state.binaries.version,
            port=port,
            dns=f"{self.dns.host}:{self.dns.port}" if self.dns is not None else "",
            writer_endpoint=state.names.writer,
            reader_endpoint=state.names.reader,
            writer=state.writer.name if state.writer is not None else None,
            epoch=state.epoch,
            instances=tuple(self._instance(instance) for instance in state.instances.values()),
            custom_endpoints=tuple(self.directory.custom.values()),
            cnames=dict(self.directory.cnames),
            certificate_authority=str(state.authority.path) if state.authority is not None else None,
            supervisor=os.getpid(),
            started_in=self.options.started_in,
            directory=str(state.run),
            data=str(self.data.path) if self.data is not None else None,
            iam=state.iam.status() if state.iam is not None else None,
            activity=state.activity,
            created=self._created,
            scaling=self.scaling.status(),
            serverless=self._serverless(),
            faults=tuple(self.faults.registry),
            volume={**state.volume.status(), **({"upkeep": self.upkeep.status()} if self.upkeep else {})},
        ).as_dict()

    def _serverless(self) -> dict[str, float | None] | None:
        limits = self.options.capacity
        return None if limits is None else {**asdict(limits), "pause_after": self.options.pauses_after}

    def _instance(self, instance: Instance) -> InstanceStatus:
        writer = instance is self.state.writer
        engine, newest = instance.engine, instance.newest
        return InstanceStatus(
            name=instance.name,
            role="writer" if writer else "reader",
            state=instance.state,
            zone=instance.zone,
            tier=instance.tier,
            endpoint=self.state.names.instance(instance.name),
            host=instance.address.host,
            port=instance.address.port,
            pid=instance.pid,
            socket_directory=str(engine.home),
            lag_ms=None if writer or instance.lag is None else round(instance.lag * 1e3, 3),
            lsn=newest.applied if newest is not None else None,
            cpu=instance.cpu,
            frozen=engine.frozen,
            instance_class=instance.instance_class,
            created=instance.created,
            autoscaled=instance.autoscaled,
            capacity=instance.capacity,
            connections=None if newest is None else newest.sessions,
        )

    @served
    async def down(self) -> None:
        """End the cluster, soon after this has been answered."""
        asyncio.get_running_loop().call_later(0.01, self.ended.set)

    @served
    async def add_reader(
        self,
        name: str | None = None,
        zone: str | None = None,
        tier: int = DEFAULT_TIER,
        instance_class: str | None = None,
    ) -> str:
        """See `ControlPlane.add_reader`; returns the instance's name."""
        self._check_resizable()
        await self._wake()
        added = await self.plane.add_reader(name, zone, tier, instance_class)
        await self._keep()
        return added.name

    def _check_resizable(self) -> None:
        fixed = FLAVOURS[self.options.flavour].readers
        if fixed is not None:
            raise RequestError(
                f"a cluster of flavour {self.options.flavour!r} has {fixed} readers: none is added or removed"
            )

    @served
    async def remove(self, name: str, drain: float = 0.0) -> None:
        """See `ControlPlane.remove`."""
        self._check_resizable()
        await self._wake()
        await self.plane.remove(name, drain)
        await self._keep()

    @served
    async def failover(self, target: str | None = None) -> dict[str, Any]:
        """See `ControlPlane.failover`."""
        await self._wake()
        return (await self.plane.failover(target)).as_dict()

    async def _wake(self) -> None:
        """Wake instances that have paused: what is asked for needs them."""
        if self.pausing is not None:
            await self.pausing.wake_all()

    @served
    async def kill(self, name: str, *, hold: bool = False) -> None:
        """See `ControlPlane.kill`."""
        self.plane.kill(name, hold=hold)

    @served
    async def freeze(self, name: str) -> None:
        """See `ControlPlane.freeze`."""
        self.plane.freeze(name)

    @served
    async def thaw(self, name: str) -> None:
        """See `ControlPlane.thaw`."""
        self.plane.thaw(name)

    @served
    async def create_custom_endpoint(
        self, label: str, members: list[str], *, exclude: bool = False, kind: str | None = None
    ) -> str:
        """See `Directory.create_custom`; returns the host name."""
        endpoint = self.directory.create_custom(label, members, exclude=exclude, kind=kind).endpoint
        await self._keep()
        return endpoint

    @served
    async def modify_custom_endpoint(
        self, label: str, members: list[str] | None, *, exclude: bool, kind: str | None
    ) -> None:
        """See `Directory.modify_custom`."""
        self.directory.modify_custom(label, members, exclude=exclude, kind=kind)
        await self._keep()

    @served
    async def delete_custom_endpoint(self, label: str) -> None:
        """See `Directory.delete_custom`."""
        self.directory.delete_custom(label)
        await self._keep()

    @served
    async def list_faults(self) -> list[dict[str, Any]]:
        """The faults in force."""
        return self.faults.list()

    @served
    async def add_cname(self, name: str, target: str) -> None:
        """See `Directory.add_cname`."""
        self.directory.add_cname(name, target)
        await self._keep()


def make_spread(options: ClusterOptions) -> Spread | None:
    """The other hosts that the options name; None: there are none.

    Raises:
        RequestError: they are not described as they should be.
    """
    if options.remote is None:
        return None
    from aurora_router_cluster.hosts.spread import Spread  # noqa: PLC0415 - only for other hosts

    return Spread.over(options.remote, options.port)


def make_pausing(options: ClusterOptions, state: ClusterState) -> Pausing | None:
    """What lets the instances sleep; None: they do not.

    Raises:
        RequestError: this system does not show the clients that connect to a process that is stopped.
    """
    if options.pauses_after is None:
        return None
    if not is_possible():
        raise RequestError("instances can pause on Linux alone: give serverless a minimum above 0")
    return Pausing(state, options.pauses_after, options.resume)


def make_volume(
    options: ClusterOptions,
    found: Binaries,
    account: Account,
    run: Path,
    spread: Spread | None = None,
    data: DataDirectory | None = None,
) -> DirectVolume | QuorumVolume:
    """Make the volume that the options ask for; its files go below `run`, or where the data are kept."""
    if spread is not None:
        return spread.volume(found, account, run / "storage", options)
    if not options.keeps_log:
        waits = FLAVOURS[options.flavour].waits
        return SemiSynchronousVolume(found, account) if waits else DirectVolume(found, account)
    from aurora_router_cluster.storage.quorum import QuorumVolume  # noqa: PLC0415 - as much as all the rest

    inventory = Inventory(data.storage) if data is not None else None
    return QuorumVolume(
        found,
        account,
        data.storage if data is not None else run / "storage",
        inventory=inventory,
        identity=inventory.identity() if inventory is not None and data is not None and data.exists else None,
        isolated=options.isolated,
        group_bytes=options.segment_size,
        retention=options.retention,
    )


def make_upkeep(options: ClusterOptions, state: ClusterState, volume: QuorumVolume) -> Upkeep:
    """What looks after the storage."""
    from aurora_router_cluster.control.upkeep import Upkeep  # noqa: PLC0415 - with the storage's modules

    return Upkeep(
        state,
        volume,
        base_interval=options.base_interval,
        base_bytes=options.base_bytes,
        scrub_interval=options.scrub_interval,
        auto=options.auto,
    )


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - only for a cluster that is kept

    return metadata.version("aurora-router")
