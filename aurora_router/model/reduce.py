"""The only place where a view changes: ``(view, observation, now) -> (view, events)``.

Theory. Clients see a failover in fragments: a query on one instance, a refused dial on another, rows that an
isolated instance keeps reporting. None of them carries an epoch of the server's, and clocks of two instances cannot
be compared. So evidence is ordered:

1. **An instance's report about itself beats rows about others.** Answers are ordered by when they were asked for
   (`Topology.asked_at`, this process's clock): one that was overtaken by a later one of the same instance is ignored,
   and one that was asked for before a writer was accepted neither replaces nor withdraws it.
2. **Only a complete answer takes away.** An answer is complete if all of its rows could be read, the observer's own is
   among them, one instance is marked as the writer, and that row is not older than the accepted evidence. Anything less
   adds instances and facts; it removes no instance, and it neither names a new writer nor withdraws one: a role changes
   by a complete answer or by the instance's own report. An instance is removed when complete answers over
   `MISSING_SECONDS` do not list it, and it has not answered since: one that restarts is in no instance's rows for a
   moment. That time begins again with an answer that ends an outage: a fenced writer that is heard again does not list
   those that came back meanwhile.
3. **Between claims to be the writer the source's monotone token decides** (`Row.token`). A higher one is believed: from
   the claimant itself always, from others in a complete answer, and not for a former writer (failback A -> B -> A is
   legal, a zombie A is not; only A itself can show a token that it had not when it was fenced). What an instance
   reports of itself may be late, or missing, straight after its promotion, while other rows of its answer show more of
   the log. A volume reaches at least as far as any row shows, so the highest token of all rows of the accepted answer
   is what the next claim has to surpass, by the claimant's own token.
4. **A timeline (plain PostgreSQL) never decreases**, so a claim on a lower one, or on none, is refused for good, also
   one of the accepted writer's name (a load balancer led to another server). Each promotion begins a timeline, so an
   equal one is of the same reign.
5. **A durable LSN (Aurora) may be lower** after a promotion (it is reported with a delay) or a backtrack. The storage
   fences the former writer, so a claim that shows no higher token is accepted if all of this holds: the accepted writer
   is in an *outage* (it withdrew, refused to be dialled, or was condemned; `View.outage`); the claimant was asked after
   that began; every other instance known has answered since, or failed; none of those that answered names another one
   (what it said of one that has said later that it is a reader counts no more). For a writer that another accepted one
   has followed that is not enough, since a zombie says the same of itself, unless it has said since that it is a
   reader, as no zombie does (`View.yielded_at`): *every* other instance, the accepted writer among them, has to have
   answered since that it is a reader and that this one is the writer (a zombie is named by no instance that has seen
   its successor); or the claimant's own token has grown although the accepted writer was accepted more than
   `ROW_AGE_SECONDS` ago, and none names another (what is fenced makes nothing durable any more; where no client writes,
   `flow.topology_query.advance_log` lets the log grow). A higher token proves
   that a former writer is back only where it cannot be what that one had when it was fenced. This rule counts for a
   former writer whatever its token, unless that token is higher and grows: while a promoted instance has not shown
   later than `ROW_AGE_SECONDS` after it was accepted, by its own complete answer and a row that was written then (rule
   8), what it makes durable, because it may report that late (`View.fresh`; for `PROOF_SECONDS`, or without an end if
   its token was not higher, `View.unproven`); where it was accepted while its row was still a reader's, until its own
   row was seen (`View.provisional`; for `PROOF_SECONDS` as well, since a pooler may never lead to it again); for good
   where a log was set back (`View.set_back`). For `PROOF_SECONDS` it counts for every other instance that has not said
   since that it is a reader: it may have been the writer before the accepted one was, without that being seen. What
   counted for `PROOF_SECONDS` alone lapses in an outage only if all that have answered since name the claimant.
6. **Tokens are compared within one history alone** (`Row.system`). A primary of another system (a logical replica, an
   upgraded copy, another service in one list of hosts) is accepted only in an outage of the accepted writer, when every
   other instance has answered since, or failed, and none that answered is of the accepted system: a standby of that may
   be promoted. Where it answers in the accepted writer's own place, that one is gone, and it is accepted at once.
7. **An instance that was dialled by its id may have moved to another cluster.** Its answer is foreign if it names a
   writer that is not known here, or none of the other instances that it lists is: it is refused as a whole. What really
   changed so much is learned through the name that the user gave, which says by itself which cluster it is.
8. **Clocks are compared with themselves alone.** Whether an instance still updates its row is read off the row's own
   timestamp, unchanged for `STALE_ROW_SECONDS` of this process's clock. The age by the observer's clock is no more than
   a hint at rows of unknown instances: a leftover is entered once its timestamp is seen to change. A lag was measured
   at that age, or earlier: no later than its row's timestamp says, on the fastest way that a row of the instance took
   (`Instance.offset`). An observer with a slow clock says of an old view that it is new.
9. **A reader that has replayed what the writer had written when it was asked lags by no more than the time since**
   (`View.lsn`). That it has replayed all that it received proves nothing: its sender may be cut off itself.
10. **Drains count as the writer reports them**: it has their notes before any reader. A reader's report of them counts
   until the writer was asked. They are no evidence of roles, and each is over by itself.
11. **What the manager of a cluster lists (`Members`) adds instances and says where to ask; it changes no role.** It is
   hearsay: a member that is cut off lists what it knew. It counts only if it is of the history that SQL has shown at
   the hosts that the user gave, so a wrong address leads to no other cluster. An instance is removed if those that were
   asked agreed for `MISSING_SECONDS` not to list it, and it has not answered since; the accepted writer never is.

Limits. A zombie from before this process began is known as a reader here; on a lower token it is accepted where the
accepted writer and all other instances are silent. It can commit nothing: the storage fences it.

Invariants (property tests): `epoch`, and the generation of an instance, never decrease; `writer` changes only
with an epoch; a refused claim changes neither; reducing the same observation twice gives the same view; an incomplete
answer removes nothing, and changes no role but the observer's; with monotone tokens the accepted token never decreases;
no instance that an accepted one fenced is accepted, whatever the order and the delay of honest answers.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.model.bounds import forget_oldest
from aurora_router.model.claim import (
    Claim,
    choose_rows,
    find_claim,
    find_refusal,
    is_foreign,
    is_lower,
    is_other_system,
)
from aurora_router.model.description import Description
from aurora_router.model.drain import Drain
from aurora_router.model.event import (
    AnswerRefused,
    ClaimRefused,
    DrainEnded,
    DrainStarted,
    Event,
    InstanceAdded,
    InstanceFailed,
    InstanceRemoved,
    RoleChanged,
    WriterChanged,
    WriterLost,
)
from aurora_router.model.instance import Instance, Role
from aurora_router.model.observation import (
    MISSING_SECONDS,
    ROW_AGE_SECONDS,
    STALE_ROW_SECONDS,
    Failure,
    GivenHosts,
    LoadReport,
    Member,
    Members,
    Observation,
    ProcessEnded,
    Row,
    SelfReport,
    Topology,
)
from aurora_router.model.view import PROOF_SECONDS, Outage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from aurora_router.model.view import View

Change = tuple["View", tuple[Event, ...]]

POSTGRESQL_PORT = 5432
"""Where an instance listens whose port is not given."""
WITHDREW = "it said that it is a reader"
"""Why an outage began, where the accepted writer's own report did."""


