"""The only place where a view changes: ``(view, observation, now) -> (view, events)``.

Theory. Clients see a failover in fragments: a query on one instance, a refused dial on another, rows that an
isolated instance keeps telling. None of them carries an epoch of the server's, and clocks of two instances can
not be compared. So evidence is ordered:

1. an instance's word about itself beats what rows of others say about it;
2. between claims, the source's monotone token decides (see `Row.token`): a lower one is older;
3. an instance that was the writer in an earlier epoch is accepted again only on its own word *and* a higher token
   (failback A -> B -> A is legal, a zombie A is not); an instance that never was one may also claim on an equal token;
4. when the accepted writer has withdrawn (it said that it is a reader), its token no longer protects it: another
   instance's own word is accepted (a volume that was set back in time has lower tokens);
5. for a former writer that alone is not enough: a zombie says the same of itself. It is accepted on a lower token only
   if *every* other instance known has answered since that it is a reader itself and that this one is the writer, the
   one that withdrew among them. A zombie is named by nobody who has seen its successor; where a newer writer exists, it
   names itself; where it is silent, not every instance has answered. (A single witness would not do: it may be cut off
   together with the zombie, or answer with rows that are left over.)

Invariants (property tests): `epoch`, and the generation of an instance, never decrease; `writer` changes only
with an epoch; a refused claim changes neither; reducing the same observation twice gives the same view.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.model.event import (
    ClaimRefused,
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
    STALE_ROW_SECONDS,
    Failure,
    Observation,
    Row,
    SelfReport,
    Topology,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.model.view import View

Change = tuple["View", tuple[Event, ...]]


def reduce(view: View, observation: Observation, now: float) -> Change:
    """Let one observation speak.

    Args:
        view: what was known.
        observation: what somebody saw.
        now: the world's time, in seconds.

    Returns:
        The next view (the same object when nothing changed) and what happened, in order.
    """
    if isinstance(observation, Topology):
        return _topology(view, observation, now)
    if isinstance(observation, SelfReport):
        return _self_report(view, observation, now)
    return _failure(view, observation)


# ---------------------------------------------------------------- a topology query


def _topology(view: View, seen: Topology, now: float) -> Change:
    rows = [row for row in seen.rows if _alive(row)]
    claimed = _claimed(rows, seen)
    own = claimed is not None and claimed == seen.observer
    view = _without_witness(view, seen.observer, claimed)
    token = next((row.token for row in rows if row.id == claimed), None)
    refusal = _refusal(view, claimed, token, own=own)
    if refusal is not None and claimed is not None:
        refused = ClaimRefused(claimed, seen.observer, view.writer, refusal)
        view, told = _own_word(view, seen, now)
        view, added = _introduced(view, next((row for row in rows if row.id == claimed), None), now)
        return _witnessed(view, seen, claimed), (refused, *told, *added)
    withdrawn = claimed is None and view.writer is not None and view.writer == seen.observer
    writer = claimed if claimed is not None else None if withdrawn else view.writer
    older = _older(view, token, own=own)
    instances, events = _merge(view, rows, writer, now, closed=seen.complete and not older)
    if withdrawn and view.writer is not None:
        events = [WriterLost(view.writer), *events]
    if claimed is None or older or token is None:
        token = view.token
    return _accept(view, instances, writer, token, now, events)


def _alive(row: Row) -> bool:
    return row.writer or row.age is None or row.age <= STALE_ROW_SECONDS


def _claimed(rows: Iterable[Row], seen: Topology) -> str | None:
    """Who is the writer, by this answer: the observer's own word first, then the row updated last."""
    if seen.observer_is_writer and seen.observer is not None:
        return seen.observer
    named = [row for row in rows if row.writer]
    if seen.observer_is_writer is False:
        named = [row for row in named if row.id != seen.observer]
    if not named:
        return None
    return min(named, key=lambda row: -1.0 if row.age is None else row.age).id


def _refusal(view: View, claimed: str | None, token: int | None, *, own: bool) -> str | None:
    """Why a claim to be the writer is not believed; None: it is."""
    if claimed is None or claimed == view.writer or not view.known:
        return None
    if claimed in view.former and not own:
        return "a former writer is accepted again only on its own word"
    if view.writer is None and own and (claimed not in view.former or _vouched(view, claimed)):
        return None
    if token is None or view.token is None:
        return None if own or claimed not in view.former else "no evidence"
    if token > view.token:
        return None
    if token == view.token and own and (claimed not in view.former or view.writer is None):
        return None
    return f"its evidence {token} is not newer than the accepted {view.token}"


def _vouched(view: View, claimed: str) -> bool:
    """Whether all other instances, each a reader by its own word, say that `claimed` is the writer (rule 5)."""
    others = view.instances.keys() - {claimed}
    return bool(others) and all(view.witnesses.get(id_) == claimed for id_ in others)


def _without_witness(view: View, observer: str | None, claimed: str | None = None) -> View:
    """Drop what an instance said before that it no longer says."""
    if observer is None or view.witnesses.get(observer, claimed) == claimed:
        return view
    left = {id_: named for id_, named in view.witnesses.items() if id_ != observer}
    return replace(view, witnesses=MappingProxyType(left))


def _witnessed(view: View, seen: Topology, claimed: str) -> View:
    """Remember who named a former writer whose claim is refused, once the accepted writer has withdrawn."""
    if view.writer is not None or claimed not in view.former or seen.observer in {None, claimed}:
        return view
    if seen.observer_is_writer is not False or view.witnesses.get(seen.observer or "") == claimed:
        return view
    return replace(view, witnesses=MappingProxyType({**view.witnesses, seen.observer or "": claimed}))


