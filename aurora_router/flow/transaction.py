"""Runs a transaction, and repeats it if it is proven that it did not commit.

Theory. There are three places at which something of an attempt can have committed:

1. *Our COMMIT.* Never sent: not by it. Acknowledged: committed. Refused: the server says so, by an error about the
   work's data or code, or by the status of the xid, which the backend that ran the transaction is asked for after any
   other error. What is left is a COMMIT that was sent and not answered by the server (the connection broke, or a
   pooler answered for it), or acknowledged although its wait for the replicas was cut short. Then `flow.outcome`
   determines the outcome by the token, which the transaction's first message returned. COMMIT is sent in one message
   with a check that the transaction is still the token's.
2. *The work itself*, against the rule, by a COMMIT of its own before it failed. libpq knows after each operation
   whether a transaction is open (`flow.session.TransactionRecord`). Before the work is run again, the server is asked
   for the status of the token's xid: on the same connection if that still works, else by the resolver, since the
   operation that was under way may have been a COMMIT.
3. *A transaction that the work began after it ended ours.* There is no token for it, so the work is never run again
   where it went on after the end of its transaction.

Invariant: `run` returns only what a transaction returned whose COMMIT by us was acknowledged or is resolved as
committed, and starts another attempt only when nothing of the one before is committed. An exception other than
`CommitOutcomeUnknown` and `TransactionEnded` means: not committed. A signal handler may raise between any two
instructions, also where nothing is left to do but to return, so `judge` judges it last, in `run` and in what drives
that: an `Exception` that came when COMMIT had been sent becomes a `CommitOutcomeUnknown`; what is none
(``KeyboardInterrupt``, a cancellation) stays itself, with the token as an attribute.

A read-only transaction has no token, since repeating it changes no rows: COMMIT travels with a check that no
transaction id was assigned. (What it notifies takes no id and cannot be seen, and may be sent twice: NOTIFY is
permitted in it. That is documented, not prevented.) A connection is given back whatever is raised, a cancellation of
its roll-back included.

Without a token (``aurora_outcome=off``) there is only what libpq reported. Two endings leave no trace in that:
``COMMIT AND CHAIN``, and several statements in one string. The check in 1 and the xid in 2 find them all the same,
except for a ``ROLLBACK AND CHAIN`` with a ``COMMIT AND CHAIN`` after it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from aurora_router.errors import CommitOutcomeUnknown, InvalidOption, TransactionEnded, annotate
from aurora_router.flow import commit_sql
from aurora_router.flow.begin import FirstMessage
from aurora_router.flow.commit import Commit, CommitState, Replay
from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.forks import IMPORTING, UNREADABLE
from aurora_router.policy.outcome import Finding, Outcome, XactStatus
from aurora_router.policy.verdict import Next, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router.flow.begin import Plan
    from aurora_router.flow.outcome import Resolver
    from aurora_router.flow.session import Modes, Reply, SessionRuntime, TransactionRecord
    from aurora_router.model.commit_token import CommitToken

T = TypeVar("T")

CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATEs that ask for another try: serialization failure, deadlock."""