def reduce(view: View, observation: Observation, now: float) -> Change:
    """Let one observation speak.

    Args:
        view: what was known.
        observation: what was seen.
        now: the time by the runtime's clock, in seconds.

    Returns:
        The next view (the same object when nothing changed) and what happened, in order.
    """
    if isinstance(observation, Topology):
        return _topology(view, observation, now)
    if isinstance(observation, SelfReport):
        return _self_report(view, observation, now)
    if isinstance(observation, ProcessEnded):
        return _process_ended(view, observation, now)
    if isinstance(observation, GivenHosts):
        return _given_hosts(view, observation)
    if isinstance(observation, Description):
        return _description(view, observation, now)
    if isinstance(observation, LoadReport):
        return _load_report(view, observation)
    if isinstance(observation, Members):
        return _members(view, observation, now)
    return _failure(view, observation, now)


def _process_ended(view: View, seen: ProcessEnded, now: float) -> Change:
    """The view with the end of a former writer's process (rule 5)."""
    return (replace(view, ended_at=view.ended_at | {(seen.id, now)}) if view.lacks_end(seen.id) else view), ()


def _given_hosts(view: View, given: GivenHosts) -> Change:
    """Make the hosts of a list the instances of a cluster about which nothing is known yet: it is no evidence."""
    if view.instances:
        return view, ()
    instances = {id_: Instance(id_, host=host, port=port) for id_, host, port in given.hosts}
    return replace(view, instances=MappingProxyType(instances)), ()  # in the order in which the user gave them


