"""The quorum volume: six copies of the log in three zones under one cluster.

It implements `storage.volume.Volume`: readers follow the storage's own endpoint, the writer's commits
wait for the write quorum, and a failover is: fence, recover, let a reader replay to the recovery point, promote,
attach. The cluster has a system identifier and a replication secret of its own, so that neither a reused port nor
another cluster made from the same template ever feeds it a foreign log.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import DirectoryError, EngineError, FailoverImpossibleError
from aurora_router_cluster.lsn import format_lsn, segment_start
from aurora_router_cluster.postgres.files import sync_tree
from aurora_router_cluster.storage import volume_status
from aurora_router_cluster.storage.bases import (
    Copied,
    back_up,
    consistent_from,
    copy_base,
    data_size,
    delete,
    make_first_base,
    read_redo,
    size_on_disk,
    template_log,
)
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.core.framing import PostgresFraming
from aurora_router_cluster.storage.core.gc import Base, floor
from aurora_router_cluster.storage.core.history import EpochStart, History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.disk.consistency import raise_minimum_recovery_point, timeline_of
from aurora_router_cluster.storage.disk.errors import IdentityError
from aurora_router_cluster.storage.disk.identity import new_system_identifier
from aurora_router_cluster.storage.driver import Driver
from aurora_router_cluster.storage.history import RETENTION, VolumeHistory, recovery_point
from aurora_router_cluster.storage.inventory import NODES, Identity
from aurora_router_cluster.storage.logsource import VolumeLog
from aurora_router_cluster.storage.membership.change import MembershipChange, count_for_reads
from aurora_router_cluster.storage.nodes import NodeSet
from aurora_router_cluster.storage.recovery import RecoveredVolume, reach_write_quorum, recover
from aurora_router_cluster.storage.writer_link import STANDBY_NAME, WriterLink
from aurora_router_cluster.wire.endpoint import WalEndpoint
from aurora_router_cluster.wire.errors import WireError
from aurora_router_cluster.wire.handshake import Login
from aurora_router_cluster.wire.scram import ScramVerifier
from aurora_router_cluster.wire.walreceiver import WriterAddress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.postgres.endpoints import EngineAddress, RecoveryPoint
    from aurora_router_cluster.storage.inventory import Inventory
    from aurora_router_cluster.storage.nodes import Hosted

log = logging.getLogger(__name__)

REPLICATION_USER = "aurora_reader"
RETRY = "10ms"
"""Between two tries of a reader to get log. It waits so long at each timeline's end: one that is rebuilt after many
failovers goes through all of them since the last base."""
LITTLE_LOG = {"wal_keep_size": "32MB", "max_wal_size": "128MB"}
"""Server settings of all instances: the log is in the storage. Six copies of it: so it is compressed, too."""


class QuorumVolume:
    """See the module, and `aurora_router_cluster.storage.volume.Volume` for the methods.

    Args:
        binaries: which PostgreSQL.
        account: the user that the servers run as.
        directory: of the nodes' journals and the base; made if missing.
        zones: three availability zones, two nodes in each.
        sync: whether the nodes' disks are synced.
        group_bytes: size of a protection group; None: the volume is one group.
        isolated: give each storage node a process of its own.
        retention: length of the window that can be gone back to, in seconds.
        secret: what nodes and readers know the cluster by; None: a new one.
        listen: address that readers get the log from.
        hosted: makes the nodes, where they are on other hosts; see `NodeSet`.
        inventory: where the volume is written down, so that `reopen` can open it again; None: it ends with us.
        identity: of a volume that is going to be opened again; None: it is a new one.
    """

    flavour = "quorum"
    fences = True
    waits_for_readers = False
    compress_from: int | None = 256 << 20
    """Bytes of data from which a base is a compressed archive; None: it never is."""
    one_build = True
    """Whether all instances run the same programs, those of `binaries`."""

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
        retention: float = RETENTION,
        secret: str | None = None,
        listen: str = "127.0.0.1",
        hosted: Hosted | None = None,
        inventory: Inventory | None = None,
        identity: Identity | None = None,
    ) -> None:
        self._binaries = binaries
        self._compression = binaries.wal_compression() if self.one_build else "on"
        self._group_bytes = group_bytes
        self._account = account
        self._directory = directory
        self._inventory = inventory
        self._secret = identity.secret if identity is not None else secret or secrets.token_urlsafe(24)
        self._listen = listen
        self._identifier = identity.identifier if identity is not None else new_system_identifier()
        self.nodes = NodeSet(
            directory,
            zones,
            self._secret,
            self._node_is_up,
            isolated=isolated,
            sync=sync,
            hosted=hosted,
            inventory=inventory,
            known=inventory.nodes() if inventory is not None and identity is not None else None,
        )
        self.membership_change = MembershipChange(
            self.nodes, lambda: self.driver, framing=lambda: self.framing, begin=self._begin
        )
        self.framing = PostgresFraming(0)
        self._current: WriterLink | None = None
        self._retired: list[WriterLink] = []
        self._log: VolumeLog | None = None
        self._endpoint: WalEndpoint | None = None
        self._port = 0
        self._base_lock = asyncio.Lock()  # nothing is deleted while it is copied
        self._taking = asyncio.Lock()
        self._copied: Copied | None = None  # not a base yet
        self.history = VolumeHistory(self, directory, retention, inventory)

    @property
    def driver(self) -> Driver:
        """The present epoch's."""
        return self._require_open()[0].driver

    @property
    def charter(self) -> Charter:
        """The present epoch's."""
        return self.driver.charter

    @property
    def log(self) -> VolumeLog:
        """The durable log of the present branch."""
        return self._require_open()[1]

    @property
    def base(self) -> Path:
        """The data directory that instances are copied from: the newest base of the present branch."""
        found = self.history.bases.newest(self.charter.history, self.log.durable_lsn)
        if found is None:
            raise EngineError("there is no base of this branch: take one while a writer runs")
        return found.directory

    async def open(self, template: Path) -> Path:
        """Format the nodes, make the base, listen; returns the data directory to copy instances from.

        Raises:
            EngineError: the template could not be copied, or is not understood.
            StorageError: a node could not be formatted.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        staged = self._directory / "base.new"
        copying = asyncio.ensure_future(self._copy_template(template, staged))  # it takes as long as all of the rest
        try:
            origin = await asyncio.to_thread(template_log, self._binaries, self._account, template)
            self.framing = PostgresFraming(origin.segment_size, self._binaries.major, self._group_bytes)
            charter = Charter(History((EpochStart(1, origin.start),)), Membership.of(self.nodes))
            if (number := origin.timeline) > 1:
                content = (template / "pg_wal" / f"{number:08X}.history").read_bytes()
                charter = replace(charter, timelines=(Timeline(1, number, origin.start, content),))
            self.nodes.write_down()
            await self.nodes.start()
            states = await asyncio.gather(*(node.format(charter) for node in self.nodes.values()))
        finally:
            await copying
        self.history.bases.add(staged, Base(origin.start, origin.start, time.time()), charter.history)
        self._log = VolumeLog(self._identifier, self._binaries.version, origin.segment_size, origin.start)
        self._begin(RecoveredVolume(1, charter, tuple(states)))
        if self._inventory is not None:
            major = self._binaries.major
            identity = Identity(self._identifier, self._secret, major, origin.segment_size, self._group_bytes)
            self._inventory.write_identity(identity)
        await self._serve()
        return self.base

    async def _serve(self) -> None:
        self._endpoint = WalEndpoint(self.log)
        self._port = await self._endpoint.listen_tcp(self.login(), self._listen, private_network=True)

    async def _copy_template(self, template: Path, base: Path) -> None:
        await asyncio.to_thread(make_first_base, self._account, template, base, self._identifier)
        await self._sync(base)

    async def _sync(self, base: Path) -> None:
        """Write the files of a base to the disk, if it is to be found again."""
        if self._inventory is not None:
            await asyncio.to_thread(sync_tree, base)

    async def reopen(self, inventory: Inventory, identity: Identity) -> RecoveryPoint:
        """Open the volume of a supervisor that has ended, in order or not: bring up the nodes, recover, and listen.

        Returns:
            Where the log ends, and the new epoch begins.

        Raises:
            DirectoryError: too few nodes come up for a write quorum, or there is no base to build instances from, or
                what is written down of either is out of date. Nothing is deleted then.
        """
        self.framing = PostgresFraming(identity.segment_size, identity.major, identity.group_bytes)
        failed = await self.nodes.start_available()
        self._log = VolumeLog(self._identifier, self._binaries.version, identity.segment_size, 0)
        try:
            point = await self.recover()
        except FailoverImpossibleError as error:
            absent = f" ({'; '.join(failed.values())})" if failed else ""
            raise DirectoryError(
                f"{self._directory.parent} (--data) is incomplete: {error}{absent}; put the missing directories "
                f"{self._directory}/node-N back, at least 4 of 6 are needed{_name_unlisted(inventory, 'node')}"
            ) from None
        strangers = sorted(set(self.charter.membership.members) - set(self.nodes))
        if strangers:
            raise DirectoryError(
                f"{inventory.directory / NODES} is out of date: it does not list {', '.join(map(str, strangers))}, "
                "which the journals of the others name as members; put the newest copy of it back"
            )
        self._log.first_lsn = max(self.charter.history.base, self.charter.floor)
        self.history.find_again(inventory)
        if self.history.bases.newest(self.charter.history, point.lsn) is None:
            raise DirectoryError(
                f"{self._directory.parent} (--data) is incomplete: of the bases in {self._directory} none is left that "
                "instances could be built from; put the missing directories base-N back, each with its base-N.json"
                f"{_name_unlisted(inventory, 'base')}"
            )
        for leftover in inventory.leftovers():  # now, since all that is needed was found
            await asyncio.to_thread(shutil.rmtree, leftover, ignore_errors=True)
        await self._serve()
        return point

    def login(self) -> Login:
        """The login of the instances that follow the log."""
        return Login(REPLICATION_USER, ScramVerifier.from_password(self._secret))

    def _begin(self, opened: RecoveredVolume) -> None:
        current = self._take_over(opened)
        self.log.follow(current)

    def begin_branch(self, opened: RecoveredVolume) -> None:
        """Go on with a branch that was just opened."""
        self.log.set_back(self._take_over(opened))

    def _take_over(self, opened: RecoveredVolume) -> WriterLink:
        driver = Driver(self.nodes, opened, self.framing)
        driver.start()
        if self._current is not None:
            self._retired.append(self._current)
            self._current.retire()
        self._current = WriterLink(driver, self._identifier)
        return self._current

    def writer_settings(self) -> Mapping[str, str]:
        """Commits wait for the storage; and the storage has the log, so that instances keep little of it."""
        return {"synchronous_standby_names": STANDBY_NAME, **LITTLE_LOG, "wal_compression": self._compression}

    def reader_settings(self, reader: str, writer: EngineAddress | None) -> Mapping[str, str]:  # noqa: ARG002 - readers follow the storage, not a writer
        """Follow the storage; and be ready to become a writer whose commits wait for it."""
        following = {"primary_conninfo": self.conninfo(reader), "wal_retrieve_retry_interval": RETRY}
        return {**following, **self.writer_settings()}

    def conninfo(self, reader: str, port: int | None = None) -> str:
        """How `reader` follows the log; `port`: of another endpoint than that of the present branch."""
        return (
            f"host={self._listen} port={port or self._port} user={REPLICATION_USER} password={self._secret} "
            f"application_name={reader} sslmode=disable gssencmode=disable"
        )

    async def add_base(self, source: EngineAddress) -> None:
        """Copy a running instance into the storage, as the base of new ones.

        It needs nothing to stand still: a failover meanwhile makes the copy useless only if the log went on without
        what it needs. A copy that is complete is kept until the log that it needs is durable, also if this call fails.

        Raises:
            EngineError: pg_basebackup failed, or the write quorum is not there; the old bases stay.
        """
        async with self._taking:
            copied = self._copied
            if copied is None or not copied.can_serve(self.charter.history):
                self._copied = None
                copied = self._copied = await self._copy(source)
            await self._until_durable(copied)
            await self._sync(copied.directory)
            size = await asyncio.to_thread(size_on_disk, copied.directory)
            redo = await asyncio.to_thread(read_redo, copied.directory)
            await self._until_durable(copied)  # nothing has changed since, or it still is
            history, base = self.charter.history, Base(redo, max(redo, self.driver.durable), time.time())
            self.history.bases.add(copied.directory, base, history, size=size, data=copied.data)
            self._copied = None

    async def _copy(self, source: EngineAddress) -> Copied:
        staged, history = self._directory / "base.new", self.charter.history
        data = await data_size(source)
        compressed = self.compress_from is not None and data >= self.compress_from
        await back_up(self._binaries, self._account, source, staged, compressed=compressed)
        return Copied(staged, await consistent_from(source, self.framing.segment_size), history, data)

    async def _until_durable(self, copied: Copied, timeout: float = 10.0) -> None:
        deadline = time.monotonic() + timeout
        while True:
            if not copied.can_serve(self.charter.history):
                raise EngineError("the log went on without what the base needs; another one has to be taken")
            if self.driver.tracker.vcl >= copied.goal:
                return
            if time.monotonic() > deadline:
                missing = format_lsn(copied.goal)
                raise EngineError(f"the log up to {missing}, which the base needs, is not durable yet; try again")
            await asyncio.sleep(0.005)

    @property
    def data_size(self) -> int:
        """Bytes of the databases in the newest base; 0: a few."""
        return max(self.history.bases, key=lambda stored: stored.base.redo).data

    @property
    def grown(self) -> int:
        """Bytes of durable log since the newest base begins."""
        return self.driver.durable - self._newest_redo

    @property
    def timelines_begun(self) -> int:
        """How many timelines began since the newest base did: an instance built from it goes through all of them."""
        begun = self._newest_redo
        return sum(timeline.start > begun for timeline in self.log.timelines)

    @property
    def _newest_redo(self) -> int:
        return max(stored.base.redo for stored in self.history.bases)

    @property
    def collectable(self) -> bool:
        """Whether the nodes still keep log that no base needs."""
        return segment_start(self.history.lowest(), self.framing.segment_size) > self.log.first_lsn

    async def collect(self) -> None:
        """Forget bases that are no longer needed, and let the nodes forget the log that no base and no reader needs.

        Raises:
            EngineError: the write quorum is not there; it may be collected later all the same.
        """
        current, source = self._require_open()
        readers = self._endpoint.readers() if self._endpoint is not None else []
        applied = [reader.applied or reader.flushed or source.first_lsn for reader in readers]
        lowest = source.first_lsn
        try:
            async with self._base_lock:
                await asyncio.to_thread(delete, await self.history.forget())
            bases = [stored.base for stored in self.history.bases]
            lowest = floor(current.driver.durable, bases, applied, self.framing.segment_size)
            if lowest <= source.first_lsn:
                return
            await current.driver.collect(lowest)
        except StorageError as error:
            raise EngineError(f"the log below {format_lsn(lowest)} could not be collected: {error}") from error
        source.first_lsn = lowest

    async def seed(self, reader: EngineAddress, writer: EngineAddress | None) -> None:  # noqa: ARG002  # built from the storage alone
        """Replace the data directory by a copy of the base; the endpoint supplies the log since then.

        Raises:
            EngineError: the copy failed.
        """
        await self.copy_base(self.base, reader.data_directory)

    def hold_back(self, reader: EngineAddress) -> None:
        """See `Volume.hold_back`: PostgreSQL itself refuses, by its minimum recovery point.

        Raises:
            EngineError: the data directory is not understood.
        """
        if self._log is None or self._endpoint is None:
            return
        view, point = self._endpoint.view(), self._log.durable_lsn
        logs = reader.data_directory / "pg_wal"
        try:
            timeline = timeline_of(point, view.current, view.history(view.current))
            if raise_minimum_recovery_point(reader.data_directory, point, timeline):
                for timeline in range(2, view.current + 1):
                    content, path = view.history(timeline), logs / f"{timeline:08X}.history"
                    if content is not None and not path.exists():
                        self._account.write(path, content.decode())
        except (OSError, IdentityError) as error:
            raise EngineError(f"{reader.name} cannot be started as a reader: {error}") from error

    async def copy_base(self, base: Path, data: Path) -> None:
        """Make `data` a copy of a base.

        Raises:
            EngineError: the copy failed.
        """
        async with self._base_lock:
            await asyncio.to_thread(copy_base, self._account, base, data)

    def preconnect(self, candidate: EngineAddress) -> None:
        """Begin to connect to the instance that is being promoted, for `attach`."""
        self._require_open()[0].preconnect(_address_of(candidate))

    async def attach(self, writer: EngineAddress) -> None:
        """See `Volume.attach`.

        Raises:
            EngineError: it is not this volume's writer, cannot be reached, or the write quorum is not there.
        """
        current, source = self._require_open()
        for former in self._retired:
            await former.leave(_address_of(writer))
        try:
            await current.attach(_address_of(writer))
        except (StorageError, WireError) as error:
            raise EngineError(f"{writer.name} cannot be attached to the volume: {error}") from error
        source.on_attached()

    @property
    def attached(self) -> bool:
        """See `Volume.attached`."""
        return self._current is not None and self._current.attached

    @property
    def disputed(self) -> bool:
        """See `Volume.disputed`."""
        return self._current is not None and self._current.driver.disputed

    async def check_quorum(self) -> None:
        """See `Volume.check_quorum`.

        Raises:
            FailoverImpossibleError: too few nodes answer.
        """
        try:
            await reach_write_quorum(self.nodes)
        except StorageError as error:
            raise FailoverImpossibleError(
                f"the volume cannot be recovered now: {error}; nothing has changed; to try again, {self.nodes.advice()}"
            ) from error

    async def recover(self) -> RecoveryPoint:
        """See `Volume.recover`; the former writer's driver is refused by the nodes from here on.

        Raises:
            FailoverImpossibleError: too few nodes for a write quorum; nothing durable is lost, try again when they
                are back.
        """
        try:
            opened = await recover(self.nodes, self.framing)
        except StorageError as error:
            raise FailoverImpossibleError(f"the volume cannot be recovered now: {error}") from error
        self._begin(opened)
        if opened.charter.membership.unproven:  # of a repair that died half way
            with contextlib.suppress(FailoverImpossibleError):  # upkeep tries again
                await count_for_reads(self._require_open()[0].driver)
        self._retired = [old for old in self._retired if old.attached]
        log.info("epoch %d begins at %s", opened.epoch, format_lsn(opened.point))
        return recovery_point(opened)

    def _require_open(self) -> tuple[WriterLink, VolumeLog]:
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

    async def look(self) -> None:
        """Refresh what `status` returns about the nodes."""
        await self.nodes.look()

    def status(self) -> dict[str, Any]:
        """Epoch, positions, the six copies, the readers of the log, the timelines."""
        if self._current is None or self._log is None or self._endpoint is None:
            return {"flavour": self.flavour, "state": "closed"}
        return {
            "flavour": self.flavour,
            **volume_status.volume(self._current.driver, self.nodes.values()),
            "attached": self._current.attached,
            "first_lsn": format_lsn(self._log.first_lsn),
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
        for link in [*self._retired, *([self._current] if self._current else [])]:
            await link.close()
        self._retired, self._current = [], None
        await self.nodes.close()


def _name_unlisted(inventory: Inventory, kind: str) -> str:
    """An end of a sentence that names the directories of a kind which are there, but are not written down."""
    found = sorted(path.name for path in inventory.leftovers() if path.name.startswith(f"{kind}-"))
    return (
        f". {', '.join(found)} are there, but not written down: is a file in {inventory.directory} an old copy?"
        if found
        else ""
    )


def _address_of(engine: EngineAddress) -> WriterAddress:
    return WriterAddress(engine.address, engine.superuser, engine.password)
