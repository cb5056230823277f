"""The outcome of a transaction whose COMMIT got no answer: from evidence to a verdict, as tables.

Two ways lead to evidence. Both leave a mark in the transaction's first message, and are asked on an instance that has
just proven to be the writer by committing a write of the resolver's own (the *barrier*): a fenced writer cannot, and
with synchronous replication everything before the barrier is then as durable as any acknowledged commit. A server that
stops waiting for its replicas acknowledges all the same, with a warning (`is_unreplicated`): so the messages of
`flow.commit_sql` see to it that no setting of a session hides it. Such an acknowledgement is no barrier, and proves
nothing.

**The log position.** The mark is a record in the log that holds our xid and ends at `lsn`, and the *incarnation* of the
server that wrote it (`model.commit_token.ServerIncarnation`: one run between two recoveries). Asked on a server R:

1. R is in the same incarnation. Its log lost nothing since, the xid is ours, and ``pg_xact_status`` is about us.
2. R is in another incarnation, whose recovery ended at L. What R's history holds up to L was replayed; everything
   beyond, R wrote itself in its own incarnation. Our record was written in another incarnation.
   a. L < lsn: our record is neither before L nor beyond it. Not committed.
   b. ``aborted``, or the xid was never assigned: either the record is ours and we aborted, or it is not there at all.
      Not committed, whichever it is.
   c. ``committed``, R was promoted in this incarnation to our timeline + 1, and L >= lsn. R replayed our timeline
      beyond `lsn`, so what stood there is in its history. It is our record unless our server lost it in a crash,
      recovered in place, and wrote the same stretch of the timeline again, with the same xid given to another
      transaction. `flush_proven` says that this is impossible: the record was flushed before the transaction went on
      (PostgreSQL 17 and later do it in the same message), or the server does not restart in place
      (``restart_after_crash=off``). Committed.
   d. ``committed`` otherwise: the xid may be another transaction's. Unknown.

"Promoted in this incarnation" is shown by ``pg_last_xact_replay_timestamp()``: only an archive recovery sets it, a
crash recovery does not, and every new incarnation begins without it. It rules out that R was restarted after its
promotion, where L is a position on R's own timeline and says nothing of ours.

**The witness row.** The mark is a row with a random primary key, the first write of the transaction. The resolver
inserts the same key, marked void (``ON CONFLICT DO NOTHING``), commits, and looks at the row that is there:

1. not void: the transaction wrote it, so it committed; no other transaction knew the key before.
2. void: this resolver wrote it, or one before it (a verdict must not change by being asked for twice). PostgreSQL
   makes an insert wait for every living transaction that wrote the same key, so ours lived no more when the void row
   came, without having committed; and if its COMMIT is still on the wire, no transaction is left that it could commit.
   On a server in another incarnation the old transaction is not in the history at all. Not committed.
3. the insert still waits when its lock_timeout is over: in progress.

A row can be missing only where it was written: the token names the table by its object id, and that of its database,
and the system identifier (`model.commit_token.WitnessTable`). Asked elsewhere (another database, another cluster, a
table that was installed again), there is no verdict.

This needs a unique index on the key (``ON CONFLICT (id)`` is an error without), a table that survives a crash, and no
policy that hides rows (with ``row_security`` off it is an error where one would). A row that is not shown proves
nothing.

A row is kept for `KEPT_SECONDS` by the server's clock. A resolver that is older than half of that answers unknown:
absence could mean that the row was pruned.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.policy.verdict import Fault, FaultKind

if TYPE_CHECKING:
    from aurora_router.model.commit_token import CommitToken, ServerIncarnation, WitnessTable

KEPT_SECONDS = 24 * 3600.0
"""How long a witness row is kept at least."""
OLDEST_SECONDS = KEPT_SECONDS / 2
"""The age of a transaction up to which its witness row is asked for."""


_OF_THE_WORK = frozenset({"22", "23", "2F", "38", "39", "42", "44", "P0"})
"""Classes of SQLSTATEs that are about the work's data and code (deferred constraints and triggers)."""
_NO_ANSWERS = frozenset({"08", "58", "XX"})
"""Classes of SQLSTATEs that a pooler uses for a server that it lost: connection, system and internal errors."""
_NO_ANSWER = frozenset({"40003", "57P01", "57P02", "57P03", "57P04", "57P05"})
"""SQLSTATEs that mean the same: completion unknown, and a session that was ended."""


class Outcome(str, enum.Enum):
    """The outcome of a transaction."""

    COMMITTED = "committed"
    NOT_COMMITTED = "not committed"
    IN_PROGRESS = "in progress"
    UNKNOWN = "unknown"


class XactStatus(str, enum.Enum):
    """What the server says of an xid; FUTURE: it was never assigned; FORGOTTEN: too old for the commit log."""

    COMMITTED = "committed"
    ABORTED = "aborted"
    IN_PROGRESS = "in progress"
    FUTURE = "future"
    FORGOTTEN = "forgotten"


@frozen
class Finding:
    """An outcome with its reason, one sentence for people."""

    outcome: Outcome
    reason: str


@frozen
class LogEvidence:
    """What an instance that has proven to be the writer says of a token.

    Attributes:
        incarnation: the run that it is in.
        promoted: whether it was promoted in this incarnation.
        status: of the token's xid.
    """

    incarnation: ServerIncarnation
    promoted: bool
    status: XactStatus


@frozen
class WitnessEvidence:
    """What came of inserting the token's witness row once more, where the insert did not have to wait too long.

    Attributes:
        void: whether the row that is there is a resolver's, not the transaction's.
        age: seconds since the transaction began, by the clock of the server that answered.
        witness_table: the table that was asked.
    """

    void: bool
    age: float
    witness_table: WitnessTable