def _description(view: View, seen: Description, now: float) -> Change:
    """Replace what is known beside SQL; it is no evidence of roles, and neither adds an instance nor removes one."""
    described = MappingProxyType(dict(seen.instances))
    after = replace(view, attributes=described, own_zone=seen.own_zone, auto_pause=seen.auto_pause)
    if seen.endpoints is not None:
        after = replace(after, endpoints=MappingProxyType(dict(seen.endpoints)), described_at=now)
    return (view if after == view else after), ()


def _load_report(view: View, report: LoadReport) -> Change:
    """Note how many client connections an instance has; it is no evidence of anything else."""
    known = view.instances.get(report.id)
    if known is None or (known.occupancy is not None and report.occupancy.at < known.occupancy.at):
        return view, ()
    noted = replace(known, occupancy=report.occupancy)
    return (view if noted == known else replace(view, instances=_freeze({**view.instances, report.id: noted}))), ()


def _members(view: View, seen: Members, now: float) -> Change:
    """Enter the members that a manager lists (rule 11)."""
    if seen.system != view.shown_system:
        return view, ()
    places = {(each.host, each.port or POSTGRESQL_PORT): id_ for id_, each in view.instances.items()}
    instances, listed, events = dict(view.instances), dict[str, Member](), list[Event]()
    for member in seen.members:
        id_ = places.get((member.host, member.port), f"{member.host}:{member.port}")
        listed[id_] = member
        if id_ not in instances:
            generation = view.retired.get(id_, -1) + 1
            instances[id_] = Instance(id_, generation=generation, host=member.host, port=member.port)
            events.append(InstanceAdded(id_, Role.UNKNOWN))
        instances[id_] = replace(instances[id_], zone=member.zone, missing_since=None)
    if seen.complete:
        events += _remove_missing(instances, listed.keys() | {view.writer}, now)
    gone = {id_: each.generation for id_, each in view.instances.items() if id_ not in instances}
    retired = {id_: old for id_, old in view.retired.items() if id_ not in instances} | gone
    forget_oldest(retired)
    after = replace(
        view,
        instances=_freeze(instances),
        retired=MappingProxyType(retired),
        led_by=next((id_ for id_, member in listed.items() if member.leads), None),
        reserved=frozenset(id_ for id_, member in listed.items() if not member.serves_reads),
    )
    return (view if after == view else after), tuple(events)


# ---------------------------------------------------------------- a topology query


