"""The state of a cluster: its instances, which one is the writer, and what each one shows of the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control import event_log, sampling
from aurora_router_cluster.control.event_log import EventLog
from aurora_router_cluster.control.instance import Instance
from aurora_router_cluster.dns import names as naming
from aurora_router_cluster.errors import UnknownInstanceError
from aurora_router_cluster.faults.relay_client import FOLDER
from aurora_router_cluster.options import DEFAULT_CLASS, Pace
from aurora_router_cluster.postgres import settings
from aurora_router_cluster.postgres.addresses import Address
from aurora_router_cluster.postgres.engine import Engine, State

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
    from pathlib import Path

    from aurora_router_cluster.control.hosting import Hosts
    from aurora_router_cluster.control.iam import IamAuthentication
    from aurora_router_cluster.control.tls import Authority
    from aurora_router_cluster.dns.names import Names
    from aurora_router_cluster.faults.relay_client import RelayClient
    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.addresses import Allocator
    from aurora_router_cluster.postgres.binaries import Binaries
    from aurora_router_cluster.storage.volume import Volume

DEFAULT_TIER = 1  # as Amazon RDS has it
CATCH_UP = 30.0  # seconds that a request waits for an instance that replays; it goes on without being waited for
REPLAYS = 2.0  # seconds that the start of an instance waits for what it has to replay first, with the lock held
LOOK = 0.01  # seconds between two looks at an instance that starts or replays
Rows = list[dict[str, object]]


@dataclass
class ClusterState:
    """The instances of one cluster; mutable, owned by the supervisor's event loop.

    Invariants: at most one instance is `writer`; members and roles change only while `lock` is held.

    Attributes:
        names: the cluster's host names.
        volume: where the log lives.
        binaries: which PostgreSQL.
        account: the user that the servers run as.
        run: directory for the instances' homes.
        allocator: hands out addresses.
        zones: availability zones; instances are placed in turn.
        overrides: server settings of the user's, on top of everything.
        pace: how long a failover takes.
        instance_class: class of the instances, unless one is given.
        first_capacity: of a serverless instance that was just made, in ACU; None: they have classes.
        authority: issues certificates; None: no TLS.
        iam: judges IAM tokens; None: all users log in by password.
        hosts: other hosts that instances run on; None: they run here.
        changed: called after every change of role, membership or state.
        instances: by name, in the order of their making.
        writer: the writer; None: there is none at this moment.
        epoch: number of writers so far.
        lock: see above.
        clock: when the writer's log had reached which position.
        relay_client: the relay in front of the instances; None: clients reach them as they are.
        shown: what an instance shows of the rows of ``aurora_replica_status()``; faults distort it.
        activity: what is being done to the cluster as a whole, in the words of Amazon RDS; ``available``: nothing.
        events: what happened.
    """

    names: Names
    volume: Volume
    binaries: Binaries
    account: Account
    run: Path
    allocator: Allocator
    zones: tuple[str, ...] = naming.ZONES
    overrides: dict[str, str] = field(default_factory=dict)
    pace: Pace = field(default_factory=Pace)
    instance_class: str = DEFAULT_CLASS
    first_capacity: float | None = None
    authority: Authority | None = None
    iam: IamAuthentication | None = None
    hosts: Hosts | None = None
    changed: Callable[[], None] = lambda: None
    instances: dict[str, Instance] = field(default_factory=dict)
    writer: Instance | None = None
    epoch: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    clock: sampling.LogClock = field(default_factory=sampling.LogClock)
    relay_client: RelayClient | None = None
    shown: Callable[[str, Rows], Rows] = lambda _, rows: rows
    activity: str = "available"
    events: EventLog = field(default_factory=EventLog)
    _made: int = 0

    def get(self, name: str) -> Instance:
        """The instance `name`.

        Raises:
            UnknownInstanceError: there is none; the message lists those that exist.
        """
        try:
            return self.instances[name]
        except KeyError:
            raise UnknownInstanceError(
                f"the cluster {self.names.cluster} has no instance {name!r}; it has {', '.join(self.instances)}"
            ) from None

    def find_port(self, name: str) -> int | None:
        """The port of the instance `name`; None: there is none."""
        instance = self.instances.get(name)
        return None if instance is None else instance.address.port

    @property
    def readers(self) -> list[Instance]:
        """All instances but the writer."""
        return [instance for instance in self.instances.values() if instance is not self.writer]

    @contextlib.contextmanager
    def doing(self, activity: str) -> Iterator[None]:
        """Show `activity` as the state of the cluster while the block lasts."""
        before, self.activity = self.activity, activity
        try:
            yield
        finally:
            self.activity = before

    @contextlib.contextmanager
    def failing_over_to(self, candidate: Instance) -> Iterator[None]:
        """Show a failover as the state of the cluster, and record it, while the block lasts."""
        record = partial(self.events.add, event_log.CLUSTER, self.names.cluster, "failover")
        across = "same" if self.writer is not None and self.writer.zone == candidate.zone else "cross"
        record(f"Started {across} AZ failover to DB instance: {candidate.name}")
        with self.doing("failing-over"):
            try:
                yield
            except BaseException:
                record("Cluster failover failed, check the health of your cluster instances and try again.")
                raise
        promoted = candidate if self.writer is None else self.writer  # another one, where that has more of the log
        record(f"Completed failover to DB instance: {promoted.name}")

    def make(
        self,
        name: str | None = None,
        zone: str | None = None,
        tier: int = DEFAULT_TIER,
        before: Address | None = None,
        instance_class: str | None = None,
        *,
        autoscaled: bool = False,
    ) -> Instance:
        """Enter a new instance; its directory does not exist yet.

        Args:
            name: None: the next number.
            zone: None: in turn.
            tier: promotion tier.
            before: the address that it had before; it gets another one if that is taken.
            instance_class: None: that of the cluster.
            autoscaled: see `Instance`.

        Raises:
            AddressInUseError: there is no address for it, or no host.
        """
        self._made += 1
        while name is None and f"{self.names.cluster}-{self._made}" in self.instances:
            self._made += 1
        name = name or f"{self.names.cluster}-{self._made}"
        instance_class = instance_class or self.instance_class
        if self.hosts is not None:
            placed, zone = self.hosts.place(name, zone)
            made = Instance(placed, zone, tier, Address(placed.host, placed.port), instance_class=instance_class)
            made.capacity = self.first_capacity
            self.instances[name] = made
            return made
        taken = {instance.address for instance in self.instances.values()}
        taken |= {Address(instance.engine.host, instance.engine.port) for instance in self.instances.values()}
        address = self.allocator.take(taken, before)
        own = self.allocator.take_any({*taken, address}) if self.relay_client is not None else address
        access = self.iam.access(name) if self.iam is not None else settings.ACCESS
        where = self.run / (f"autoscaled-{self._made}" if autoscaled else name)  # a socket's path has to be short
        engine = Engine(name, where, self.binaries, self.account, host=own.host, port=own.port, access=access)
        wire = engine.home / FOLDER if self.relay_client is not None else None
        zone = zone or self.zones[(self._made - 1) % len(self.zones)]
        made = Instance(engine, zone, tier, address, wire, instance_class, autoscaled=autoscaled)
        made.capacity = self.first_capacity
        self.instances[name] = made
        return made

    def discard(self, instance: Instance) -> None:
        """Take an instance out, end its processes and delete its files."""
        self.instances.pop(instance.name, None)
        instance.engine.kill()
        instance.forget()
        if self.relay_client is not None:
            self.relay_client.close_routes(instance)
        instance.engine.remove()

    def settings(self, instance: Instance) -> dict[str, str]:
        """The settings that the role of `instance` asks for."""
        extra = {**(self.authority.settings(instance.engine) if self.authority else {}), **self.overrides}
        if instance is self.writer:
            return {**self.volume.writer_settings(), **extra}
        writer = self.writer.where if self.writer is not None else None
        chosen = {**self.volume.reader_settings(instance.name, writer), **extra}
        return self.relay_client.through(instance, chosen) if self.relay_client is not None else chosen

    def to_record(self) -> dict[str, Any]:
        """The instances, as they are written down for a cluster that is started again."""
        instances = [
            {
                "name": one.name,
                "zone": one.zone,
                "tier": one.tier,
                "class": one.instance_class,
                "autoscaled": one.autoscaled,
                "host": one.address.host,
                "port": one.address.port,
            }
            for one in self.instances.values()
            if one.state != "deleting"
        ]
        writer = self.writer.name if self.writer is not None else None
        return {"instances": instances, "writer": writer, "epoch": self.epoch, "made": self._made}

    def find_again(self, written: Mapping[str, Any], readers: int) -> Instance:
        """Enter the instances that were written down, and as many readers as are wanted; returns the next writer.

        Raises:
            AddressInUseError: there is no address for one.
        """
        known = written["instances"]
        first = next((one["name"] for one in known if one["name"] == written["writer"]), known[0]["name"])
        others = [one["name"] for one in known if one["name"] != first][:readers]
        for one in known:
            if one["name"] == first or one["name"] in others:
                address = Address(one["host"], one["port"])
                autoscaled = bool(one.get("autoscaled"))
                self.make(one["name"], one["zone"], one["tier"], address, one.get("class"), autoscaled=autoscaled)
        self._made = max(self._made, written["made"])
        for _ in range(readers - len(others)):
            self.make()
        self.epoch = written["epoch"]
        return self.instances[first]

    async def start(self, instance: Instance) -> None:
        """Start the server in the role that the instance has, and wait until it answers.

        A reader that has to replay log first is not available yet, see `settle`, and takes no connections until it has:
        after `REPLAYS` seconds it is left to the heartbeat.

        Raises:
            EngineError: it did not.
        """
        instance.stopped_by_request = False
        instance.forget()
        if self.relay_client is not None:
            await self.relay_client.open(instance)
        instance.engine.configure(self.settings(instance), standby=instance is not self.writer)
        instance.engine.write_status(self.shown(instance.name, self.rows()))
        if instance is not self.writer:
            instance.catch_up_lsn = self.log_end()
            instance.owes_log, instance.started_at = True, time.monotonic()
            if instance.engine.here:
                self.volume.hold_back(instance.engine.where)
        instance.engine.start()
        if await self._answers(instance):
            await instance.sample(timeout=2.0)  # its row is complete before any client sees it
            if instance is not self.writer:
                instance.catch_up_lsn = self.log_end()
            self.settle(instance)

    @staticmethod
    async def _answers(instance: Instance) -> bool:
        """Wait until it takes connections; False: it still replays.

        Raises:
            EngineError: it ended, or does not start.
        """
        if instance.catch_up_lsn is None:
            await instance.engine.wait()
            return True
        deadline = time.monotonic() + REPLAYS
        while await instance.engine.wait(State.STARTING, State.STANDBY, State.READY) is State.STARTING:
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK)
        return True

    def settle(self, instance: Instance) -> bool:
        """Whether an instance that answers has replayed up to its `catch_up_lsn`; from then on it is available.

        The log up to there may have been cut off since, by a failover without a durable log or by a backtrack: then
        the end of the log is enough.
        """
        newest, goal = instance.newest, instance.catch_up_lsn
        if goal is not None and (newest is None or newest.applied < min(goal, self.log_end())):
            return False
        instance.catch_up_lsn = None
        if instance.state != "deleting":
            instance.state = "available"
        return True

    async def wait_until_caught_up(self, instance: Instance) -> None:
        """Return when an instance that was started is available, or down again, or after `CATCH_UP` seconds.

        The lock need not be held: its holder may go on, as a failover must.
        """
        deadline = time.monotonic() + CATCH_UP
        while instance.catch_up_lsn is not None and instance.engine.alive and time.monotonic() < deadline:
            await asyncio.sleep(LOOK if instance.newest is not None else 5 * LOOK)
            await instance.sample(timeout=1.0)
            if self.settle(instance):
                self.publish()

    def log_end(self) -> int:
        """End of the log that a reader can replay, in bytes; 0: unknown."""
        durable, writer = self.volume.durable_lsn(), self.writer
        if durable is None and writer is not None and writer.newest is not None:
            durable = writer.newest.received
        return durable or 0

    def publish(self) -> None:
        """Publish a change of role, membership or state at once."""
        self.events.compare({one.name: one.state for one in self.instances.values()})
        self.write_status()
        self.changed()

    def write_status(self) -> None:
        """Refresh what ``aurora_replica_status()`` shows on every running instance."""
        rows = self.rows()
        for instance in self.instances.values():
            if instance.engine.alive:
                with contextlib.suppress(OSError):  # its directory is being replaced
                    instance.engine.write_status(self.shown(instance.name, rows))

    def rows(self) -> Rows:
        """See `sampling.replica_status`."""
        members = [
            sampling.Member(
                instance.name,
                instance.session_id,
                instance is self.writer,
                tuple(instance.samples),
                instance.lag,
                instance.cpu,
            )
            for instance in self.instances.values()
            if instance.state != "deleting"
            and ((instance.samples and instance.catch_up_lsn is None) or instance is self.writer)
        ]
        rows = sampling.replica_status(members, self.volume.durable_lsn())
        for member, row in zip(members, rows, strict=True):
            instance = self.instances[member.name]
            row.update(endpoint=self.names.instance(member.name), port=instance.address.port)
        return rows


async def together(work: Iterable[Coroutine[object, object, None]]) -> None:
    """Run all of `work` at once; the first failure is raised after all have ended."""
    results = await asyncio.gather(*work, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
