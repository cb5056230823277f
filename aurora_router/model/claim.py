"""What an answer to a topology query claims: of which cluster it is, which instance is the writer, and if that counts.

Nothing here changes a view. The rules, and why they are sound, are in `model.reduce`, where they are numbered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.observation import ROW_AGE_SECONDS
from aurora_router.model.view import PROOF_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.model.observation import Row, Topology
    from aurora_router.model.view import Outage, View


STILL_SECONDS = PROOF_SECONDS - ROW_AGE_SECONDS
"""How old the rows of an answer are at most. So an answer that was asked for `PROOF_SECONDS` after a promotion shows a
state of `ROW_AGE_SECONDS` after it, or of later."""


@frozen
class Claim:
    """That an instance is the writer, as one answer says.

    Attributes:
        id: the instance.
        token: its evidence, see `Row.token`.
        own: whether the instance says so itself.
        complete: whether the answer is complete but for the age of this evidence (rule 2).
        asked_at: when the question was sent.
        volume: the highest token of all rows of the answer; at least `token`.
        system: the history that the token is of.
        lsn: how far the claimant's log is written.
        row_at: when the claimant's row was written, by this process's clock, at the latest (rule 8); None: not known.
    """

    id: str
    token: int | None
    own: bool
    complete: bool
    asked_at: float
    volume: int | None = None
    system: str | None = None
    lsn: int | None = None
    row_at: float | None = None

    @property
    def shown_at(self) -> float:
        """As of when, at the latest, the claim shows its evidence: an answer can have an old row.

        A row that seems to be older than `STILL_SECONDS` is taken to be of a clock that was set back.
        """
        if self.row_at is None:
            return self.asked_at
        return min(self.asked_at, max(self.row_at, self.asked_at - STILL_SECONDS))


def choose_rows(rows: Iterable[Row]) -> dict[str, Row]:
    """The rows by id; of several of one instance (it restarted) the one that it wrote last."""
    unique: dict[str, Row] = {}
    for row in rows:
        other = unique.get(row.id)
        if other is None or _writing(row) >= _writing(other):
            unique[row.id] = row
    return unique


def is_other_system(view: View, system: str | None) -> bool:
    """Whether a system identifier is known to be another one than the cluster's."""
    return None not in {view.system, system} and system != view.system


def _writing(row: Row) -> tuple[bool, float, bool]:
    return row.updated is not None, row.updated or 0.0, row.writer


def find_claim(rows: Mapping[str, Row], seen: Topology, asked_at: float) -> Claim | None:
    """Which instance is the writer, by this answer: the observer's own report first, then the one row marked as such.

    Of two such rows (for a moment after a failover) the one with the higher token counts.
    """
    marked = [row for row in rows.values() if row.writer]
    volume = max((row.token for row in rows.values() if row.token is not None), default=None)
    read = seen.complete and not seen.malformed and seen.observer in rows
    if seen.observer_is_writer and seen.observer is not None:
        row = rows.get(seen.observer)
        complete = read and [each.id for each in marked] == [seen.observer]
        token = None if row is None else row.token
        system, lsn = (None, None) if row is None else (row.system, row.lsn)
        return Claim(
            seen.observer, token, own=True, complete=complete, asked_at=asked_at, volume=volume, system=system, lsn=lsn
        )
    if seen.observer_is_writer is False:
        marked = [row for row in marked if row.id != seen.observer]
    best = max(marked, key=_token, default=None)
    if best is None or sum(_token(row) == _token(best) for row in marked) > 1:
        return None
    complete = read and sum(row.writer for row in rows.values()) == 1  # no one beside the claimant is marked
    return Claim(best.id, best.token, own=False, complete=complete, asked_at=asked_at, volume=volume)


def _token(row: Row) -> int:
    return -1 if row.token is None else row.token


def is_lower(token: int | None, accepted: int | None) -> bool:
    """Whether a token is known to be lower than the accepted one."""
    return token is not None and accepted is not None and token < accepted


# ---------------------------------------------------------------- of which cluster an answer is


def is_foreign(view: View, seen: Topology) -> bool:
    """Whether an answer seems to be of another cluster: its writer is unknown here, or all others that it lists are."""
    if not view.known or seen.observer is None:
        return False
    rows = choose_rows(seen.rows)
    claim, known = find_claim(rows, seen, 0.0), view.instances.keys() | view.retired.keys()
    others = rows.keys() - {seen.observer}
    return (claim is not None and claim.id not in known) or (bool(others) and not others & known)


def is_disjoint(view: View, seen: Topology) -> bool:
    """Whether an answer is complete in itself, and of another cluster for certain: it shares no instance."""
    if not view.known or not view.instances:
        return False
    rows = choose_rows(seen.rows)
    claim = find_claim(rows, seen, 0.0)
    shared = rows.keys() & (view.instances.keys() | view.retired.keys())
    return claim is not None and claim.complete and not shared - ({seen.observer} - {claim.id})


def agree(view: View, seen: Topology) -> bool:
    """Whether an answer and what is known of a cluster know each other's writer."""
    rows = choose_rows(seen.rows)
    claim = find_claim(rows, seen, 0.0)
    if claim is None or not claim.complete or not view.known:
        return False
    return claim.id in view.instances and (view.writer is None or view.writer in rows)


# ---------------------------------------------------------------- whether a claim is believed


def names_another(view: View, seen: Topology) -> bool:
    """Whether another instance than the accepted writer names a new one, and nothing was wrong with that so far."""
    if view.writer is None or view.outage is not None or seen.observer == view.writer:
        return False
    claim = find_claim(choose_rows(seen.rows), seen, 0.0)
    return claim is not None and claim.id != view.writer