def _topology(view: View, seen: Topology, now: float) -> Change:
    asked_at = now if seen.asked_at is None else seen.asked_at
    if _is_overtaken(view, seen.observer, asked_at, is_writer=seen.observer_is_writer):
        return view, ()
    rows = {row.id: _with_lag(view, row, seen, asked_at) for row in choose_rows(seen.rows).values()}
    claim = find_claim(rows, seen, asked_at)
    if claim is not None:
        claim = replace(claim, row_at=_written_at(view, rows.get(claim.id), now))
    if seen.by_id and is_foreign(view, seen):
        reason = "it does not know this cluster's writer, nor any of its instances"
        return view, (AnswerRefused(seen.observer or "", None if claim is None else claim.id, reason),)
    refusal = None if claim is None else find_refusal(view, claim)
    if claim is not None and refusal is not None:
        refused = ClaimRefused(claim.id, seen.observer, view.writer, refusal)
        view, reported = _count_self_report(view, seen, asked_at, now)
        view, added = _add_claimant(view, rows.get(claim.id), now)
        return _remember_answer(view, seen, claim, asked_at), (refused, *reported, *added)
    withdrawn = claim is None and seen.observer_is_writer is False and seen.observer == view.writer
    writer = claim.id if claim is not None else None if withdrawn else view.writer
    older = claim is not None and not claim.own and is_lower(claim.token, view.token)
    complete = claim is not None and claim.complete and not older and (claim.own or claim.token is not None)
    instances, events, leftovers = _merge(view, rows, seen, writer, asked_at, now, complete=complete)
    if withdrawn and view.writer is not None:
        events = [WriterLost(view.writer), *events]
    following, reported = _accept(view, instances, writer, now, events)
    if claim is not None:
        following = _note_proof(view, following, claim, monotone=seen.monotone, older=older)
    if withdrawn and following.outage is None:
        following = replace(following, outage=Outage(seen.observer or "", asked_at, WITHDREW))
    if claim is not None and claim.own:
        following = replace(following, outage=None)
    following = replace(following, leftovers=MappingProxyType(leftovers), refreshed_at=now)
    following, drained = _note_drains(_remember_answer(following, seen, claim, asked_at), seen, asked_at)
    return following, (*reported, *drained)


def _note_drains(view: View, seen: Topology, asked_at: float) -> Change:
    """The view with the drains that an accepted answer reports (rule 10)."""
    from_writer = seen.observer is not None and seen.observer == view.writer
    if seen.drains is None or (view.drains_from_writer and not from_writer):
        return view, ()
    drains = {note.instance: Drain(asked_at + seconds, note.reason) for note, seconds in seen.drains}
    started = [DrainStarted(id_, each.until - asked_at, each.reason) for id_, each in drains.items()]
    events: list[Event] = [each for each in started if each.id not in view.drains]
    events += [DrainEnded(id_) for id_ in view.drains if id_ not in drains]
    if not (drains or view.drains) and view.drains_from_writer is from_writer:
        return view, ()
    return replace(view, drains=MappingProxyType(drains), drains_from_writer=from_writer), tuple(events)


def _is_overtaken(view: View, observer: str | None, asked_at: float, *, is_writer: bool | None) -> bool:
    """Whether a later answer of the same instance is known, or an answer that made it the writer."""
    known = view.instances.get(observer or "")
    if known is None:
        return False
    earlier = known.heard_at is not None and asked_at < known.heard_at
    return earlier or (is_writer is False and observer == view.writer and asked_at < view.accepted_at)


def _with_lag(view: View, row: Row, seen: Topology, asked_at: float) -> Row:
    """The row with what the reader's own position proves of its lag (rule 9)."""
    behind = row.lsn is None or view.lsn is None or row.lsn < view.lsn
    if behind or seen.observer_is_writer or row.id != seen.observer or is_other_system(view, row.system):
        return row
    bound = max(0.0, asked_at - view.lsn_at)
    return replace(row, lag=bound if row.lag is None else min(row.lag, bound))


# ---------------------------------------------------------------- what a claim leaves in the view


