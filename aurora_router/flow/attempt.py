"""What one connect knows while it dials: its target, its deadline, and its failures.

Each failure is an attempt that the final error lists, an observation that may change the view, and a reason to avoid
the instance for a while. If no other try could succeed, the driver's own error is raised at once instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic

from aurora_router.errors import (
    Attempt,
    InstanceTimeout,
    NameNotResolved,
    NameNotVerifiable,
    NoInstanceAvailable,
    WriterTimeout,
    WriterUnavailable,
)
from aurora_router.flow.cluster import Reservation
from aurora_router.flow.dial_limiter import TOO_MANY_CONNECTIONS, DialPermit
from aurora_router.flow.runtime import ConnT, DialFailed, Runtime, Target, Wanted
from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.model.event import ClaimRefused
from aurora_router.model.instance import Role
from aurora_router.model.observation import Failure
from aurora_router.policy.route import Address, Mode, Request, Route, given_host, locate
from aurora_router.policy.verdict import FaultKind, Next, judge

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster
    from aurora_router.model.instance import Instance

_UNVERIFIABLE = frozenset({EndpointKind.OTHER, EndpointKind.GLOBAL})
"""Names that no certificate of Aurora's carries."""


ROOM_SECONDS = 0.5
"""How long a dial waits for the monitor to close its sessions, in seconds."""
LEAVING_SECONDS = 0.05
"""How long a server process takes to end after its client has disconnected, in seconds."""


class AttemptFailed(Exception):
    """This attempt failed; a retry may succeed."""


class Silent(AttemptFailed):
    """An instance did not answer in time, or not before it was given up."""


class InstanceNotLocated(AttemptFailed):
    """The address of an instance is unknown."""


async def resolve_target(
    runtime: Runtime[ConnT], name: str, host: str | None, port: int | None, *, fresh: bool
) -> Target:
    """The target at a host: its addresses are asked for, unless it is a socket or left to libpq.

    Raises:
        DialFailed: it has no address.
    """
    if not host or host[0] in "/@":
        return Target(name, host, port)
    return Target(name, host, port, (await runtime.resolve(host, fresh=fresh)).addresses)


