"""Whether a session has replayed what a causal token stands for, and what to do when it has not.

Theory. A token is made after its writes were acknowledged. A session *has replayed* it if every snapshot that the
session takes from now on has these writes. Each kind of proof is asked for by a statement of its own, on the session
that then reads, so that every later snapshot is younger than the answer. What an instance has replayed it keeps for as
long as its process lives, and a session ends with that process: the answer holds for the session. It holds for no other
one, since an instance that was restarted may be behind again.

**The log position** (plain PostgreSQL): system identifier S, timeline T, position L, read on the writer after the
commit. The log of S on T has the commit record below L, flushed, so that nothing replaces it.

1. The session replays S, has replayed up to a position P >= L, and *after that* receives from, or writes to, the
   timeline T. A server that receives T has T in its target's history; the log that it has replayed is a part of that
   history, so up to L it is T's own. Proven.
2. As 1, with P < L: not yet. A writer is never behind: there the position does not exist (`BEYOND`).
3. It is on a later timeline. Whether that one left T before L is not known here: not proven, and no wait will help.
   A failover makes every older token so; the writer serves, and gives a new token.
4. It is on an earlier timeline: it may follow later. A writer there was replaced already (the number of a timeline
   is used only once), or the token is forged.
5. The timeline cannot be read (no WAL receiver runs: not yet; no permission: not provable).

**The witness row**: a row with a random key, written in the transaction itself, or in a later one. If the session sees
it, that transaction has committed in what the session replays, and whatever was acknowledged before that transaction
sent its COMMIT stands before it in the log. No other transaction knew the key, so there is no other such row; a
resolver's void row does not count. If the session does not see it: not yet, on a reader; on the writer it was pruned,
or lost with its server: not proven.

**The durable LSN** (Aurora): a number that the writer shows of itself after the commit, and each reader of itself. That
a reader which shows at least as much also *shows the rows* is an assumption about Aurora, and so is that the numbers
go on through a failover: only with ``aurora_causal=durable_lsn``.

Invariant: `Standing.PROVEN` is the only answer upon which a reader serves. Everything that is not known is not proven.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.causal_token import DurablePosition, LogPosition, WitnessRow
from aurora_router.policy.options import CausalMethod

if TYPE_CHECKING:
    from collections.abc import Collection

    from aurora_router.model.causal_token import CausalToken
    from aurora_router.model.commit_token import WitnessTable

MOST_ASKED = 3
"""How many readers are dialled for one read; what is behind on three of them is waited for."""
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05
"""Seconds between two questions to a reader that is behind; doubled each time."""
WRITER_PAUSE = 0.5
"""The longest pause before the writer is looked for again, if the one found was replaced, in seconds."""


class Standing(enum.Enum):
    """Where a session stands with regard to a token."""

    PROVEN = "it has replayed the token's writes"
    BEHIND = "it has not replayed them yet"
    UNPROVABLE = "it cannot be proven there"
    BEYOND = "the writer has not reached the token's position"
    REPLACED = "the writer that answered was replaced before the token was made"
    FOREIGN = "the token is of another cluster or database"


@frozen
class Finding:
    """A standing with its reason, one sentence for people."""

    standing: Standing
    reason: str


@frozen
class LogEvidence:
    """What a session of plain PostgreSQL says.

    Attributes:
        system: the system identifier.
        is_standby: whether it is a reader.
        lsn: where the last record that it replayed ends, or wrote, in bytes; None: nothing yet.
        is_receiving: whether a WAL receiver runs, or it is the writer.
        timeline: that it receives, or writes; None: not permitted, or there is none.
    """

    system: str
    is_standby: bool
    lsn: int | None
    is_receiving: bool
    timeline: int | None


@frozen
class WitnessEvidence:
    """What a session sees of a witness row.

    Attributes:
        is_standby: whether it is a reader.
        is_there: whether it sees the row, and the row is a transaction's.
        table: the table that was looked in.
    """

    is_standby: bool
    is_there: bool
    table: WitnessTable


@frozen
class DurableEvidence:
    """What an instance of Aurora shows of itself; `lsn` is None where it shows nothing."""

    system: str | None
    is_standby: bool
    lsn: int | None


Evidence = LogEvidence | WitnessEvidence | DurableEvidence


def judge(token: CausalToken, evidence: Evidence) -> Finding:
    """Where a session stands; see the module's docstring for why it is sound."""
    proof = token.proof
    if isinstance(proof, LogPosition) and isinstance(evidence, LogEvidence):
        return _judge_log(proof, evidence)
    if isinstance(proof, WitnessRow) and isinstance(evidence, WitnessEvidence):
        return _judge_witness(proof, evidence)
    if isinstance(proof, DurablePosition) and isinstance(evidence, DurableEvidence):
        return _judge_durable(proof, evidence)
    raise TypeError(f"{type(evidence).__name__} is no evidence for a {type(proof).__name__}")