def _remember_answer(view: View, seen: Topology, claim: Claim | None, asked_at: float) -> View:
    """Note which instances say that they are readers and, in an outage of the accepted writer, each one's answer."""
    view = _with_shown(view, claim)
    outage, observer = view.outage, seen.observer
    agrees = claim is None or claim.id == view.writer
    counts = observer in view.former or (agrees and asked_at < view.accepted_at + PROOF_SECONDS)
    yields = seen.observer_is_writer is False and asked_at >= view.accepted_at and counts
    if yields and observer is not None and observer not in dict(view.yielded_at):
        view = replace(view, yielded_at=view.yielded_at | {(observer, asked_at)})
    if outage is None or observer is None or seen.observer_is_writer is None or asked_at < outage.since:
        return view
    named = {**dict(outage.named), observer: None if claim is None else claim.id}
    if seen.observer_is_writer is False:
        named = {id_: writer for id_, writer in named.items() if writer != observer or _is_later(view, id_, asked_at)}
    following = replace(
        outage,
        named=frozenset(named.items()),
        failed=outage.failed - {observer},
    )
    return view if following == outage else replace(view, outage=following)


def _is_later(view: View, id_: str, asked_at: float) -> bool:
    """Whether what an instance said is later than what another one said of itself when it was asked at a moment."""
    heard_at = view.instances[id_].heard_at if id_ in view.instances else None
    return heard_at is not None and heard_at > asked_at


def _with_shown(view: View, claim: Claim | None) -> View:
    """The view with the token with which an instance that may be fenced claims, where none was noted, or a higher one.

    Not in the first `ROW_AGE_SECONDS` of the accepted writer: a fenced instance may still report late then what it had
    made durable before.
    """
    if claim is None or not claim.own or claim.token is None or claim.id == view.writer:
        return view
    if claim.id not in view.former and claim.asked_at >= view.accepted_at + PROOF_SECONDS:
        return view
    if view.outage is None and not (view.unproven or view.fresh or view.provisional or view.set_back):
        return view
    shown = dict(view.shown)
    if claim.shown_at < view.accepted_at + ROW_AGE_SECONDS or shown.get(claim.id, claim.token + 1) <= claim.token:
        return view
    return replace(view, shown=frozenset({**shown, claim.id: claim.token}.items()))


def _note_proof(view: View, following: View, claim: Claim, *, monotone: bool, older: bool) -> View:
    """The view with the token of an accepted claim, and whether a higher token still proves anything (rule 5)."""
    following = _note_position(view, following, claim)
    if older or claim.token is None:
        changed = claim.id != view.writer and view.epoch > 0 and not view.monotone
        shown = claim.volume if claim.own and claim.token is None else None
        token = view.token if shown is None else max(shown, view.token or 0)
        return replace(following, token=token, unproven=view.unproven or changed)
    same = claim.id == view.writer or view.epoch == 0
    volume = claim.token if claim.volume is None else max(claim.token, claim.volume)
    higher = view.token is None or claim.token > view.token or (same and volume >= view.token)
    may_be_a_readers = claim.own and not claim.complete  # the row may be from before the promotion
    proves = same and claim.own and claim.complete and claim.shown_at >= view.accepted_at + ROW_AGE_SECONDS
    return replace(
        following,
        token=volume,
        monotone=monotone,
        unproven=(view.unproven and not (proves and higher)) or not (same or monotone or higher),
        fresh=(view.fresh and not (proves and higher)) if same else not monotone,
        set_back=view.set_back or (same and not (monotone or higher)),
        provisional=may_be_a_readers and not monotone and (view.provisional or not same),
    )


def _note_position(view: View, following: View, claim: Claim) -> View:
    """The view with the history of an accepted claim, and how far the writer's log is written (rule 9)."""
    if claim.own and claim.lsn is not None:
        return replace(following, system=claim.system or view.system, lsn=claim.lsn, lsn_at=claim.asked_at)
    if claim.id != view.writer:
        following = replace(following, lsn=None)
    return following if claim.system is None else replace(following, system=claim.system)


