"""Planted bugs: each breaks one rule of the client in a way that could be written by mistake.

A simulation that does not find them proves nothing when it finds no others.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from aurora_router import retry
from aurora_router.flow import attempt, commit_sql, connect, hang_detector, outcome, probe, topology, transaction
from aurora_router.flow.cluster import Cluster
from aurora_router.flow.commit import Commit
from aurora_router.flow.hang_detector import HangDetector
from aurora_router.flow.monitor import ClusterMonitor
from aurora_router.flow.session import Reply
from aurora_router.model import claim as claims
from aurora_router.model import reduce as reducing
from aurora_router.model.instance import Instance
from aurora_router.model.observation import Failure
from aurora_router.model.view import View
from aurora_router.policy import balance, verdict
from aurora_router.policy import route as routing
from aurora_router.policy.outcome import Finding, Outcome, WitnessEvidence
from aurora_router.policy.role_reports import RoleCheck, RoleReports
from aurora_router.policy.verdict import Next
from aurora_router.runtime import registry

from .dimensions import Dimensions
from .schedule import play
from .world import Lookout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from aurora_router.model.commit_token import CommitToken


@dataclass(frozen=True)
class Mutant:
    """A bug.

    Attributes:
        name: what is wrong.
        plant: how it gets in.
        soon: whether it shows within a few schedules.
        play: plays the schedules in which it may show; None: as all others.
    """

    name: str
    plant: Callable[[], AbstractContextManager[Any]]
    soon: bool = False
    play: Callable[[int], object] | None = None


play_idle_logs = partial(play, dimensions=Dimensions.just("idle_logs"))
play_hasty_failovers = partial(play, dimensions=Dimensions.just("hasty_failovers"))
play_answered_losses = partial(play, dimensions=Dimensions.just("answered_losses"))


def accept_older_tokens() -> Any:
    return patch.object(reducing, "find_refusal", lambda *_: None)


def forget_former_writers() -> Any:
    original = reducing.find_refusal

    def refusal(view: Any, claim: Any) -> Any:
        return original(replace(view, former=frozenset(), token=None), replace(claim, token=None))

    return patch.object(reducing, "find_refusal", refusal)


@contextmanager
def keep_generations() -> Any:
    with (
        patch.object(Instance, "become", lambda self, role: replace(self, role=role)),
        patch.object(Instance, "invalidate_connections", lambda self: self),
    ):
        yield


def hand_out_stale() -> Any:
    return patch.object(View, "is_current", lambda self, instance, generation: True)


def trust_the_view() -> Any:
    """The role is not verified at connect."""

    async def confirm(attempt: Any, connection: Any, instance: Any) -> Any:
        return instance

    return patch.object(connect, "confirm_role", confirm)


def cut_on_suspicion() -> Any:
    """No ping: a statement that takes long is taken for a hang."""

    def suspect(self: Any, id_: str, waiting: Any, now: float) -> None:
        self._condemn(id_, now, self.limits.ping)

    return patch.object(HangDetector, "_suspect", suspect)


def never_cut() -> Any:
    return patch.object(Lookout, "cut", lambda self, held: False)


def never_wake() -> Any:
    def wake(self: Any) -> None:
        self.news += 1

    return patch.object(Cluster, "wake", wake)


def readers_wait_for_writers() -> Any:
    async def wait(attempt: Any) -> None:
        cluster = attempt.cluster
        while cluster.suspected_at is not None and attempt.seconds_left() > 0.0:
            await attempt.runtime.wait_for_news(cluster, cluster.news, attempt.seconds_left())

    return patch.object(connect, "wait_until_writer_confirmed", wait)


def full_is_final() -> Any:
    final = replace(verdict.BY_SQLSTATE["53300"], then=Next.RAISE)
    return patch.dict(verdict.BY_SQLSTATE, {"53300": final})


def unknown_is_final() -> Any:
    final = replace(verdict.BY_KIND[verdict.FaultKind.REJECTED], then=Next.RAISE)
    return patch.dict(verdict.BY_KIND, {verdict.FaultKind.REJECTED: final})


def trust_the_status_alone() -> Any:
    """The naive way: ``pg_xact_status`` on the server that is the writer now."""

    def judge(token: Any, evidence: Any) -> Finding:
        known = {"committed": Outcome.COMMITTED, "in progress": Outcome.IN_PROGRESS}
        return Finding(known.get(evidence.status.value, Outcome.NOT_COMMITTED), "naive")

    return patch.object(outcome, "judge_log", judge)


def absence_is_proof() -> Any:
    """The witness is looked for, not inserted."""
    original = commit_sql.ask_witness

    def ask(token: Any, id_: str, lock_timeout: float) -> str:
        return original(token, id_, lock_timeout).replace(f"VALUES ('{token.witness}', true)", "VALUES (null)")

    return patch.object(commit_sql, "ask_witness", ask)


def replay_the_unknown() -> Any:
    original = transaction.Transaction._resolve

    async def resolved(self: Any, token: Any, doubt: Any) -> None:
        try:
            await original(self, token, doubt)
        except transaction.CommitOutcomeUnknown as error:
            raise transaction.Replay(error) from error

    return patch.object(transaction.Transaction, "_resolve", resolved)


def a_lost_answer_is_a_rollback() -> Any:
    async def resolved(self: Any, token: Any, doubt: Any) -> None:
        raise transaction.Replay(doubt or RuntimeError("lost"))

    return patch.object(transaction.Transaction, "_resolve", resolved)


def a_lost_answer_is_a_commit() -> Any:
    async def resolved(self: Any, token: Any, doubt: Any) -> None:
        """No instance is asked."""

    return patch.object(transaction.Transaction, "_resolve", resolved)


def ignore_the_warning() -> Any:
    """The notice of a cancelled wait for the replicas is not read."""
    return patch.object(Reply, "replicated", property(lambda self: True))


def void_is_not_looked_at() -> Any:
    def judge(token: CommitToken, evidence: WitnessEvidence) -> Finding:
        return Finding(Outcome.COMMITTED, "there is a row")

    return patch.object(outcome, "judge_witness", judge)


@contextmanager
def forget_to_close() -> Any:
    async def discard(self: Any, connection: Any) -> None:
        """It is left to the garbage collector, which has no reason to come."""

    with ExitStack() as planted:
        from .world import Wire

        planted.enter_context(patch.object(Wire, "discard", discard))
        yield


def believe_role_reports() -> Any:
    """What is reported at start-up is believed on every path."""
    return patch.object(RoleReports, "believes", lambda *_: True)


def take_relays_for_direct() -> Any:
    """Neither the process id nor the port is compared, and no standby is waited for."""

    def believes(self: Any, path: Any, pid: int, now: float) -> bool:
        return self.honest is not False and path in self.direct

    direct = patch.object(RoleCheck, "direct", property(lambda self: True))
    wrong = patch.object(RoleCheck, "wrong", property(lambda self: False))
    return _all(direct, wrong, patch.object(RoleReports, "believes", believes))


def condemn_by_a_dial() -> Any:
    """A dial that fails makes the connections stale that are there."""

    def failure(id_: str, generation: int, **others: Any) -> Failure:
        return Failure(id_, generation, **{**others, "gone": True})

    return patch.object(attempt, "Failure", failure)


def count_on_a_monitor() -> Any:
    """A monitor that could not be started is waited for."""
    return patch.object(Cluster, "is_monitored", property(lambda self: True))


def stay_blind() -> Any:
    """A monitor that was refused once does not try the password of a user who connects after that."""

    def take(self: Any, access: Any) -> None:
        self.access = access

    return patch.object(ClusterMonitor, "on_user_connected", take)


def hear_no_answers() -> Any:
    """A ping that is silent condemns an instance, whatever its other connections receive."""
    return patch.object(HangDetector, "_last_heard_at", lambda *_: None)


def hear_no_logins() -> Any:
    """What a server sends on a dial that does not end in time is no sign of life."""
    return patch.object(Lookout, "dial_heard_at", lambda *_: None)


def take_own_suspicions_for_news() -> Any:
    """The end of a suspicion that a connect caused itself ends its wait."""
    return patch.object(retry, "_is_older", lambda *_: True)


def overlook_what_is_unread() -> Any:
    """A connection whose answer its user has not read yet is taken for one that waits."""
    return patch.object(Lookout, "has_unread", lambda *_: False)


def try_once() -> Any:
    """One dial that is not answered condemns an instance."""
    return patch.object(hang_detector, "TRIES", 1)


def ask_no_session() -> Any:
    """A ping dials, whatever session there is."""

    def afresh(self: Any, id_: str, number: int) -> Any:
        return probe.InstanceProbe(self.runtime, self.cluster, id_)

    return patch.object(HangDetector, "_probe_for_try", afresh)


def believe_any_answer() -> Any:
    """An error at COMMIT is a refusal unless the connection is broken."""

    async def is_refused(self: Any, failed: Any) -> bool:
        return not self.runtime.is_broken(self.connection)

    return patch.object(Commit, "_is_refused", is_refused)


def hide_warnings() -> Any:
    """COMMIT leaves it to the session whether the warning about the replicas is sent."""
    return patch.object(commit_sql, "_FINAL", "COMMIT")


def replay_what_ended() -> Any:
    """A work that failed is run again, whatever it did to its transaction."""

    async def undone(self: Any, commit: Any, error: Exception) -> None:
        if self._asks_for_replay(commit.connection, error):
            raise transaction.Replay(error) from error

    return patch.object(transaction.Transaction, "_judge_failed_work", undone)


def wait_for_every_dial() -> Any:
    """A dial goes on for all of its time, whatever happened to its instance meanwhile."""
    return patch.object(attempt.ConnectAttempt, "make_wanted", lambda *_: None)


def trust_old_figures() -> Any:
    """The age of a figure of the lag does not count."""
    return _all(*(patch.object(each, "is_lag_unproven", lambda *_: False) for each in (connect, topology, balance)))


def give_up_for_one() -> Any:
    """One instance that cannot be asked makes the monitor give up on all."""

    def can_ask(self: Any) -> bool:
        return not self._is_locked_out and self._askable >= self.cluster.view.instances.keys()

    return patch.object(ClusterMonitor, "can_ask", property(can_ask))


def never_believe_former_writers() -> Any:
    """That a former writer's own token grows is no proof that it goes on."""
    return patch.object(claims, "_has_grown", lambda *_: False)


