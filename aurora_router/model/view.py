"""The cluster as one client knows it: an immutable value, replaced as a whole."""

from __future__ import annotations

from dataclasses import field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aurora_router.frozen import frozen
from aurora_router.model.description import MEMBERS_SECONDS, NO_MEMBERS, UNKNOWN
from aurora_router.model.instance import Role

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aurora_router.model.description import Attributes, CustomEndpoint
    from aurora_router.model.drain import Drain
    from aurora_router.model.instance import Instance

PROOF_SECONDS = 6.0
"""For how long it counts that a new writer has not shown what it makes durable (`View.fresh`), in seconds.

It is asked meanwhile. Where it cannot be, as behind a pooler, a former one may be the only one that can be had."""


@frozen
class Outage:
    """What was seen since the accepted writer stopped answering, or said that it is a reader.

    Attributes:
        writer: the accepted writer that it is about.
        since: when it began, by the runtime's clock in seconds.
        reason: for people.
        named: what instances that were asked since answered: (id, the writer that it named; None: it named none).
        failed: ids of instances that did not answer since.
    """

    writer: str
    since: float
    reason: str
    named: frozenset[tuple[str, str | None]] = frozenset()
    failed: frozenset[str] = frozenset()


@frozen
class View:
    """What is known of a cluster.

    Attributes:
        instances: by id, in the order of their names.
        writer: id of the accepted writer, None while there is none.
        epoch: local counter, + 1 at each accepted change of writer; nothing the server says.
        token: the source's monotone evidence for the accepted writer (plain PostgreSQL: the timeline; Aurora: the
            highest durable LSN in the answer by which it was accepted or confirmed last); None when the source has
            none. Kept while there is no writer, so that an older claim stays refused.
        system: the history that `token` is of, see `observation.Row.system`; None: not known.
        lsn: how far the accepted writer's log was written when it was asked last; None: not known.
        lsn_at: when that was, by the runtime's clock in seconds.
        accepted_at: when the writer was accepted, by the runtime's clock in seconds.
        unproven: whether a writer was accepted with a token that was not higher than the one before, and none has shown
            since, `observation.ROW_AGE_SECONDS` after it was accepted, how much it makes durable.
        fresh: whether the accepted writer has not shown yet, `ROW_AGE_SECONDS` after it was accepted, how much it makes
            durable; until then a former one may have made durable more than `token`.
        set_back: whether a writer ever went on with a lower token: then a higher one of a former writer proves nothing.
        provisional: whether `token` may be from before the accepted writer's promotion: its own row was still a
            reader's.
        shown: the lowest token with which each former writer, or another one that may be fenced, claimed once the
            accepted one had been accepted for `ROW_AGE_SECONDS`: (id, token).
        monotone: whether that evidence never decreases, see `observation.Topology.monotone`.
        former: ids that were the writer in an earlier epoch.
        yielded_at: those of them that have said of themselves, since the accepted writer was, that they are readers, as
            no zombie does: (id, when it was asked). Others, too, that said so in the first `PROOF_SECONDS` of that.
        ended_at: those of them whose process has ended since then, where there are no tokens: (id, when that was seen).
        outage: the evidence that the accepted writer may not be the writer any more; None: there is none.
        retired: the last generation of instances that left, so that a name that comes back is not taken for the same.
        leftovers: rows of unknown instances that seem to be leftovers, see `reduce`: id -> `observation.Row.updated`.
        refreshed_at: the time by the runtime's clock, in seconds, of the last accepted topology; None before the first.
        attributes: of instances, by id in lower case, as `description.Description` has them; see `attributes_of`.
        endpoints: the members of custom endpoints, by the endpoint's name in lower case.
        described_at: when `endpoints` was read last, by the runtime's clock in seconds; None: never.
        led_by: the id of the instance that a manager names as the writer: where to ask first, and no evidence.
        reserved: the ids of instances that a manager keeps from reads.
        own_zone: the name that the zone of this process has among those of the instances; None: not known.
        auto_pause: after how many seconds without connections the instances pause, as far as it is described.
        drains: the drains as they were read last, by the instance's id in lower case; see `find_drain`.
        drains_from_writer: whether the writer reported them, which knows them before any reader does.
    """

    instances: Mapping[str, Instance] = field(default_factory=lambda: MappingProxyType({}))
    writer: str | None = None
    epoch: int = 0
    token: int | None = None
    system: str | None = None
    lsn: int | None = None
    lsn_at: float = 0.0
    accepted_at: float = 0.0
    unproven: bool = False
    fresh: bool = False
    set_back: bool = False
    provisional: bool = False
    shown: frozenset[tuple[str, int]] = frozenset()
    monotone: bool = False
    former: frozenset[str] = frozenset()
    yielded_at: frozenset[tuple[str, float]] = frozenset()
    ended_at: frozenset[tuple[str, float]] = frozenset()
    outage: Outage | None = None
    retired: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    leftovers: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    refreshed_at: float | None = None
    attributes: Mapping[str, Attributes] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[str, CustomEndpoint] = field(default_factory=lambda: MappingProxyType({}))
    described_at: float | None = None
    own_zone: str | None = None
    auto_pause: float | None = None
    drains: Mapping[str, Drain] = field(default_factory=lambda: MappingProxyType({}))
    drains_from_writer: bool = False
    led_by: str | None = None
    reserved: frozenset[str] = frozenset()

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        """Pickle and copy, as errors do with what they hold; a read-only mapping can do neither by itself."""
        values = (getattr(self, each.name) for each in fields(self))
        return _restore, tuple(dict(each) if isinstance(each, MappingProxyType) else each for each in values)

    @property
    def known(self) -> bool:
        """Whether any topology was ever accepted."""
        return self.refreshed_at is not None

    @property
    def shown_system(self) -> str | None:
        """The history that SQL has shown: the accepted writer's, else the one of all that answered; None: not known."""
        systems = {each.system for each in self.instances.values() if each.system is not None}
        return self.system if self.system is not None or len(systems) != 1 else systems.pop()

    def lacks_proof(self, now: float) -> bool:
        """Whether the writer was accepted a moment ago, and has not shown yet what it makes durable (`fresh`)."""
        return self.fresh and self.token is not None and now - self.accepted_at < PROOF_SECONDS

    def attributes_of(self, instance: str) -> Attributes:
        """The attributes of an instance; what is not known is None."""
        return self.attributes.get(instance.lower(), UNKNOWN)

    def find_endpoint(self, name: str, now: float) -> CustomEndpoint:
        """The members of a custom endpoint; `NO_MEMBERS`: they are not known, or were read too long ago."""
        return self.endpoints.get(name, NO_MEMBERS) if self.has_recent_endpoints(now) else NO_MEMBERS

    def has_recent_endpoints(self, now: float) -> bool:
        """Whether `endpoints` was read at most `MEMBERS_SECONDS` ago, so that it still counts."""
        return self.described_at is not None and now - self.described_at <= MEMBERS_SECONDS

    def has_member(self, endpoint: str | None, instance: str) -> bool:
        """Whether an instance is, or may be, a member of a custom endpoint, as its members were known last."""
        members, known = self.endpoints.get(endpoint or ""), self.instances.get(instance)
        return members is None or known is None or members.has_member(known)

    def find_drain(self, instance: Instance, now: float) -> Drain | None:
        """The drain of a reader, if one goes on; the writer is not drained, nor is a reader that was promoted."""
        if not self.drains or instance.role is Role.WRITER:
            return None
        found = self.drains.get(instance.id.lower())
        return None if found is None or found.until <= now else found

    def readers(self) -> Iterator[Instance]:
        """The instances in the role of a reader, by name."""
        return (each for each in self.instances.values() if each.role is Role.READER)

    def lacks_growth(self, instance: str) -> bool:
        """Whether an instance's claim to be the writer would be accepted once its token grows (`shown`)."""
        token = dict(self.shown).get(instance)
        return token is not None and (self.outage is not None or self.token is None or token >= self.token)

    def lacks_failure(self, instance: str) -> bool:
        """Whether a failure of an instance would be news for the question which instance the writer is."""
        if self.outage is None:
            return instance == self.writer
        return instance not in self.outage.failed

    def lacks_end(self, instance: str) -> bool:
        """Whether the end of an instance's process would be news: whether it may be the writer again depends on it."""
        is_unknown = instance not in dict(self.ended_at) and instance not in dict(self.yielded_at)
        return self.token is None and instance in self.former and is_unknown

    def lacks_report(self, instance: str) -> bool:
        """Whether another answer of an instance may decide on a claim that was refused in the present outage."""
        named = {} if self.outage is None else dict(self.outage.named)
        claimants = {id_ for id_, writer in named.items() if id_ == writer}
        return bool(claimants) and named.get(instance) not in claimants

    def is_current(self, instance: str, generation: int) -> bool:
        """Whether a connection made to `instance` at `generation` may still be used."""
        known = self.instances.get(instance)
        return known is not None and known.generation == generation


def _restore(*pickled: Any) -> View:
    """The view that was pickled or copied."""
    values: list[Any] = [MappingProxyType(each) if isinstance(each, dict) else each for each in pickled]
    return View(*values)