def _count_self_report(view: View, seen: Topology, asked_at: float, now: float) -> Change:
    """Of a refused answer only what the observer says of itself counts, and only when it says: a reader."""
    if seen.observer is None or seen.observer_is_writer is not False:
        return view, ()
    known = view.instances.get(seen.observer)
    if known is not None and known.role is Role.READER and seen.observer not in view.former:
        return view, ()  # no news
    return _self_report(view, SelfReport(seen.observer, writer=False, asked_at=asked_at), now)


def _add_claimant(view: View, row: Row | None, now: float) -> Change:
    """Add a refused claimant as a reader, so that it can be asked itself: only its own report may count.

    A former writer is in no instance's rows while it is built again; it may be promoted straight after.
    """
    if row is None or row.id in view.instances or not view.known:
        return view, ()
    if view.outage is None and is_lower(row.token, view.token):
        return view, ()
    instance = _apply_row(Instance(row.id, Role.READER, view.retired.get(row.id, -1) + 1), row, now)
    retired = {id_: generation for id_, generation in view.retired.items() if id_ != row.id}
    instances = _freeze({**view.instances, row.id: instance})
    return replace(view, instances=instances, retired=MappingProxyType(retired)), (InstanceAdded(row.id, Role.READER),)


# ---------------------------------------------------------------- instances


def _merge(
    view: View,
    rows: Mapping[str, Row],
    seen: Topology,
    writer: str | None,
    asked_at: float,
    now: float,
    *,
    complete: bool,
) -> tuple[dict[str, Instance], list[Event], dict[str, float]]:
    """The instances after an answer, what happened to them, and the rows that seem to be leftovers."""
    events: list[Event] = []
    instances = dict(view.instances)
    listed: set[str] = set()
    leftovers: dict[str, float] = {}
    for row in rows.values():
        known, role = view.instances.get(row.id), Role.WRITER if row.id == writer else Role.READER
        if known is not None:
            instances[row.id] = _apply_row(_turn(known, role, events), row, now)
        elif role is Role.READER and row.id != seen.observer and _is_leftover(view, row):
            if row.updated is not None:
                leftovers[row.id] = row.updated
            continue
        else:
            instances[row.id] = _apply_row(Instance(row.id, role, view.retired.get(row.id, -1) + 1), row, now)
            events.append(InstanceAdded(row.id, role))
        if row.id in {writer, seen.observer} or now - instances[row.id].updated_at <= STALE_ROW_SECONDS:
            listed.add(row.id)
    _enter_observer(view, instances, seen, writer, asked_at, events)
    _settle_others(instances, writer, events)
    for id_ in instances.keys() & listed:
        if instances[id_].missing_since is not None:
            instances[id_] = replace(instances[id_], missing_since=None)
    if complete:
        events += _remove_missing(instances, listed, now, begins_now=view.outage is not None)
    if not complete:
        leftovers = {**view.leftovers, **leftovers}
        forget_oldest(leftovers)
    return instances, events, leftovers


def _is_leftover(view: View, row: Row) -> bool:
    """Whether the row of an unknown instance seems to be left over: old by the observer's clock, and not changing."""
    if row.age is None or row.age <= STALE_ROW_SECONDS:
        return False
    return row.updated is None or view.leftovers.get(row.id, row.updated) == row.updated


def _enter_observer(
    view: View,
    instances: dict[str, Instance],
    seen: Topology,
    writer: str | None,
    asked_at: float,
    events: list[Event],
) -> None:
    """The observer answered, so it exists, also where its own row is missing; its report of its role counts."""
    if seen.observer is None or seen.observer_is_writer is None:
        return
    known = instances.get(seen.observer)
    if known is None:
        role = Role.WRITER if seen.observer == writer else Role.READER
        known = Instance(seen.observer, role, view.retired.get(seen.observer, -1) + 1)
        events.append(InstanceAdded(seen.observer, role))
    elif seen.observer != writer:
        known = _turn(known, Role.READER, events)
    instances[seen.observer] = replace(known, heard_at=asked_at, missing_since=None)