_SAME_INCARNATION = {
    XactStatus.COMMITTED: Finding(Outcome.COMMITTED, "the server that ran it says so, and lost nothing since"),
    XactStatus.ABORTED: Finding(Outcome.NOT_COMMITTED, "the server that ran it says so, and lost nothing since"),
    XactStatus.IN_PROGRESS: Finding(Outcome.IN_PROGRESS, "its backend has not ended yet"),
    XactStatus.FUTURE: Finding(Outcome.UNKNOWN, "the server that ran it does not know its xid"),
    XactStatus.FORGOTTEN: Finding(Outcome.UNKNOWN, "it is older than the server's commit log"),
}
_OTHER_INCARNATION = {
    XactStatus.ABORTED: Finding(Outcome.NOT_COMMITTED, "its xid aborted, whichever transaction had it"),
    XactStatus.IN_PROGRESS: Finding(Outcome.IN_PROGRESS, "its xid is running, whichever transaction has it"),
    XactStatus.FUTURE: Finding(Outcome.NOT_COMMITTED, "its xid was never assigned in the log that survived"),
    XactStatus.FORGOTTEN: Finding(Outcome.UNKNOWN, "it is older than the server's commit log"),
}
_LOST = Finding(Outcome.NOT_COMMITTED, "the log that survived ends before it")
_SURVIVED = Finding(Outcome.COMMITTED, "the log that survived holds it, and it committed there")


def judge_log(token: CommitToken, evidence: LogEvidence) -> Finding:
    """The verdict by the log position; see the module's docstring for why it is sound."""
    incarnation, lsn = token.incarnation, token.lsn
    if incarnation is None or lsn is None:
        return Finding(Outcome.UNKNOWN, "the transaction left no log position")
    if evidence.incarnation.system != incarnation.system:
        return Finding(Outcome.UNKNOWN, "the server that answered is of another system")
    if evidence.incarnation == incarnation:
        return _SAME_INCARNATION[evidence.status]
    end = evidence.incarnation.recovered
    if end is not None and end < lsn:
        return _LOST
    if evidence.status is not XactStatus.COMMITTED:
        return _OTHER_INCARNATION[evidence.status]
    reason = _find_reuse(token, incarnation, evidence)
    return _SURVIVED if reason is None else Finding(Outcome.UNKNOWN, reason)


def _find_reuse(token: CommitToken, incarnation: ServerIncarnation, evidence: LogEvidence) -> str | None:
    """Why an xid that committed in another incarnation may be another transaction's; None: it is ours."""
    if evidence.incarnation.recovered is None or not evidence.promoted:
        return "the server was restarted since: its xid may have been given to another transaction"
    if evidence.incarnation.timeline != incarnation.timeline + 1:
        return f"not one promotion away: timeline {incarnation.timeline} then, {evidence.incarnation.timeline} now"
    if not token.flush_proven:
        return "a restart in place may have given its xid to another transaction (restart_after_crash is on)"
    return None


def judge_witness(token: CommitToken, evidence: WitnessEvidence) -> Finding:
    """The verdict by the witness row; see the module's docstring for why it is sound."""
    if (elsewhere := _elsewhere(token.witness_table, evidence)) is not None:
        return Finding(Outcome.UNKNOWN, elsewhere)
    if abs(evidence.age) > OLDEST_SECONDS:
        return Finding(Outcome.UNKNOWN, f"it is older than {OLDEST_SECONDS / 3600:g} h: its witness may be gone")
    if evidence.void:
        return Finding(Outcome.NOT_COMMITTED, "its witness was not there, and now it cannot come any more")
    return Finding(Outcome.COMMITTED, "its witness is there")


def _elsewhere(witness_table: WitnessTable | None, evidence: WitnessEvidence) -> str | None:
    """Why the table that was asked is not the one that holds the witness; None: it is."""
    asked = evidence.witness_table
    if witness_table is None:
        if not evidence.void:
            return None
        return "its token does not record in which database its witness is, and it is not in this one"
    if witness_table.system != asked.system and witness_table.system is not None:
        return (
            f"it ran in another cluster than the one that was asked (system identifier {witness_table.system}, not "
            f"{asked.system or 'known'}): ask by a router of that cluster"
        )
    if witness_table.database != asked.database:
        return (
            f"it ran in the database {witness_table.name or witness_table.database}, and another one was asked "
            f"({asked.name or asked.database}): ask by a router with that dbname"
        )
    if witness_table.table != asked.table:
        return "the table that held its witness was dropped since, and installed again"
    return None


def proves_refusal(fault: Fault) -> bool:
    """Whether an error at COMMIT is about what the work did, so that it did not commit.

    Such an error is one that a server alone can raise, or the client's own: COMMIT could not be sent.
    """
    is_ours = fault.kind is FaultKind.CLIENT
    return is_ours or (not fault.ends_session and (fault.sqlstate or "")[:2] in _OF_THE_WORK)


def is_no_answer(fault: Fault) -> bool:
    """Whether an error at COMMIT says that its sender lost the server, which may have committed.

    A pooler sends it, and may keep its connection to the client. A server that ends a session says the same.
    """
    code = fault.sqlstate
    return fault.ends_session or code is None or code in _NO_ANSWER or code[:2] in _NO_ANSWERS


def is_unreplicated(source_function: str | None, message: str | None) -> bool:
    """Whether a notice says that a wait for synchronous replication was cut short: a success that is none yet.

    The text is translated by the server, the name of its C function is not (PostgreSQL: ``src/backend/replication``).
    """
    return source_function == "SyncRepWaitForLSN" or (
        "canceling" in (message or "") and "replication" in (message or "")
    )