class ConnectAttempt(Generic[ConnT]):
    """One connect as far as it dials: what it was asked for, what it has tried."""

    def __init__(self, runtime: Runtime[ConnT], cluster: Cluster, request: Request, route: Route) -> None:
        self.runtime = runtime
        self.cluster = cluster
        self.request = request
        self.route = route
        self.attempts: list[Attempt] = []
        self.doubt = False
        self._started = cluster.used_at = runtime.now()
        self._before = cluster.view
        self._answers = False
        self._faults: set[FaultKind] = set()
        self._sqlstates: set[str | None] = set()
        self._lives = False
        self._last: BaseException | None = None
        self._silent_at: set[str] = set()
        self._reservation: Reservation | None = None
        self._is_placeless = False

    def left(self) -> float:
        """Seconds for which it makes sense to go on, at least 0; 0 where the connection is not wanted any more."""
        if self.request.wanted is not None and not self.request.wanted():
            return 0.0
        return max(0.0, self._started + self._patience() - self.runtime.now())

    # ------------------------------------------------------------ dialling

    async def _given(self, address: Address) -> Target:
        """The target that the user named."""
        if address.hostaddr is not None:
            return Target(str(address), address.host, address.port, (address.hostaddr,))
        return await self._target(str(address), given_host(self.request, self.route, address), address.port)

    async def _located(self, instance: Instance) -> Target:
        if self.route.mode is Mode.LIST:
            return await self._given(next(each for each in self.request.given if str(each) == instance.id))
        address = locate(instance, self.route, self.request.options)
        if address is None:
            unknown = "its address is unknown (aurora_instance_host does not give it)"
            self.attempts.append(Attempt(instance.id, unknown, 0.0))
            raise InstanceNotLocated(f"{instance.id}: {unknown}")
        return await self._target(instance.id, address.host, address.port)

    async def _target(self, name: str, host: str | None, port: int | None) -> Target:
        started = self.runtime.now()
        try:
            return await resolve_target(self.runtime, name, host, port, fresh=self._rotates(host))
        except DialFailed as failed:
            raise self._note_failure(name, failed, started, None) from failed

    def _rotates(self, host: str | None) -> bool:
        """Whether a name is to be resolved afresh: to another member's turn, or to the writer of this moment."""
        return (self._is_placeless or self.route.mode is Mode.NAME) and host == self.request.given[0].host

    def _reserve(self, instance: str) -> None:
        """Count a connection from the moment on that its instance was chosen; the caller holds the cluster's lock."""
        self._reservation = Reservation(self.cluster, instance)
        self.cluster.reserve(self._reservation)

    def _release(self) -> None:
        """Release the reservation, if any."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            reservation.cluster.release(reservation)

    async def _dial_reserved(self, instance: Instance) -> ConnT:
        """Dial an instance at which a reservation is taken."""
        cluster, turn = self.cluster, DialPermit(self.runtime, self.cluster)
        try:
            target = await self._located(instance)
            if instance.role is Role.WRITER:
                stands_in = self.route.role is not WantedRole.WRITER
                self._hold_to(instance, began=await turn.wait(self.left, stands_in=stands_in))
            started = self.runtime.now()
            connection = await self._dial(target, instance, turn)
            cluster.record_success(instance.id, self.runtime.now() - started, self.runtime.now())
            turn.record_success()
            return connection
        finally:
            turn.end()

    def _hold_to(self, instance: Instance, *, began: bool) -> None:
        """After a wait: whether the writer that was chosen before it is still the one to dial."""
        if not began:
            raise AttemptFailed(f"{instance.id} was too busy to be dialled")
        changed = self.cluster.view.writer != instance.id
        if changed or (self.route.role is WantedRole.WRITER and self.cluster.suspected_at is not None):
            raise AttemptFailed(f"{instance.id} was the writer, and now another one is, or it is suspected")

    async def _dial(self, target: Target, instance: Instance | None, turn: DialPermit | None = None) -> ConnT:
        started, address = self.runtime.now(), target.addresses[0] if target.addresses else None
        wanted = self._wanted(target.name if instance is None else instance.id, address, target.port)
        try:
            glancing = wanted if turn is None or wanted is None else turn.note_glances(wanted)
            asked = Target(target.name, target.host, target.port, target.addresses, glancing)
            connection = await self._dial_once(asked)
        except DialFailed as failed:
            self.cluster.record_dial_failure(target.addresses)
            if failed.fault.kind is FaultKind.TIMEOUT:
                self._silent_at.update(target.addresses)
            if turn is not None and (wanted is None or wanted()):
                turn.record_failure(failed.fault)
            self._answers = self._answers or (failed.fault.kind is FaultKind.REFUSED and bool(target.addresses))
            raise self._note_failure(target.name, failed, started, instance, wanted) from failed
        self._answers = True
        return connection

    async def _dial_once(self, target: Target) -> ConnT:
        """Dial; once more if the monitor's sessions may have taken the last connection slots, after they are closed."""
        try:
            return await self.runtime.dial(target, self._dial_seconds())
        except DialFailed as failed:
            if failed.fault.sqlstate != TOO_MANY_CONNECTIONS or not self.cluster.make_room():
                raise
        news = self.cluster.news
        if self.cluster.is_crowded:
            await self.runtime.wait_for_news(self.cluster, news, min(ROOM_SECONDS, self.left()))
        await self.runtime.sleep(LEAVING_SECONDS)
        return await self.runtime.dial(target, self._dial_seconds())

    def _wanted(self, name: str, address: str | None = None, port: int | None = None) -> Wanted | None:
        """Whether an instance is still worth waiting for: it did not hang, leave, or change its role meanwhile.

        Args:
            name: its id, or the name by which it was dialled.
            address: where it is, for a name that is no id.
            port: the port there.

        Returns:
            None where it is not known which instance that is, and the request is wanted until its time is over.
        """
        cluster = self.cluster
        id_ = name if name in cluster.view.instances else cluster.by_address.get(f"{address}:{port}", "")
        known = cluster.view.instances.get(id_)
        needed = self.request.wanted
        if known is None:
            return needed
        return lambda: cluster.view.is_current(known.id, known.generation) and (needed is None or needed())

    def _dial_seconds(self) -> float:
        """How long a dial may take; in the only round (``aurora_failover_timeout=0``) that is all that limits it."""
        options = self.request.options
        limit = options.connect_timeout
        return max(0.1, min(limit, self.left())) if options.failover_timeout > 0.0 else limit

    # ------------------------------------------------------------ failing

    def _note_failure(
        self,
        name: str,
        failed: DialFailed,
        started: float,
        instance: Instance | None,
        wanted: Wanted | None = None,
    ) -> AttemptFailed:
        """Take note of a failure; raises the driver's own error where no other try could end otherwise."""
        now = self.runtime.now()
        if wanted is not None and not wanted():
            text = "given up: meanwhile it hung, left, or changed its role"
            if self.request.wanted is not None and not self.request.wanted():
                text = "given up: the connection is not wanted any more"
            self.attempts.append(Attempt(name, text, now - started))
            return Silent(f"{name}: {text}")
        verdict = judge(failed.fault)
        self.attempts.append(Attempt(name, failed.fault.text or verdict.name, now - started))
        self._last = failed.cause
        self._faults.add(failed.fault.kind)
        self._sqlstates.add(failed.fault.sqlstate)
        if instance is not None and (verdict.down or verdict.quarantine):
            self._lives = failed.fault.kind is FaultKind.REJECTED and not verdict.down
            known = self.cluster.quarantine.remaining(instance.id, now) > 0.0
            if not known or (not self._lives and self.cluster.view.lacks_failure(instance.id)):
                self.cluster.observe(
                    Failure(instance.id, instance.generation, gone=False, reason=verdict.name, alive=self._lives), now
                )
            if verdict.quarantine:
                self.cluster.record_failure(instance.id, now, self.request.options.quarantine, started)
            if not self._lives:
                self.cluster.suspect_writer(f"a dial of {instance.id} failed: {verdict.name}", now)
        alone = len(self.request.given) == 1
        if failed.fault.kind is FaultKind.NAME and alone and not self.cluster.view.known:
            raise NameNotResolved(failed.fault.text, attempts=self.attempts) from failed.cause
        if failed.fault.kind is FaultKind.IDENTITY and self.route.endpoint.kind in _UNVERIFIABLE:
            raise NameNotVerifiable(
                f"sslmode=verify-full: the server's certificate is not for {self.request.given[0].host!r} "
                f"({failed.fault.text}): connect by the endpoint's real name, or let aurora_trust_cname=on verify the "
                "name that DNS says it is an alias of",
                view=self.cluster.view,
            ) from failed.cause
        if verdict.then is Next.RAISE:
            raise failed.cause from None
        self._answers = self._answers or failed.fault.sqlstate is not None
        return (Silent if failed.fault.kind is FaultKind.TIMEOUT else AttemptFailed)(failed.fault.text)

    def _patience(self) -> float:
        """Seconds to go on from the start.

        Where a server, or at least a host that refuses, has answered, it is an outage: the failover timeout. Where
        all was silent since this process began, it may as well be a wrong address or a firewall: one dial for each
        host that was given.
        """
        options = self.request.options
        if self.cluster.view.known or self._answers:
            return options.failover_timeout
        return min(options.failover_timeout, options.connect_timeout * len(self.request.given))

    def _new_error(self, *, early: bool = False) -> NoInstanceAvailable:
        """The error that ends the search; `early`: after one round, with time left."""
        wanted, patience = self.route.role.value, self._patience()
        once = early or patience == 0.0
        message = (
            f"no {'instance' if wanted == 'any' else wanted} of the cluster at {self.request.given[0]} could be "
            f"connected {'in one round' if once else f'within {patience:g} s'}: {self._reason()}. "
            f"{self._claims_refused()}Known: {_known(self.cluster)}.{' Tried:' if self.attempts else ''}"
        )
        known = self.cluster.view
        late, full = self._faults == {FaultKind.TIMEOUT}, self._sqlstates == {TOO_MANY_CONNECTIONS}
        if self.route.role is WantedRole.WRITER and self._before.known and not full:
            kind: type[NoInstanceAvailable] = WriterTimeout if late else WriterUnavailable
        else:
            kind = InstanceTimeout if late else NoInstanceAvailable
        error = kind(message, attempts=self.attempts, view=known, trail=tuple(self.cluster.trail))
        if full:
            error.sqlstate = TOO_MANY_CONNECTIONS
        if isinstance(error, WriterUnavailable):
            error.before = self._before
        return error

    def _claims_refused(self) -> str:
        """Why instances that take themselves for the writer were not accepted meanwhile, in sentences."""
        if self.route.role is not WantedRole.WRITER:
            return ""
        reasons = {
            event.claimed: event.reason
            for at, event in self.cluster.trail
            if at >= self._started and isinstance(event, ClaimRefused)
        }
        return "".join(f"{id_} takes itself for the writer, but {reason}. " for id_, reason in reasons.items())

    def _reason(self) -> str:
        """Why the last round failed, in words."""
        if self._sqlstates == {TOO_MANY_CONNECTIONS}:
            return f"what was dialled is up, and has no connection slot free for this user ({TOO_MANY_CONNECTIONS})"
        return str(self._last)

    def _cause(self) -> BaseException | None:
        """The driver's own error behind the last failure, if there is one."""
        cause = self._last.__cause__ if isinstance(self._last, AttemptFailed) else self._last
        return cause.cause if isinstance(cause, DialFailed) else cause


def _known(cluster: Cluster) -> str:
    told = [f"{each.id} ({each.role.value})" for each in cluster.view.instances.values()]
    return ", ".join(told) or "nothing"
