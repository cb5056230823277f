"""The quorum volume: six copies of the log in three zones under one cluster.

It implements `aurora_router_cluster.volume.Volume`: readers follow the storage's own endpoint, the writer's commits
wait for the write quorum, and a failover is: fence, recover, let a reader replay to the recovery point, promote,
attach. The cluster has a system identifier and a replication secret of its own, so that neither a reused port nor
another cluster made from the same template ever feeds it a foreign log.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import shutil
import time
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import names, template
from aurora_router_cluster.errors import EngineError, FailoverImpossibleError, RequestError
from aurora_router_cluster.storage.attachment import STANDBY_NAME, Attachment
from aurora_router_cluster.storage.bases import read_base
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.core.framing import PostgresFraming
from aurora_router_cluster.storage.core.gc import Base, floor, needed
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.lsn import format_lsn, parse_lsn, segment_start
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.disk.identity import new_system_identifier, set_system_identifier
from aurora_router_cluster.storage.driver import Driver
from aurora_router_cluster.storage.fleet import Fleet
from aurora_router_cluster.storage.logsource import VolumeLog
from aurora_router_cluster.storage.opening import Opened, recover
from aurora_router_cluster.storage.renewal import count_for_reads, renew, renew_lost, renew_zone, survivors
from aurora_router_cluster.storage.wire.endpoint import WalEndpoint
from aurora_router_cluster.storage.wire.errors import WireError
from aurora_router_cluster.storage.wire.handshake import Login
from aurora_router_cluster.storage.wire.scram import ScramVerifier
from aurora_router_cluster.storage.wire.walreceiver import WriterAddress
from aurora_router_cluster.volume import RecoveryPoint

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.account import Account
    from aurora_router_cluster.binaries import Binaries
    from aurora_router_cluster.storage.scrubbing import ScrubReport
    from aurora_router_cluster.volume import EngineAddress

log = logging.getLogger(__name__)

REPLICATION_USER = "aurora_reader"


class QuorumVolume:
    """See the module, and `aurora_router_cluster.volume.Volume` for the methods.

    Args:
        binaries: which PostgreSQL.
        account: who runs it.
        directory: of the nodes' journals and the base; made if missing.
        zones: three availability zones, two nodes in each.
        sync: whether the nodes' disks are synced.
        group_bytes: size of a protection group; None: the volume is one group.
        isolated: give each storage node a process of its own.
    """

    flavour = "quorum"
    fences = True

    def __init__(
        self,
        binaries: Binaries,
        account: Account,
        directory: Path,
        *,
        zones: tuple[str, ...] = names.ZONES,
        sync: bool = True,
        group_bytes: int | None = None,
        isolated: bool = False,
    ) -> None:
        self._binaries = binaries
        self._group_bytes = group_bytes
        self._account = account
        self._directory = directory
        self._secret = secrets.token_urlsafe(24)
        self._identifier = new_system_identifier()
        self.nodes = Fleet(directory, zones, self._secret, self._node_is_up, isolated=isolated, sync=sync)
        self._framing = PostgresFraming(0)
        self._current: Attachment | None = None
        self._retired: list[Attachment] = []
        self._log: VolumeLog | None = None
        self._endpoint: WalEndpoint | None = None
        self._port = 0
        self._bases: list[Base] = []
        self._base_lock = asyncio.Lock()

    @property
    def base(self) -> Path:
        """The data directory that instances are copied from."""
        return self._directory / "base"

    async def open(self, template: Path) -> Path:
        """Format the nodes, make the base, listen; returns the data directory to copy instances from.

        Raises:
            EngineError: the template could not be copied, or is not understood.
            StorageError: a node could not be formatted.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        start, segment_size = await asyncio.to_thread(self._make_base, template)
        self._bases = [Base(start, start, time.time())]
        self._framing = PostgresFraming(segment_size, self._binaries.major, self._group_bytes)
        charter = Charter(History((EpochStart(1, start),)), Membership.of(self.nodes))
        await self.nodes.start()
        states = await asyncio.gather(*(node.format(charter) for node in self.nodes.values()))
        self._log = VolumeLog(self._identifier, self._binaries.version, segment_size, start)
        self._begin(Opened(1, charter, tuple(states)))
        self._endpoint = WalEndpoint(self._log)
        self._port = await self._endpoint.listen_tcp(Login(REPLICATION_USER, ScramVerifier.from_password(self._secret)))
        return self.base

    def _make_base(self, source: Path) -> tuple[int, int]:
        """Copy the template, give it its own identity; returns where its log begins, and the segment size, in bytes."""
        control = template.control_data(self._binaries, self._account, source)
        segment_size = int(control["Bytes per WAL segment"])
        self._copy(source, self.base)
        set_system_identifier(self.base, self._identifier)
        self._account.own(self.base)
        return segment_start(parse_lsn(control["Latest checkpoint's REDO location"]), segment_size), segment_size

    def _copy(self, source: Path, target: Path) -> None:
        try:
            shutil.copytree(source, target, symlinks=True)
        except (OSError, shutil.Error) as error:
            raise EngineError(f"copying {source} to {target} failed: {error}") from error

    def _begin(self, opened: Opened) -> None:
        driver = Driver(self.nodes, opened, self._framing)
        driver.start()
        if self._current is not None:
            self._retired.append(self._current)
            self._current.retire()
        self._current = Attachment(driver, self._identifier)
        assert self._log is not None
        self._log.follow(self._current)

    def writer_settings(self) -> Mapping[str, str]:
        """Commits wait for the storage."""
        return {"synchronous_standby_names": STANDBY_NAME}

    def reader_settings(self, reader: str, writer: EngineAddress | None) -> Mapping[str, str]:  # noqa: ARG002  # whoever the writer is, readers follow the storage
        """Follow the storage; and be ready to become a writer whose commits wait for it."""
        conninfo = (
            f"host=127.0.0.1 port={self._port} user={REPLICATION_USER} password={self._secret} "
            f"application_name={reader} sslmode=disable gssencmode=disable"
        )
        return {"primary_conninfo": conninfo, **self.writer_settings()}

    async def take_base(self, source: EngineAddress) -> None:
        """Copy a running instance into the storage, as the base of new ones, and collect the log below it as garbage.

        Raises:
            EngineError: pg_basebackup failed, or the write quorum is not there; the old base stays.
        """
        async with self._base_lock:
            staged = self._directory / "base.new"
            await asyncio.to_thread(self._make_room, staged)
            await self._back_up(source, staged)
            base = read_base(staged, time.time())
            await asyncio.to_thread(self._exchange_base, staged)
            self._bases = needed([*self._bases, base], time.time())
        await self.collect()

    async def _back_up(self, source: EngineAddress, target: Path) -> None:
        where = f"host={source.socket_directory} port={source.port} user={source.superuser} gssencmode=disable"
        options = ["--wal-method=none", "--checkpoint=fast", "--no-sync", "--no-manifest"]
        command = [str(self._binaries.program("pg_basebackup")), "-D", str(target), "-d", where, *options]
        process = await asyncio.create_subprocess_exec(
            *self._account.command(command),
            cwd="/",
            env=self._account.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:  # given up: nobody waits for it any more
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise EngineError(
                f"copying {source.name} into the storage failed: {output.decode(errors='replace').strip()}"
            )

    def _make_room(self, directory: Path) -> None:
        """Make an empty directory of the account's."""
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700)
        self._account.own(directory)

    def _exchange_base(self, staged: Path) -> None:
        old = self._directory / "base.old"
        self.base.rename(old)
        staged.rename(self.base)
        shutil.rmtree(old, ignore_errors=True)

    @property
    def grown(self) -> int:
        """Bytes of durable log since the newest base begins."""
        return self._opened()[0].driver.durable - self._bases[-1].redo

    @property
    def collectable(self) -> bool:
        """Whether a base makes log superfluous that the nodes still keep."""
        _, source = self._opened()
        oldest = min(base.redo for base in self._bases)
        return segment_start(oldest, self._framing.segment_size) > source.first_lsn

    async def collect(self) -> None:
        """Let the nodes forget the log that neither a base nor a connected reader needs.

        Raises:
            EngineError: the write quorum is not there; it may be collected later all the same.
        """
        current, source = self._opened()
        readers = self._endpoint.readers() if self._endpoint is not None else []
        applied = [reader.applied or reader.flushed or source.first_lsn for reader in readers]
        lowest = floor(current.driver.durable, self._bases, applied, self._framing.segment_size)
        if lowest <= source.first_lsn:
            return
        try:
            await current.driver.collect(lowest)
        except StorageError as error:
            raise EngineError(f"the log below {format_lsn(lowest)} could not be collected: {error}") from error
        source.first_lsn = lowest

    async def seed(self, reader: EngineAddress, writer: EngineAddress | None) -> None:  # noqa: ARG002  # built from the storage alone
        """Replace the data directory by a copy of the base; the endpoint supplies the log since then.

        Raises:
            EngineError: the copy failed.
        """
        async with self._base_lock:
            await asyncio.to_thread(self._seed, reader.data_directory)

    def _seed(self, data: Path) -> None:
        shutil.rmtree(data, ignore_errors=True)
        self._copy(self.base, data)
        self._account.own(data)

    async def attach(self, writer: EngineAddress) -> None:
        """See `Volume.attach`.

        Raises:
            EngineError: it is not this volume's writer, cannot be reached, or the write quorum is not there.
        """
        current, source = self._opened()
        address = WriterAddress(writer.socket_directory / f".s.PGSQL.{writer.port}", writer.superuser)
        try:
            await current.attach(address)
        except (StorageError, WireError) as error:
            raise EngineError(f"{writer.name} cannot be attached to the volume: {error}") from error
        source.attached()

    @property
    def attached(self) -> bool:
        """See `Volume.attached`."""
        return self._current is not None and self._current.attached

    async def recover(self) -> RecoveryPoint:
        """See `Volume.recover`; the former writer's driver is refused by the nodes from here on.

        Raises:
            FailoverImpossibleError: too few nodes for a write quorum; nothing durable is lost, try again when they
                are back.
        """
        try:
            opened = await recover(self.nodes, self._framing)
        except StorageError as error:
            raise FailoverImpossibleError(f"the volume cannot be recovered now: {error}") from error
        self._begin(opened)
        if opened.charter.membership.unproven:
            await count_for_reads(self._opened()[0].driver)  # of a repair that died half way
        self._retired = [old for old in self._retired if old.attached]
        timelines = opened.charter.timelines
        log.info("epoch %d begins at %s", opened.epoch, format_lsn(opened.point))
        return RecoveryPoint(opened.point, timelines[-1].tli if timelines else 1, opened.epoch)

    def _opened(self) -> tuple[Attachment, VolumeLog]:
        if self._current is None or self._log is None:
            raise EngineError("the volume is not open")
        return self._current, self._log

    def durable_lsn(self) -> int | None:
        """The VDL, in bytes."""
        return self._log.durable_lsn if self._log is not None else None

    def _node_is_up(self, number: int) -> None:
        """A storage node can be reached (again); it is filled by its peers."""
        if self._current is not None:
            self._current.driver.node_up(number)

    async def node_down(self, number: int) -> None:
        """Take one storage node down, as the loss of its machine; see `Fleet.down`."""
        await self.nodes.down(number)

    async def node_up(self, number: int) -> None:
        """Bring a storage node up again; it is filled by its peers; see `Fleet.up`."""
        await self.nodes.up(number)

    async def scrub(self) -> list[ScrubReport]:
        """Check the disks of all nodes that run, and refill what is damaged from their peers."""
        return [await node.scrub(self.nodes) for node in self.nodes.values() if node.up]

    async def replace_node(self, old: int) -> int:
        """Put a new node in the place of a member while the log goes on; see `renewal.renew`."""
        return await renew(self._opened()[0].driver, self.nodes, old)

    async def replace_zone(self, zone: str) -> dict[int, int]:
        """Put new nodes in the places of a zone's while the log goes on; see `renewal.renew_zone`."""
        return await renew_zone(self._opened()[0].driver, self.nodes, zone)

    async def repair(self, *, force: bool) -> dict[str, Any]:
        """Form a new membership from three survivors, the other nodes being gone for good; see `reforming`.

        The epoch that it opens has no writer: a failover follows.

        Raises:
            RequestError: a write quorum answers, or it was not asked for with `force`.
            FailoverImpossibleError: too few nodes are left, or one failed meanwhile.
        """
        situation = await survivors(self.nodes)
        left, lost = (", ".join(map(str, numbers)) for numbers in (situation.survivors, situation.lost))
        if not force:
            raise RequestError(
                f"storage nodes {lost} do not answer, {left} are left: three of six can be read, but not written to. "
                "Bring one up again (cluster node-up). If they are gone for good, repair --force forms a new "
                "membership without them; if one of them is alive elsewhere, there will be two volumes"
            )
        log.warning("nodes %s are given up, a new membership is formed from %s", lost, left)
        opened, pairs = await renew_lost(self.nodes, self._framing, situation)
        self._begin(opened)
        await count_for_reads(self._opened()[0].driver)
        return {"survivors": list(situation.survivors), "replaced": [list(pair) for pair in pairs.items()]}

    async def look(self) -> None:
        """Make what `status` tells of the nodes fresh."""
        await self.nodes.look()

    def status(self) -> dict[str, Any]:
        """Epoch, positions, the six copies, the readers of the log, the timelines."""
        if self._current is None or self._log is None or self._endpoint is None:
            return {"flavour": self.flavour, "state": "closed"}
        driver = self._current.driver
        tracker, charter = driver.tracker, driver.charter
        return {
            "flavour": self.flavour,
            "epoch": driver.epoch,
            "attached": self._current.attached,
            "received_lsn": format_lsn(tracker.received),
            "vcl": format_lsn(tracker.vcl),
            "vdl": format_lsn(tracker.vdl),
            "first_lsn": format_lsn(self._log.first_lsn),
            "membership": charter.membership.to_json(),
            "timelines": [{"tli": t.tli, "start": format_lsn(t.start), "epoch": t.epoch} for t in charter.timelines],
            "nodes": [node.describe() for node in self.nodes.values()],
            "readers": [
                {"name": r.application_name, "timeline": r.timeline, "sent": format_lsn(r.sent)}
                for r in self._endpoint.readers()
            ],
            "fenced_epochs": [old.driver.epoch for old in self._retired if old.attached],
        }

    async def close(self) -> None:
        """Stop serving; release sockets, threads and files."""
        if self._endpoint is not None:
            await self._endpoint.close()
        for attachment in [*self._retired, *([self._current] if self._current else [])]:
            await attachment.close()
        self._retired, self._current = [], None
        await self.nodes.close()