class Transaction(Generic[ConnT, T]):
    """One call of ``run_transaction``.

    Args:
        runtime: does the I/O.
        plan: see `Plan`.
        work: done in each attempt.
        modes: of the transaction; win over the connection's own.
        finish: commits through a layer above, which calls the connection's ``commit``; None: we do.
        on_token: called with the token of each attempt, before the work.
        on_commit: called with the connection and the token when what may write has committed, before a layer above
            gets control again, which may give the connection to others.
        report: called in the end, when it has committed and the connection was given back.
    """

    def __init__(
        self,
        runtime: SessionRuntime[ConnT],
        plan: Plan[ConnT],
        work: Callable[[ConnT], Awaitable[T]],
        modes: Modes,
        finish: Callable[[], Awaitable[None]] | None = None,
        on_token: Callable[[CommitToken], None] | None = None,
        on_commit: Callable[[ConnT, CommitToken | None], Awaitable[None]] | None = None,
        report: Callable[[], None] | None = None,
    ) -> None:
        self.runtime = runtime
        self.errors = runtime.errors
        self.plan = plan
        self.work = work
        self.modes = modes
        self.finish = finish
        self.on_token = on_token
        self.on_commit = on_commit
        self.report = report
        self._until = runtime.now() + plan.options.transaction_timeout
        self._counted = 0
        self._read_only = False
        self._commit: Commit[ConnT] | None = None

    async def run(self) -> T:
        """Run it until it committed.

        Raises:
            CommitOutcomeUnknown: it is unknown whether it committed, or an exception came after it did.
            TransactionEnded: the work ended its transaction itself, or went on after it had failed.
            Exception: what the work or the driver raised; the transaction did not commit.
            BaseException: an interruption; it has the attribute ``token`` where COMMIT had been sent.
        """
        try:
            result = await self._run_attempts()
            if self.report is not None:
                self.report()
            return result  # noqa: TRY300 - an interruption of these two lines, too, has to be judged
        except BaseException as error:
            self.judge(error)
            raise

    def judge(self, error: BaseException) -> None:
        """Judge an exception that came out of `run`, or of what drives it: a signal handler raises at any point.

        May be called again with what it was called with, or has raised.

        Raises:
            CommitOutcomeUnknown: it is an `Exception` that interrupted a COMMIT, or what came after it. Another one
                gets the attribute ``token``.
        """
        if isinstance(error, (CommitOutcomeUnknown, TransactionEnded)) or (pending := self._pending_commit()) is None:
            return
        token, why = pending
        if isinstance(error, Exception):
            raise self.errors.commit_outcome_unknown(f"{why}: {type(error).__name__}: {error}", token=token) from error
        if not hasattr(error, "token"):
            annotate(error, token, f"{why}; Router.outcome_of(error.token) has the truth")

    async def _run_attempts(self) -> T:
        pending: Replay | None
        try:
            return await self._attempt()
        except Replay as replay:
            last = pending = replay
        try:
            with IMPORTING:
                from aurora_router.retry import transacting  # noqa: PLC0415 - tenacity is imported when first needed
        except UNREADABLE:
            raise last.cause from None

        try:
            async for attempt in transacting(self.runtime, self._count_attempts, self._seconds_left, retry_on=Replay):
                with attempt:
                    if pending is not None:
                        pending = None
                        raise last
                    return await self._attempt()
        except Replay as replay:
            last = replay
        raise last.cause

    def _count_attempts(self) -> int:
        """How many attempts counted."""
        return self._counted

    def _seconds_left(self) -> float:
        """Seconds for another attempt; 0 when it would be one too many."""
        enough = self._counted >= self.plan.options.transaction_attempts
        return 0.0 if enough else max(0.0, self._until - self.runtime.now())

    async def _attempt(self) -> T:
        connection = await self.plan.take()
        self._commit = None
        try:
            return await self._run_on(connection)
        finally:
            await self.runtime.complete(self.plan.give, connection)

    def _pending_commit(self) -> tuple[CommitToken | None, str] | None:
        """The token of an attempt that may be, or is, committed, and how far it got; None: nothing is committed."""
        commit = self._commit
        if commit is None or self._read_only:
            return None
        if commit.state is CommitState.COMMITTED:
            return commit.token, "the transaction is committed, and what came after its COMMIT was interrupted"
        if commit.state is CommitState.SENT:
            return commit.token, "it was interrupted while its COMMIT was under way"
        return None

    async def _run_on(self, connection: ConnT) -> T:
        record: TransactionRecord | None = None
        try:
            token = await self._begin(connection)
            self._counted += 1
            if token is not None and self.on_token is not None:
                self.on_token(token)
            with self.runtime.watching(connection) as record:
                return await self._run_once(connection, token, record)
        except BaseException:
            if record is None or not record.ended:
                await self._roll_back(connection)
            raise

    async def _run_once(self, connection: ConnT, token: CommitToken | None, record: TransactionRecord) -> T:
        """Do the work, and commit; returns what the work returned."""

        async def resolve(cause: BaseException | None) -> None:
            await self._resolve(token, cause)

        commit = Commit(self.runtime, connection, token, record, resolve, read_only=self._read_only)
        self._commit = commit
        try:
            result = await self.work(connection)
            await self._finish(commit)
        except Exception as error:
            if commit.state in {CommitState.SENT, CommitState.COMMITTED} or commit.verdict is error:
                raise
            if isinstance(commit.verdict, Replay):
                raise Replay(error) from error
            if commit.verdict is not None:
                raise commit.verdict from error
            if commit.state is CommitState.NOT_SENT:
                await self._judge_failed_work(commit, error)
            elif self._asks_for_replay(connection, error):
                raise Replay(error) from error
            raise
        except BaseException:
            await self.runtime.discard(connection)
            raise
        if commit.state is CommitState.NOT_SENT:
            raise self.errors.transaction_ended("the work's layer did not commit by the connection that it was given")
        return result

    async def _finish(self, commit: Commit[ConnT]) -> None:
        async def send() -> None:
            await commit.send()
            if self.on_commit is not None and not self._read_only:
                await self.on_commit(commit.connection, commit.token)

        if self.finish is None:
            await send()
            return
        with self.runtime.committing(commit.connection, send):
            await self.finish()

    async def _roll_back(self, connection: ConnT) -> None:
        """Leave the transaction that is open on a connection, or close it.

        Not for a connection whose transaction the work ended: its layer may have given it to others meanwhile.
        """
        runtime = self.runtime
        if runtime.is_broken(connection) or runtime.is_idle(connection):
            return
        if runtime.is_busy(connection):
            await runtime.discard(connection)
            return
        try:
            await runtime.rollback(connection)
        except BaseException as error:
            await runtime.discard(connection)
            if not self._is_drivers(error):
                raise  # an interruption

    def _is_drivers(self, error: BaseException) -> bool:
        """Whether an exception is the driver's or the server's, and not one of a signal handler or a cancellation."""
        trouble = self.runtime.trouble(error)
        return trouble.connection or trouble.sqlstate is not None

    # ------------------------------------------------------------ a work that failed

    def _asks_for_replay(self, connection: ConnT, error: BaseException) -> bool:
        """Whether an exception is a reason to try again, if nothing is committed."""
        trouble = self.runtime.trouble(error)
        if trouble.sqlstate in CONFLICTS:
            return True
        return trouble.connection and (self.runtime.is_broken(connection) or trouble.sqlstate == commit_sql.READ_ONLY)

    async def _judge_failed_work(self, commit: Commit[ConnT], error: Exception) -> None:
        """Judge a work that failed before COMMIT was sent; returns if its error stays as it is.

        Raises:
            Replay: it may be run again: nothing of it is committed.
            TransactionEnded: it ended its transaction itself, by a COMMIT, or went on after that.
            CommitOutcomeUnknown: the outcome cannot be determined.
        """
        record, replay = commit.record, self._asks_for_replay(commit.connection, error)
        if record.went_on:
            raise self.errors.transaction_ended(
                "the work ended its transaction itself, went on, and then failed"
            ) from error
        if not replay and (record.rolled_back or not record.ended):
            return
        if record.ended and not record.rolled_back and (replay or commit.token is None):
            # It may have been the COMMIT of another transaction than the token's, after a ROLLBACK AND CHAIN.
            raise self.errors.transaction_ended("the work ended its transaction itself, and then failed") from error
        if commit.token is not None:
            finding = await self._find_out(commit, commit.token)
            if finding.outcome is Outcome.COMMITTED:
                raise self.errors.transaction_ended("the work ended its transaction itself, and then failed") from error
            if finding.outcome is not Outcome.NOT_COMMITTED:
                why = f"the work failed, and it is unknown whether it committed before that: {finding.reason}"
                raise self.errors.commit_outcome_unknown(why, token=commit.token) from error
        if replay:
            raise Replay(error) from error

    async def _find_out(self, commit: Commit[ConnT], token: CommitToken) -> Finding:
        """Determine the outcome of a transaction whose COMMIT we did not send; on its own connection if possible."""
        runtime, connection = self.runtime, commit.connection
        if not (commit.record.ended or runtime.is_broken(connection) or runtime.is_busy(connection)):
            try:
                if (finding := await self._ask_here(connection, token)) is not None:
                    return finding
            except DialFailed:
                await runtime.discard(connection)
        try:
            resolver = await self.plan.new_resolver(token)
            return await resolver.run()
        except Exception as error:
            if not self._is_drivers(error):  # an interruption, or a failure of what gives the credentials
                why = f"the work failed, and asking whether it committed before that failed, too: {error}"
                raise self.errors.commit_outcome_unknown(why, token=token) from error
            return Finding(Outcome.UNKNOWN, f"no server can be asked for it: {error}")

    async def _ask_here(self, connection: ConnT, token: CommitToken) -> Finding | None:
        """Ask on the connection of the transaction; None: another backend answered, so it has to be resolved."""
        if not self.runtime.is_aborted(connection):
            reply = await self._execute(connection, commit_sql.is_own(token))
            if reply.rows[0][0] == "t":
                return Finding(Outcome.NOT_COMMITTED, "it is open")
            return Finding(Outcome.COMMITTED, "another transaction is open on its connection")
        reply = await self._execute(connection, commit_sql.roll_back(token))
        status = commit_sql.own_status(reply.rows)
        if status is None:
            return None
        if status is XactStatus.ABORTED:
            return Finding(Outcome.NOT_COMMITTED, "the server that ran it says so")
        return Finding(Outcome.COMMITTED, "the server that ran it says so, or it is prepared")

    # ------------------------------------------------------------ a COMMIT without an answer

    async def _resolve(self, token: CommitToken | None, cause: BaseException | None) -> None:
        """Determine the outcome of a COMMIT; returns if it committed."""
        if token is None:
            if self._read_only:
                raise Replay(cause or self.errors.failover_error("a read-only transaction has nothing to replicate"))
            raise self.errors.commit_outcome_unknown(
                "the answer to COMMIT was lost, and there is no way to ask for it"
            ) from cause
        resolver: Resolver[ConnT] | None = None
        try:
            resolver = await self.plan.new_resolver(token)
            finding = await resolver.run()
        except Exception as error:
            why = f"the answer to COMMIT was lost, and no server can be asked for it: {error}"
            raise self.errors.commit_outcome_unknown(why, token=token) from error
        if finding.outcome is Outcome.NOT_COMMITTED:
            raise Replay(
                cause or self.errors.failover_error("COMMIT succeeded without its replicas, and then was lost")
            )
        if finding.outcome is not Outcome.COMMITTED:
            why = f"the answer to COMMIT was lost: {finding.reason}"
            raise self.errors.commit_outcome_unknown(why, token=token) from (cause or resolver.cause)

    # ------------------------------------------------------------ the first message

    async def _begin(self, connection: ConnT) -> CommitToken | None:
        """Begin a transaction on a connection; one on which that fails is not used again."""
        modes = self.modes.merge(self.runtime.modes(connection))
        self._read_only = bool(modes.read_only)
        begin = commit_sql.begin(modes.sql) if self.runtime.is_idle(connection) else ""
        if not begin and self.modes.sql:
            raise InvalidOption(f"a transaction has begun already: it cannot be {self.modes.sql} any more")
        try:
            if self._read_only:
                await self._execute(connection, begin)
                return None
            return await FirstMessage(self.runtime, self.plan, connection).send(begin)
        except DialFailed as failed:
            is_read_only = failed.fault.sqlstate == commit_sql.READ_ONLY
            # What refuses BEGIN for good may end the session too: a pooler that takes no transactions does.
            is_lost = self.runtime.is_broken(connection) and judge(failed.fault).then is not Next.RAISE
            if is_lost or is_read_only:
                self._counted += is_read_only
                await self.runtime.discard(connection)
                raise Replay(failed.cause) from failed
            raise failed.cause from None

    async def _execute(self, connection: ConnT, sql: str) -> Reply:
        return await self.runtime.execute(connection, sql, None)