def _remove_missing(
    instances: dict[str, Instance], listed: AbstractSet[str | None], now: float, *, begins_now: bool = False
) -> list[Event]:
    """Remove those that complete answers have not listed for `MISSING_SECONDS`, and that have not answered since.

    Args:
        instances: by id; changed.
        listed: ids that the present answer lists.
        now: the time by the runtime's clock, in seconds.
        begins_now: whether that time begins now, whatever was listed before.
    """
    events: list[Event] = []
    for id_ in sorted(instances.keys() - listed):
        since, heard_at = instances[id_].missing_since, instances[id_].heard_at
        if begins_now or since is None or (heard_at is not None and heard_at > since):
            instances[id_] = replace(instances[id_], missing_since=now)
        elif now - since >= MISSING_SECONDS:
            del instances[id_]
            events.append(InstanceRemoved(id_))
    return events


def _settle_others(instances: dict[str, Instance], writer: str | None, events: list[Event]) -> None:
    """No second writer: one that was it and is not any more is a reader at best."""
    for id_, each in instances.items():
        if each.role is Role.WRITER and id_ != writer:
            instances[id_] = _turn(each, Role.READER, events)
        elif id_ == writer and each.role is not Role.WRITER:
            instances[id_] = _turn(each, Role.WRITER, events)


def _turn(instance: Instance, role: Role, events: list[Event]) -> Instance:
    turned = instance.become(role)
    if turned is not instance:
        events.append(RoleChanged(instance.id, instance.role, role, turned.generation))
    return turned


def _apply_row(instance: Instance, row: Row, now: float) -> Instance:
    writer = instance.role is Role.WRITER
    changed = row.updated is None or row.updated != instance.updated
    offset = _offset(instance, row, now)
    return replace(
        instance,
        host=row.host or instance.host,
        port=row.port or instance.port,
        zone=row.zone or instance.zone,
        lag=0.0 if writer else row.lag,
        lag_at=_lag_at(row, offset),
        cpu=row.cpu,
        system=row.system or instance.system,
        updated=row.updated,
        updated_at=now if changed else instance.updated_at,
        offset=offset,
    )


def _written_at(view: View, row: Row | None, now: float) -> float | None:
    """When a row was written, by this process's clock, at the latest (rule 8); None: it does not say."""
    if row is None or row.updated is None:
        return None
    offset = _offset(view.instances.get(row.id, Instance(row.id)), row, now)
    return None if offset is None else row.updated + offset


def _offset(instance: Instance, row: Row, now: float) -> float | None:
    """The highest offset of the instance's clock that its rows leave possible, this one included."""
    if row.updated is None:
        return instance.offset
    shown = now - row.updated
    return shown if instance.offset is None else min(instance.offset, shown)


def _lag_at(row: Row, offset: float | None) -> float | None:
    """When a row's lag was that: at its age, or when it was written at the latest, where that is earlier (rule 8)."""
    if row.lag_at is None or row.age is None or row.updated is None or offset is None:
        return row.lag_at
    return min(row.lag_at, row.updated + offset)


# ---------------------------------------------------------------- an instance's report about itself


def _self_report(view: View, report: SelfReport, now: float) -> Change:
    asked_at = now if report.asked_at is None else report.asked_at
    known = view.instances.get(report.id)
    if known is None or not view.known or _is_overtaken(view, report.id, asked_at, is_writer=report.writer):
        return view, ()
    if report.writer:
        return _claims_by_itself(view, known, asked_at, now)
    events: list[Event] = []
    turned = _turn(known, Role.READER, events)
    if events:
        turned = replace(turned, heard_at=asked_at)
        view = replace(view, instances=_freeze({**view.instances, report.id: turned}))
    if report.id == view.writer:
        outage = view.outage or Outage(report.id, asked_at, WITHDREW)
        view = replace(view, writer=None, former=view.former | {report.id}, outage=outage)
        events = [WriterLost(report.id), *events]
    return _remember_answer(view, Topology((), report.id, observer_is_writer=False), None, asked_at), tuple(events)