def forget_who_yielded() -> Any:
    """That a former writer said that it is a reader is no proof that it is no zombie."""
    return patch.object(claims, "_has_yielded", lambda *_: False)


def never_advance() -> Any:
    """The log of a claimant grows only if another client writes."""
    return patch.object(View, "lacks_growth", lambda *_: False)


def trust_first_tokens() -> Any:
    """What a promoted writer shows first is taken for all that its predecessor had made durable."""
    original = reducing.find_refusal
    return patch.object(
        reducing, "find_refusal", lambda view, claim: original(replace(view, fresh=False, provisional=False), claim)
    )


def never_search() -> Any:
    """The given names are not asked when all that are known are silent."""

    async def search(self: Any, address: Any, access: Any, pause: float) -> None:
        """All instances that may be the writer are known."""

    return patch.object(ClusterMonitor, "_query_name", search)


def take_any_answer_for_complete() -> Any:
    """An answer is taken for the whole cluster, whatever it lacks: what it does not list is gone."""
    claimed, merge = reducing.find_claim, reducing._merge

    def complete(*args: Any) -> Any:
        found = claimed(*args)
        return None if found is None else replace(found, complete=True)

    def taken(*args: Any, complete: bool) -> Any:
        return merge(*args, complete=True)

    return _all(
        patch.object(reducing, "find_claim", complete),
        patch.object(reducing, "_merge", taken),
        patch.object(reducing, "MISSING_SECONDS", 0.0),
    )


