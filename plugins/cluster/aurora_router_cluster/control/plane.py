"""The control plane: what can be asked of a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control.failover import FailoverProcedure, Phases
from aurora_router_cluster.control.heartbeat import Heartbeat
from aurora_router_cluster.control.state import DEFAULT_TIER, together
from aurora_router_cluster.dns import names as naming
from aurora_router_cluster.errors import (
    FailoverImpossibleError,
    NameTakenError,
    RequestError,
    TooManyReadersError,
    WriterRequiredError,
)
from aurora_router_cluster.options import check_class
from aurora_router_cluster.rpc.served import served

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from aurora_router_cluster.control.instance import Instance
    from aurora_router_cluster.control.state import ClusterState
    from aurora_router_cluster.control.status import Failover
    from aurora_router_cluster.postgres.endpoints import RecoveryPoint

MOST_READERS = 15
LONGEST_DRAIN = 100.0  # seconds: a client waits no longer for an answer
LONG_REPLAY = 600.0
"""Seconds that the writer of a cluster that is started again has to replay the log since the base."""


class ControlPlane:
    """Requests to one cluster, one change at a time.

    Args:
        state: the instances; empty yet.
        detect: seconds between two heartbeats.
        auto: fail over and restart by itself.
    """

    def __init__(self, state: ClusterState, *, detect: float = 0.2, auto: bool = True) -> None:
        self.state = state
        self.procedure = FailoverProcedure(state)
        self._heartbeat = Heartbeat(state, self.procedure, interval=detect, auto=auto)

    async def create(self, readers: int, template: Path, opened: Callable[[], Awaitable[None]] | None = None) -> None:
        """Make a new cluster of one writer and `readers` readers, copies of `template`; returns when all answer.

        Args:
            readers: how many.
            template: a data directory.
            opened: called once the volume is made, and before any commit can be acknowledged.

        Raises:
            TooManyReadersError: more than fifteen.
            EngineError: an instance did not start.
        """
        if not 0 <= readers <= MOST_READERS:
            raise TooManyReadersError(f"{readers} readers asked for; a cluster has 0 to {MOST_READERS}")
        state = self.state
        async with state.lock:
            source = await state.volume.open(template)
            writer = state.make()
            state.writer, state.epoch = writer, 1
            for _ in range(readers):
                state.make()

            async def first_start(instance: Instance) -> None:
                await instance.engine.clone(source)
                await state.start(instance)

            await together(first_start(instance) for instance in state.instances.values())
            if opened is not None:
                await opened()
            await state.volume.attach(writer.where)
            await together(state.wait_until_caught_up(reader) for reader in state.readers)
        state.publish()
        self._heartbeat.start()

    async def resume(
        self, written: Mapping[str, Any], readers: int, reopen: Callable[[], Awaitable[RecoveryPoint]]
    ) -> Phases:
        """Make the instances of a cluster that was kept, from its volume; returns when all answer and show the present.

        Args:
            written: the instances, see `ClusterState.written`.
            readers: how many there shall be.
            reopen: opens the volume, and returns where its log ends.

        Raises:
            TooManyReadersError: more than fifteen.
            EngineError, FailoverImpossibleError: an instance did not start, or not replay the log.
        """
        if not 0 <= readers <= MOST_READERS:
            raise TooManyReadersError(f"{readers} readers asked for; a cluster has 0 to {MOST_READERS}")
        state, phases = self.state, Phases()
        async with state.lock:
            writer = state.find_again(written, readers)
            point = await reopen()
            phases.end("recover")
            await together(self.procedure.rebuild(instance) for instance in state.instances.values())
            phases.end("seed")
            await self.procedure.promote(writer, point, phases, LONG_REPLAY)
            await together(state.wait_until_caught_up(reader) for reader in state.readers)
            phases.end("readers")
        state.publish()
        self._heartbeat.start()
        return phases

    async def add_reader(
        self,
        name: str | None = None,
        zone: str | None = None,
        tier: int = DEFAULT_TIER,
        instance_class: str | None = None,
        *,
        autoscaled: bool = False,
    ) -> Instance:
        """Add a reader, seeded from the volume; returns when it shows what was durable when it started.

        Raises:
            TooManyReadersError: there are fifteen already.
            NameTakenError: the name is in use, or cannot be one.
            RequestError: unknown zone, a tier outside 0..15, or what is no class.
        """
        state = self.state
        if name is not None:
            naming.check_label(name, "an instance")
        if zone is not None and zone not in state.zones:
            raise RequestError(f"unknown zone {zone!r}; this cluster has {', '.join(state.zones)}")
        _check_tier(tier)
        if instance_class is not None:
            check_class(instance_class)
        async with state.lock:
            if len(state.instances) > MOST_READERS:
                raise TooManyReadersError(
                    f"the cluster has {len(state.readers)} readers; {MOST_READERS} is the most, so remove one first"
                )
            if name in state.instances:
                raise NameTakenError(f"the cluster has an instance {name!r} already; choose another name")
            instance = state.make(name, zone, tier, instance_class=instance_class, autoscaled=autoscaled)
            try:
                await self.procedure.rebuild(instance)
            except BaseException:
                state.discard(instance)
                raise
        state.publish()
        await state.wait_until_caught_up(instance)
        return instance

    async def remove(self, name: str, drain: float = 0.0) -> None:
        """Remove a reader: it leaves the endpoints at once, then its sessions are ended and its files deleted.

        Args:
            name: which.
            drain: how long its sessions may go on, 0 to 100 s (Aurora: 180).

        Raises:
            WriterRequiredError: it is the writer.
            RequestError: `drain` is out of that range.
        """
        if not 0.0 <= drain <= LONGEST_DRAIN:
            raise RequestError(f"a reader cannot be drained for {drain:g} s; give 0 to {LONGEST_DRAIN:g}")
        await self.end_removal(await self.begin_removal(name), drain)

    async def begin_removal(self, name: str) -> Instance:
        """Take a reader out of the endpoints and the rows of the others; returns it.

        Raises:
            WriterRequiredError: it is the writer.
            RequestError: it is being removed already.
        """
        state = self.state
        async with state.lock:
            instance = state.get(name)
            if instance is state.writer:
                raise WriterRequiredError(
                    f"{name} is the writer: fail over to a reader first (cluster failover), then remove {name}, "
                    "or end the whole cluster (cluster down)"
                )
            if instance.state == "deleting":
                raise RequestError(f"{name} is being removed already")
            instance.state = "deleting"
            state.publish()
            return instance

    async def end_removal(self, instance: Instance, drain: float) -> None:
        """End a reader that is being removed, after its sessions have ended, or so many seconds.

        Other changes of the cluster go on meanwhile, a failover for example.
        """
        state = self.state
        try:
            await instance.wait_until_drained(drain)
        finally:
            async with state.lock:
                try:
                    await instance.engine.stop()
                finally:
                    if state.instances.get(instance.name) is instance:
                        state.discard(instance)
                        state.publish()

    @served
    async def set_tier(self, name: str, tier: int) -> None:
        """Change the promotion tier of an instance; the next failover goes by it.

        Raises:
            RequestError: a tier outside 0..15.
        """
        _check_tier(tier)
        async with self.state.lock:
            self.state.get(name).tier = tier
            self.state.publish()

    @served
    async def restart(self, name: str) -> None:
        """Restart the server of an instance in order; it keeps its role.

        Raises:
            EngineError: it did not come back.
            RequestError: it is being removed.
            FailoverImpossibleError: it is the writer, and its log could not be recovered now; it goes on.
        """
        async with self.state.lock:
            instance = self._staying(name)
            if instance is self.state.writer:
                await self.state.volume.check_quorum()
            instance.state = "restarting"
            self.state.publish()
            await instance.engine.stop()
            await self.procedure.restart_instance(instance)
        await self.state.wait_until_caught_up(instance)

    @served
    async def start(self, name: str) -> None:
        """Start an instance that is down; a former writer comes back as a reader.

        Raises:
            RequestError: it runs.
        """
        async with self.state.lock:
            instance = self._staying(name)
            if instance.engine.alive:
                raise RequestError(f"{name} is running; use restart, or thaw where it is frozen")
            await self.procedure.restart_instance(instance)
        await self.state.wait_until_caught_up(instance)

    def _staying(self, name: str) -> Instance:
        instance = self.state.get(name)
        if instance.state == "deleting":
            raise RequestError(f"{name} is being removed; wait until it is gone")
        return instance

    def kill(self, name: str, *, hold: bool = False) -> None:
        """SIGKILL to every process of an instance; the heartbeat does what it does about a lost one.

        Args:
            name: which.
            hold: leave it down until `start`, however long.
        """
        instance = self.state.get(name)
        instance.stopped_by_request = hold
        instance.engine.kill()

    def freeze(self, name: str) -> None:
        """Stop every process of an instance, as a host that hangs: it keeps its sockets and says nothing."""
        self._running(name).engine.freeze()

    def thaw(self, name: str) -> None:
        """Let a frozen instance go on.

        A former writer that the volume does not fence is ended instead; the heartbeat brings it back as a reader.
        """
        instance = self._running(name)
        if instance is not self.state.writer and instance.engine.was_writer and not self.state.volume.fences:
            instance.engine.kill()
        else:
            instance.engine.thaw()

    def _running(self, name: str) -> Instance:
        instance = self.state.get(name)
        if not instance.engine.alive:
            raise RequestError(f"{name} is not running; start it first")
        return instance

    async def failover(self, target: str | None = None) -> Failover:
        """Make a reader the writer: `target`, or the best by tier and by log received.

        A writer that answers is stopped in order first (switchover: nothing is lost); else it is a failover.
        The former writer comes back as a reader by itself.

        Raises:
            UnknownInstanceError: there is no `target`.
            FailoverImpossibleError: no reader can be promoted, or `target` cannot.
        """
        async with self.state.lock:
            if target is not None:
                self.state.get(target)
            done = await self.procedure.failover(target)
        self._heartbeat.expect(done.former)
        return done

    async def after_repair(self, repair: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Repair the volume, and give it a writer: the former one may hold commits that were never acknowledged.

        Args:
            repair: forms a new membership; see `storage.membership.reform`.

        Returns:
            What it returned, and under ``failover`` what the failover did; None: the writer was rebuilt in its
            place, because there was no reader.
        """
        state = self.state
        async with state.lock:
            facts = await repair()
            former = state.writer
            if former is not None:
                former.engine.kill()
            try:
                done = (await self.procedure.failover(None)).as_dict()
            except FailoverImpossibleError:
                if former is None:
                    raise
                await self.procedure.restart_instance(former)
                done = None
        if done is not None:
            self._heartbeat.expect(done["former"])
        return {**facts, "failover": done}

    async def close(self) -> None:
        """End all instances and delete their files."""
        await self._heartbeat.close()
        instances = list(self.state.instances.values())
        await together(instance.engine.stop(immediate=True, timeout=3.0) for instance in instances)
        for instance in instances:
            self.state.discard(instance)
        await self.state.volume.close()


def _check_tier(tier: int) -> None:
    if not 0 <= tier <= 15:
        raise RequestError(f"promotion tier {tier} does not exist; tiers go from 0 (first) to 15 (last)")