def find_refusal(view: View, claim: Claim) -> str | None:
    """Why a claim to be the writer is not believed; None: it is."""
    if is_other_system(view, claim.system):
        return _other_history(view, claim)
    older = _older_timeline(view, claim)
    if older is not None:
        return older
    if claim.id == view.writer or view.epoch == 0:
        return None
    if not claim.own and claim.id in view.former:
        return "a former writer is accepted again only by its own report"
    if not claim.own and not claim.complete:
        return "the answer is incomplete"
    if claim.asked_at < view.accepted_at:
        return f"it was asked before {view.writer} was accepted"
    newer = claim.token is not None and view.token is not None and claim.token > view.token
    if newer and not _may_be_fenced(view, claim):
        return None
    stale = f"its evidence {claim.token} does not prove more than the accepted {view.token}"
    if not claim.own:
        return stale
    lapsed = newer and _has_lapsed(view, claim)
    if view.outage is None:
        return None if lapsed else f"{stale}, and {view.writer} is not known to have failed"
    return _contradiction(view, view.outage, claim, stale, lapsed=lapsed)


def _older_timeline(view: View, claim: Claim) -> str | None:
    """Why an instance's own claim is refused by its timeline (rule 4)."""
    if not (view.monotone and claim.own):
        return None
    if claim.token is None:
        return f"it does not report its timeline, and the accepted one is {view.token}"
    lower = claim.token < (view.token or 0)
    return f"its timeline {claim.token} is lower than the accepted {view.token}" if lower else None


def _other_history(view: View, claim: Claim) -> str | None:
    """Why a claim to be the writer of another system's history is not believed (rule 6)."""
    if claim.id == view.writer:
        return None
    other = f"it is of another database system ({claim.system}) than {view.writer or 'the last writer'} ({view.system})"
    outage = view.outage
    if outage is None or claim.asked_at < outage.since:
        return f"{other}, which is not known to have failed"
    answered = dict(outage.named)
    for id_ in sorted(answered.keys() - {claim.id}):
        if id_ in view.instances and view.instances[id_].system == view.system:
            return f"{other}, and {id_} of that system may be promoted"
    unheard = sorted(view.instances.keys() - {claim.id} - answered.keys() - outage.failed)
    return f"{other}, and {unheard[0]} has not answered yet" if unheard else None


def _contradiction(view: View, outage: Outage, claim: Claim, stale: str, *, lapsed: bool) -> str | None:
    """What speaks against a claim that shows no higher token, during an outage of the accepted writer (rules 4, 5).

    Or, with `lapsed`, one that does, and no more speaks against that than what was not shown long ago.
    """
    if claim.asked_at < outage.since:
        return f"{stale}, and it was asked before {view.writer} failed"
    named, others = dict(outage.named), view.instances.keys() - {claim.id}
    for id_ in sorted(others & named.keys()):
        if named[id_] not in {None, claim.id}:
            return f"{stale}, and {id_} names {named[id_]}"
    if lapsed:
        unaware = sorted(id_ for id_ in others & named.keys() if named[id_] is None)
        return f"{stale}, and {unaware[0]} names no writer" if unaware else None
    silent = others - named.keys()
    is_first = claim.id not in view.former or _has_yielded(view, claim) or claim.id == outage.writer
    if is_first or view.monotone:
        unheard = sorted(silent - outage.failed)
        return f"{stale}, and {unheard[0]} has not answered yet" if unheard else None
    if view.token is None and claim.token is None:
        unasked = silent - outage.failed if _has_restarted(view, claim) else silent
        return f"it was the writer before, and {min(unasked)} has not answered yet" if unasked else None
    if _has_grown(view, claim):
        return None
    if others and all(named.get(id_) == claim.id for id_ in others):
        return None
    return f"{stale}, it was the writer before, and not all others name it"


def _may_be_fenced(view: View, claim: Claim) -> bool:
    """Whether a claimant with a higher token than the accepted one may still be one that another writer has fenced."""
    outage = view.outage
    if _has_yielded(view, claim) or _has_grown(view, claim) or (outage is not None and claim.id == outage.writer):
        return False
    if claim.id not in view.former and not _may_have_reigned(view, claim):
        return False
    return view.unproven or view.provisional or view.set_back or view.fresh


def _may_have_reigned(view: View, claim: Claim) -> bool:
    """Whether a reader may have been the writer, and fenced, before the accepted one was, without that being seen."""
    return view.writer is not None and claim.asked_at < view.accepted_at + PROOF_SECONDS


def _has_lapsed(view: View, claim: Claim) -> bool:
    """Whether only what the accepted writer did not show counts against a higher token, and that for long enough."""
    is_late = claim.asked_at >= view.accepted_at + PROOF_SECONDS
    return claim.own and is_late and not (view.unproven or view.set_back)


def _has_yielded(view: View, claim: Claim) -> bool:
    """Whether an instance claims by itself after it said that it is a reader, so that it was promoted after that."""
    return claim.own and claim.asked_at >= dict(view.yielded_at).get(claim.id, math.inf)


def _has_restarted(view: View, claim: Claim) -> bool:
    """Whether a former writer of a cluster with common storage claims by itself after its process had ended."""
    return claim.own and claim.complete and claim.asked_at >= dict(view.ended_at).get(claim.id, math.inf)


def _has_grown(view: View, claim: Claim) -> bool:
    """Whether a former writer's own token has grown since `_with_shown` noted it: then it is not fenced."""
    return claim.own and claim.token is not None and dict(view.shown).get(claim.id, claim.token) < claim.token