def _claims_by_itself(view: View, known: Instance, asked_at: float, now: float) -> Change:
    """A bare "I am not in recovery" has no token."""
    report = Topology((), known.id, observer_is_writer=True)
    claim = Claim(known.id, None, own=True, complete=False, asked_at=asked_at)
    if known.id == view.writer:
        return (view if view.outage is None else replace(view, outage=None)), ()
    refusal = find_refusal(view, claim)
    if refusal is not None:
        refused = ClaimRefused(known.id, known.id, view.writer, refusal)
        return _remember_answer(view, report, claim, asked_at), (refused,)
    events: list[Event] = []
    instances = dict(view.instances)
    instances[known.id] = replace(_turn(known, Role.WRITER, events), lag=0.0, heard_at=asked_at)
    _settle_others(instances, known.id, events)
    following, reported = _accept(view, instances, known.id, now, events)
    return _note_proof(view, following, claim, monotone=view.monotone, older=False), reported


# ---------------------------------------------------------------- a failure


def _failure(view: View, failure: Failure, now: float) -> Change:
    known = view.instances.get(failure.id)
    if known is None or known.generation != failure.generation:
        return view, ()
    view = _outage_after(view, failure, now)
    if not failure.gone:
        return view, (InstanceFailed(known.id, known.generation, gone=False, reason=failure.reason),)
    aged = known.invalidate_connections()
    instances = _freeze({**view.instances, known.id: aged})
    event = InstanceFailed(known.id, aged.generation, gone=True, reason=failure.reason)
    return replace(view, instances=instances), (event,)


def _outage_after(view: View, failure: Failure, now: float) -> View:
    """A failure of the accepted writer begins an outage; during one, it is noted of every instance."""
    outage = view.outage
    if failure.alive or (outage is None and failure.id != view.writer):
        return view
    if outage is None:
        outage = Outage(failure.id, now, failure.reason)
    named = frozenset(each for each in outage.named if each[0] != failure.id)
    outage = replace(outage, named=named, failed=outage.failed | {failure.id})
    return view if outage == view.outage else replace(view, outage=outage)


# ---------------------------------------------------------------- the next view


def _accept(view: View, instances: dict[str, Instance], writer: str | None, now: float, events: list[Event]) -> Change:
    former, epoch, outage, accepted_at = view.former, view.epoch, view.outage, view.accepted_at
    shown, yielded_at, ended_at = view.shown, view.yielded_at, view.ended_at
    if writer is None and view.writer is not None:
        former |= {view.writer}
    if writer is not None and writer != view.writer:
        if view.writer is not None:
            former |= {view.writer}
        former -= {writer}
        epoch, accepted_at = epoch + 1, now
        outage, shown, yielded_at, ended_at = None, frozenset(), frozenset(), frozenset()
        events = [WriterChanged(view.writer, writer, epoch), *events]
    gone = {id_: each.generation for id_, each in view.instances.items() if id_ not in instances}
    retired = {id_: old for id_, old in view.retired.items() if id_ not in instances} | gone
    forget_oldest(retired)
    following = replace(
        view,
        instances=_freeze(instances),
        writer=writer,
        epoch=epoch,
        accepted_at=accepted_at,
        shown=shown,
        former=former & (instances.keys() | retired.keys()),
        yielded_at=yielded_at,
        ended_at=ended_at,
        outage=outage,
        retired=MappingProxyType(retired),
        refreshed_at=now,
    )
    return following, tuple(events)


def _freeze(instances: Mapping[str, Instance]) -> Mapping[str, Instance]:
    return MappingProxyType(dict(sorted(instances.items())))