def _older(view: View, token: int | None, *, own: bool) -> bool:
    """Whether an answer was overtaken: it may add to what is known, and must not take away."""
    return not own and token is not None and view.token is not None and token < view.token


def _own_word(view: View, seen: Topology, now: float) -> Change:
    """Of a refused answer only what the observer says of itself counts, and only when it says: a reader."""
    if seen.observer is None or seen.observer_is_writer is not False:
        return view, ()
    return _self_report(view, SelfReport(seen.observer, writer=False), now)


def _introduced(view: View, row: Row | None, now: float) -> Change:
    """Enter who is said to be the writer, and is not believed to be: who is not known can not be asked himself.

    A former writer is not told of while it is built anew; when it is promoted straight after, all others name it, and
    only its own word counts.
    """
    if row is None or row.id in view.instances or not view.known or _older(view, row.token, own=False):
        return view, ()
    instance = _described(Instance(row.id, Role.READER, view.retired.get(row.id, -1) + 1), row, now)
    retired = {id_: generation for id_, generation in view.retired.items() if id_ != row.id}
    instances = _frozen({**view.instances, row.id: instance})
    return replace(view, instances=instances, retired=MappingProxyType(retired)), (InstanceAdded(row.id, Role.READER),)


def _merge(
    view: View, rows: Iterable[Row], writer: str | None, now: float, *, closed: bool
) -> tuple[dict[str, Instance], list[Event]]:
    """The instances after this answer; `closed`: those that it does not tell of are gone."""
    events: list[Event] = []
    instances: dict[str, Instance] = {} if closed else dict(view.instances)
    for row in rows:
        known = view.instances.get(row.id)
        role = Role.WRITER if row.id == writer else Role.READER
        if known is None:
            generation = view.retired.get(row.id, -1) + 1
            instances[row.id] = _described(Instance(row.id, role, generation), row, now)
            events.append(InstanceAdded(row.id, role))
            continue
        instances[row.id] = _described(_turn(known, role, events), row, now)
    _settle_others(instances, writer, events)
    if closed:
        events += [InstanceRemoved(id_) for id_ in view.instances if id_ not in instances]
    return instances, events


def _settle_others(instances: dict[str, Instance], writer: str | None, events: list[Event]) -> None:
    """No second writer: who was it and is not told of is a reader at best."""
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


def _described(instance: Instance, row: Row, now: float) -> Instance:
    writer = instance.role is Role.WRITER
    return replace(
        instance,
        host=row.host or instance.host,
        port=row.port or instance.port,
        zone=row.zone or instance.zone,
        lag=0.0 if writer else row.lag,
        lag_at=row.lag_at,
        cpu=row.cpu,
        seen_at=now,
    )


# ---------------------------------------------------------------- an instance's word about itself


def _self_report(view: View, report: SelfReport, now: float) -> Change:
    known = view.instances.get(report.id)
    if known is None or not view.known:
        return view, ()
    if report.writer:
        return _claims_by_itself(_without_witness(view, known.id), known, now)
    events: list[Event] = []
    turned = replace(_turn(known, Role.READER, events), seen_at=now)
    if report.id != view.writer:
        if not events:
            return view, ()
        return replace(view, instances=_frozen({**view.instances, report.id: turned})), tuple(events)
    instances = {**view.instances, report.id: turned}
    lost = replace(view, instances=_frozen(instances), writer=None, former=view.former | {report.id})
    return lost, (WriterLost(report.id), *events)


def _claims_by_itself(view: View, known: Instance, now: float) -> Change:
    """A bare "I am not in recovery" has no token: believed only where nobody else is accepted."""
    if known.id == view.writer:
        return view, ()
    refusal = _refusal(view, known.id, None, own=True) if view.writer is None else "another writer is accepted"
    if refusal is None and known.id in view.former:
        refusal = "a former writer has to show newer evidence"
    if refusal is not None:
        return view, (ClaimRefused(known.id, known.id, view.writer, refusal),)
    events: list[Event] = []
    instances = dict(view.instances)
    instances[known.id] = replace(_turn(known, Role.WRITER, events), lag=0.0)
    return _accept(view, instances, known.id, view.token, now, events)


# ---------------------------------------------------------------- a failure


def _failure(view: View, failure: Failure) -> Change:
    known = view.instances.get(failure.id)
    if known is None or known.generation != failure.generation:
        return view, ()
    if not failure.gone:
        return view, (InstanceFailed(known.id, known.generation, gone=False, reason=failure.reason),)
    aged = known.outdated()
    instances = _frozen({**view.instances, known.id: aged})
    event = InstanceFailed(known.id, aged.generation, gone=True, reason=failure.reason)
    return replace(view, instances=instances), (event,)


# ---------------------------------------------------------------- the next view


def _accept(
    view: View,
    instances: dict[str, Instance],
    writer: str | None,
    token: int | None,
    now: float,
    events: list[Event],
) -> Change:
    former, epoch = view.former, view.epoch
    if writer is None and view.writer is not None:
        former |= {view.writer}
    if writer is not None and writer != view.writer:
        if view.writer is not None:
            former |= {view.writer}
        former -= {writer}
        epoch += 1
        events = [WriterChanged(view.writer, writer, epoch), *events]
    gone = {id_: each.generation for id_, each in view.instances.items() if id_ not in instances}
    retired = {id_: old for id_, old in view.retired.items() if id_ not in instances} | gone
    following = replace(
        view,
        instances=_frozen(instances),
        writer=writer,
        epoch=epoch,
        token=token,
        former=former,
        witnesses=view.witnesses if writer is None else MappingProxyType({}),
        retired=MappingProxyType(retired),
        refreshed_at=now,
    )
    return following, tuple(events)


def _frozen(instances: Mapping[str, Instance]) -> Mapping[str, Instance]:
    return MappingProxyType(dict(sorted(instances.items())))
