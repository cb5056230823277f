"""A simulated cluster: instances with their faults, what each of them knows of the others, the names of all.

It answers service queries with the rows that a server would send (`answers`), so that the library's own parsers read
them. It is a stand-in for topology, names and faults, in procedures; it is no database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.runtime.simulated.instance import Condition, SimulatedInstance

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.runtime import Rows
    from aurora_router.model.drain import DrainNote
    from aurora_router.runtime.simulated.network import Network

LSN_PER_SECOND = 1000
"""By how much the durable LSN of a volume grows in a second."""
RECORD_BYTES = 16
"""By how much a record lets it grow."""
LATE_SECONDS = 0.5
"""How old what rows show as durable is, where a promoted instance reports it late; in seconds."""


def _grow_evenly(seconds: float) -> int:
    return int(seconds * LSN_PER_SECOND)


class SimulatedCluster:
    """A cluster within a simulation.

    Args:
        network: where it is.
        name: the first part of its endpoints; instances are called ``{name}-1`` and so on.
        readers: how many to begin with.
        domain: what follows an instance's id in its name.
        port: of all instances.
        aurora: whether it has Aurora's functions; False: plain PostgreSQL.
        multi_az: whether it is an RDS Multi-AZ DB cluster: plain PostgreSQL with `rds_tools`; `aurora` is False then.
        dns_delay: seconds by which the cluster endpoint follows a change of writer.
        zones: of the instances, in turn.

    Attributes:
        instances: by id.
        customs: custom endpoints: label -> ids of the members.
        grown: by how much the log grew in so many seconds since its beginning, or since it was set back.
        drains: the notes of drains that every instance has.
        late: for how many seconds after a promotion the rows show what was durable `LATE_SECONDS` before it.
    """

    def __init__(
        self,
        network: Network,
        name: str = "demo",
        *,
        readers: int = 2,
        domain: str = "abc123.eu-test-1.rds.aurora.test",
        port: int = 5432,
        aurora: bool = True,
        multi_az: bool = False,
        dns_delay: float = 0.0,
        zones: tuple[str, ...] = ("eu-test-1a", "eu-test-1b", "eu-test-1c"),
    ) -> None:
        self.network = network
        self.name = name
        self.domain = domain
        self.port = port
        self.aurora = aurora and not multi_az
        self.multi_az = multi_az
        self.dns_delay = dns_delay
        self.zones = zones
        self.instances: dict[str, SimulatedInstance] = {}
        self.customs: dict[str, tuple[str, ...]] = {}
        self.grown: Callable[[float], int] = _grow_evenly
        self.drains: tuple[DrainNote, ...] = ()
        self.late = 0.0
        self._lsn = (0.0, 1_000_000)
        self._shown = (0.0, 0)
        self._dns_updates: list[tuple[float, str]] = []
        self._number = 0
        for _ in range(readers + 1):
            self.add(writer=not self.instances)
        network.dns.serve(self)

    # ------------------------------------------------------------ what it is

    @property
    def writer(self) -> SimulatedInstance | None:
        """The instance that the control plane holds for the writer (a zombie may believe otherwise)."""
        id_ = self._dns_updates[-1][1] if self._dns_updates else ""
        return self.instances.get(id_)

    @property
    def readers(self) -> tuple[SimulatedInstance, ...]:
        """All other instances."""
        return tuple(each for each in self.instances.values() if each is not self.writer)

    @property
    def now(self) -> float:
        """The virtual time, in seconds."""
        return self.network.simulation.now

    def next_pid(self) -> int:
        """Return a process id that no backend has had."""
        return self.network.next_pid()

    @property
    def durable_lsn(self) -> int:
        """The durable LSN of the volume, now."""
        since, base = self._lsn
        until, shown = self._shown
        return shown if self.now < until else base + self.grown(self.now - since)

    @property
    def open_connections(self) -> int:
        """Of all processes, to all instances."""
        return sum(len(each.connections) for each in self.instances.values())

    def host(self, target: str = "writer") -> str:
        """The host name of ``writer``, ``reader``, ``instance:ID`` or ``custom:LABEL``."""
        kind, _, which = target.partition(":")
        prefix = {"writer": f"{self.name}.cluster-", "reader": f"{self.name}.cluster-ro-"}.get(kind)
        if prefix is None:
            prefix = f"{which}." if kind == "instance" else f"{which}.cluster-custom-"
        return prefix + self.domain

    def conninfo(self, target: str = "writer", **options: object) -> str:
        """A conninfo for one of the `host` names."""
        keys = {"host": self.host(target), "port": self.port, "dbname": "app", **options}
        return " ".join(f"{key}={value}" for key, value in keys.items() if value is not None)

    # ------------------------------------------------------------ what happens to it

    def add(self, id_: str | None = None, *, writer: bool = False) -> SimulatedInstance:
        """Add an instance; a reader by default."""
        self._number += 1
        zone = self.zones[(self._number - 1) % len(self.zones)] if self.zones else None
        instance = SimulatedInstance(
            id_ or f"{self.name}-{self._number}", self.network.free_address(), writer=writer, zone=zone
        )
        self.instances[instance.id] = instance
        self.network.listen(instance.address, self.port, self, instance)
        if writer:
            instance.lag = 0.0
            self._record_promotion(instance)
        return instance

    def remove(self, id_: str) -> None:
        """Remove an instance: its connections break, its name and its row are gone."""
        instance = self.instances.pop(id_)
        self.network.leave(instance.address, self.port)
        instance.drop_connections()

    def crash(self, id_: str) -> None:
        """Kill an instance: its connections break, dials are refused."""
        instance = self.instances[id_]
        instance.condition = Condition.REFUSING
        instance.drop_connections()

    def hang(self, id_: str) -> None:
        """Let an instance stop answering; its connections stay open and silent."""
        instance = self.instances[id_]
        instance.condition, instance.silent = Condition.HANGING, True

    def heal(self, id_: str) -> None:
        """Let an instance answer again, as what it was."""
        instance = self.instances[id_]
        instance.condition, instance.silent = Condition.WELL, False

    def restart(self, id_: str, seconds: float = 1.0) -> None:
        """Restart an instance: it starts up for `seconds`, in the role that the control plane gives it."""
        instance = self.instances[id_]
        instance.drop_connections()
        instance.condition = Condition.STARTING
        instance.writer = instance is self.writer
        self.network.simulation.at(self.now + seconds, lambda: self.heal(id_))

    def failover(self, to: str, *, zombie: bool = False) -> None:
        """Promote a reader, at once; the former writer restarts as a reader.

        Args:
            to: id of the new writer.
            zombie: the former writer goes on believing that it is the writer, with the view that it had.
        """
        former, promoted = self.writer, self.instances[to]
        if former is not None and former is not promoted:
            if zombie:
                self.freeze_view(former.id)
            else:
                former.writer, former.lag = False, 0.01
                former.drop_connections()
        promoted.writer, promoted.lag = True, 0.0
        promoted.timeline = max(each.timeline for each in self.instances.values()) + 1
        self._shown = self.now + self.late, self.durable_lsn - _grow_evenly(LATE_SECONDS)
        self._record_promotion(promoted)
        self.write_record(promoted)
        if not zombie:
            for each in self.instances.values():
                each.timeline = promoted.timeline

    def write_record(self, by: SimulatedInstance) -> None:
        """Add a record to the log of the volume, which takes it from the writer alone."""
        if by is self.writer:
            since, base = self._lsn
            self._lsn = since, base + RECORD_BYTES

    def rewind(self, lsn: int) -> None:
        """Set the volume back (or forth) to an LSN, as a backtrack does."""
        self._lsn = self.now, lsn

    def freeze_view(self, id_: str) -> None:
        """Let an instance go on reporting what it knows of the cluster now."""
        instance = self.instances[id_]
        instance._view = (self.now, self.rows())  # noqa: SLF001 - of this module

    def thaw_view(self, id_: str) -> None:
        """Let an instance's view be up to date again."""
        self.instances[id_]._view = None  # noqa: SLF001 - of this module

    def _record_promotion(self, instance: SimulatedInstance) -> None:
        self._dns_updates.append((self.now, instance.id))

    # ------------------------------------------------------------ what it reports

    def rows(self) -> Rows:
        """What every instance knows of all: (server_id, is writer, lag in ms, cpu, durable_lsn), as text.

        A reader that starts up is in no instance's rows.
        """
        reported: Rows = []
        for each in self.instances.values():
            if each.condition is Condition.STARTING and each is not self.writer:
                continue
            cpu = None if each.cpu is None else f"{each.cpu:g}"
            master = "t" if each is self.writer else "f"
            reported.append((each.id, master, f"{each.lag * 1000:g}", cpu, str(self.durable_lsn)))
        return reported

    def addresses(self, name: str, turn: int) -> tuple[str, ...] | None:
        """The zone of the cluster: one address per answer, in turn, where several would do."""
        if not name.endswith(self.domain):
            return None
        for each in self.instances.values():
            if name == self.host(f"instance:{each.id}").lower():
                return (each.address,)
        pool = self._pool(name)
        if pool is None:
            return None
        return (pool[turn % len(pool)].address,) if pool else ()

    def _pool(self, name: str) -> tuple[SimulatedInstance, ...] | None:
        writer = self._writer_by_dns()
        if name == self.host("writer"):
            return (writer,) if writer is not None else ()
        if name == self.host("reader"):
            return tuple(each for each in self.readers if each.condition is Condition.WELL) or self._just(writer)
        for label, members in self.customs.items():
            if name == self.host(f"custom:{label}"):
                return tuple(self.instances[each] for each in members if each in self.instances)
        return None

    def _just(self, instance: SimulatedInstance | None) -> tuple[SimulatedInstance, ...]:
        return () if instance is None else (instance,)

    def _writer_by_dns(self) -> SimulatedInstance | None:
        """The writer as DNS has it: late by `dns_delay`."""
        known = [id_ for time, id_ in self._dns_updates if time == 0 or time + self.dns_delay <= self.now]
        return self.instances.get(known[-1]) if known else None