def name_clusters_by_template() -> Any:
    """Clusters whose instances are named in one way are one cluster."""

    def identity(request: Any, chosen: Any) -> Any:
        found = routing.identity(request, chosen)
        return found._replace(scope="one template", name="", sort="other") if request.options.instance_host else found

    return _all(*(patch.object(each, "identity", identity) for each in (registry, topology, probe)))


def forget_the_database() -> Any:
    """What a pooler leads to is one cluster, whichever database is named."""

    def identity(request: Any, chosen: Any) -> Any:
        return routing.identity(replace(request, database=""), chosen)

    merged = patch.object(registry, "is_disjoint", lambda *_: False)  # else the next answer parts them
    return _all(merged, *(patch.object(each, "identity", identity) for each in (registry, topology, probe)))


@contextmanager
def _all(*planted: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for each in planted:
            stack.enter_context(each)
        yield


MUTANTS = (
    Mutant("older evidence for a writer is accepted", accept_older_tokens, soon=True),
    Mutant("a former writer is forgotten", forget_former_writers, soon=True),
    Mutant("generations do not grow", keep_generations),
    Mutant("stale connections are handed out", hand_out_stale),
    Mutant("the role is not verified", trust_the_view, soon=True),
    Mutant("suspicion is enough to cut", cut_on_suspicion, soon=True),
    Mutant("connections of a hung instance are not cut", never_cut),
    Mutant("no task is woken by news", never_wake, soon=True),
    Mutant("readers wait for a writer", readers_wait_for_writers),
    Mutant("too many connections is final", full_is_final, soon=True),
    Mutant("a sentence that is not known is final", unknown_is_final),
    Mutant("the status of the xid alone is believed", trust_the_status_alone),
    Mutant("the absence of a witness is taken for a proof", absence_is_proof),
    Mutant("what is unknown is replayed", replay_the_unknown, soon=True),
    Mutant("a lost answer is taken for a rollback", a_lost_answer_is_a_rollback, soon=True),
    Mutant("a lost answer is taken for a commit", a_lost_answer_is_a_commit, soon=True),
    Mutant("a cancelled wait for the replicas goes unnoticed", ignore_the_warning),
    Mutant("a void witness is taken for the transaction's", void_is_not_looked_at, soon=True),
    Mutant("connections that are not wanted stay open", forget_to_close, soon=True),
    Mutant("role reports are believed on every path", believe_role_reports),
    Mutant("a relay is taken for a direct path", take_relays_for_direct),
    Mutant("a dial that fails makes connections stale", condemn_by_a_dial),
    Mutant("a monitor that could not start is counted on", count_on_a_monitor),
    Mutant("a monitor that was refused never tries a new password", stay_blind),
    Mutant("a silent ping is enough to cut", hear_no_answers),
    Mutant("a login that takes long is taken for silence", hear_no_logins),
    Mutant("what a connect caused itself is news to it", take_own_suspicions_for_news),
    Mutant("one dial without an answer is enough to cut", try_once),
    Mutant("a ping does not ask the session that there is", ask_no_session),
    Mutant("an answer that is unread is overlooked", overlook_what_is_unread),
    Mutant("only known instances are asked", never_search),
    Mutant("a former writer that goes on is not believed", never_believe_former_writers),
    Mutant("a former writer that yielded is taken for a zombie", forget_who_yielded, play=play_idle_logs),
    Mutant("nothing lets an idle log grow", never_advance, play=play_hasty_failovers),
    Mutant("the first token of a promoted writer is trusted", trust_first_tokens),
    Mutant("one instance without a place blinds the monitor", give_up_for_one),
    Mutant("a session hides the warning about the replicas", hide_warnings),
    Mutant("an answer for a lost server is believed", believe_any_answer, soon=True, play=play_answered_losses),
    Mutant("a work that ended its transaction is run again", replay_what_ended),
    Mutant("a dial into a freeze is waited for", wait_for_every_dial),
    Mutant("the age of a lag does not count", trust_old_figures),
    Mutant("an answer that lacks rows is taken for a complete one", take_any_answer_for_complete),
    Mutant("clusters of one template are taken for one", name_clusters_by_template),
    Mutant("clusters behind one pooler are taken for one", forget_the_database),
)