def _judge_log(proof: LogPosition, evidence: LogEvidence) -> Finding:
    if evidence.system != proof.system:
        return Finding(Standing.FOREIGN, f"system identifier {evidence.system}, and the token's is {proof.system}")
    if evidence.lsn is None or not evidence.is_receiving:
        return Finding(Standing.BEHIND, "it receives no log at the moment")
    if evidence.timeline is None:
        why = "the user may not read pg_stat_wal_receiver (GRANT pg_read_all_stats, or install the witness table)"
        return Finding(Standing.UNPROVABLE, why)
    at = f"it is at {evidence.lsn:x} of timeline {evidence.timeline}, the token at {proof.lsn:x} of {proof.timeline}"
    if evidence.timeline > proof.timeline:
        return Finding(Standing.UNPROVABLE, f"a failover came after the token: {at}")
    if evidence.timeline == proof.timeline and evidence.lsn >= proof.lsn:
        return Finding(Standing.PROVEN, at)
    if not evidence.is_standby:
        return Finding(Standing.REPLACED if evidence.timeline < proof.timeline else Standing.BEYOND, at)
    return Finding(Standing.BEHIND, at)


def _judge_witness(proof: WitnessRow, evidence: WitnessEvidence) -> Finding:
    if evidence.is_there:
        return Finding(Standing.PROVEN, "it sees the witness row")
    if _is_elsewhere(evidence.table, proof.table):
        return Finding(Standing.FOREIGN, "the token's witness row is in another table, database or cluster")
    if evidence.is_standby:
        return Finding(Standing.BEHIND, "it does not see the witness row yet")
    return Finding(Standing.UNPROVABLE, "the witness row was pruned, or lost in a failover")


def _is_elsewhere(found: WitnessTable, named: WitnessTable) -> bool:
    if None not in {found.system, named.system} and found.system != named.system:
        return True
    return (found.database, found.table) != (named.database, named.table)


def _judge_durable(proof: DurablePosition, evidence: DurableEvidence) -> Finding:
    if None not in {proof.system, evidence.system} and proof.system != evidence.system:
        return Finding(Standing.FOREIGN, f"system identifier {evidence.system}, and the token's is {proof.system}")
    if evidence.lsn is None:
        return Finding(Standing.UNPROVABLE, "it shows no durable_lsn of its own")
    if evidence.lsn >= proof.lsn:
        return Finding(Standing.PROVEN, f"it shows durable_lsn {evidence.lsn}")
    behind = Standing.BEHIND if evidence.is_standby else Standing.BEYOND
    return Finding(behind, f"it shows durable_lsn {evidence.lsn}, and the token's is {proof.lsn}")


# ---------------------------------------------------------------- what to do


class Step(enum.Enum):
    """What a read does next, as long as no reader is proven."""

    ASK_ANOTHER = "dial a reader that was not asked yet"
    VERIFY = "ask the writer whether the token can be true"
    WAIT = "ask the readers that are behind again"
    WRITER = "go to the writer"


def choose_step(standings: Collection[Standing], *, others: bool, is_verified: bool, is_time_over: bool) -> Step:
    """Return what to do next; `standings` are those of the readers asked so far, at least one, none of them proven.

    Args:
        standings: of the readers asked so far.
        others: whether there is a reader that was not asked.
        is_verified: whether the token is trusted, or was compared with the writer.
        is_time_over: whether ``aurora_causal_wait`` is over.
    """
    if Standing.BEHIND not in standings or is_time_over:
        return Step.WRITER
    if others and len(standings) < MOST_ASKED:
        return Step.ASK_ANOTHER
    return Step.WAIT if is_verified else Step.VERIFY


def refuse_kind(token: CausalToken, method: CausalMethod) -> str | None:
    """Why a token is of a kind that is not accepted here; None: it is.

    A client that forges a token could choose the proof that rests on an assumption.
    """
    if isinstance(token.proof, DurablePosition) and method is not CausalMethod.DURABLE_LSN:
        return "the token rests on Aurora's durable_lsn, which is accepted only with aurora_causal=durable_lsn"
    return None
