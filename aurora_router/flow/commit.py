"""The COMMIT of one transaction: sent once, and resolved if its answer does not settle the outcome.

It is sent in one message with a check that the transaction is still the one that the token names. If it is
acknowledged, it is committed, unless the wait for the replicas was cut short. An error is the server's own only if the
server shows that: a pooler that loses its server may answer in its place, with any SQLSTATE, and keep the connection to
the client, while the server commits. So an error counts as a refusal only

- if it is one about the work's data or code, which a server alone can raise (`policy.outcome.proves_refusal`), or
- if the backend that ran the transaction says that its xid is aborted: one more message on the same connection.

In all other cases the outcome has to be determined (`flow.outcome`). Where there is no token, neither can be asked: an
error that means a lost server (`policy.outcome.is_no_answer`) leaves the outcome unknown, any other one is believed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from aurora_router.errors import CommitOutcomeUnknown, InvalidOption, TransactionEnded
from aurora_router.flow import commit_sql
from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.policy.outcome import XactStatus, is_no_answer, proves_refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router.flow.session import SessionRuntime, TransactionRecord
    from aurora_router.model.commit_token import CommitToken

RefusalT = TypeVar("RefusalT", TransactionEnded, InvalidOption)

_WROTE = (
    "the transaction was to be read-only, and its work wrote, or took a transaction id: nothing is committed. "
    "Leave read_only away, so that a lost COMMIT can be looked for"
)


class CommitState(enum.Enum):
    """How far a commit got."""

    NOT_SENT = enum.auto()
    SENT = enum.auto()
    REFUSED = enum.auto()
    SETTLED = enum.auto()
    COMMITTED = enum.auto()


class Replay(Exception):
    """The attempt is proven not committed; another one may succeed."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


@dataclass(eq=False)
class Commit(Generic[ConnT]):
    """The COMMIT of one transaction: sent once, and resolved if its answer does not settle the outcome.

    It is resolved before a layer above gets an answer, so that such a layer sees the true outcome.

    Attributes:
        runtime: does the I/O.
        connection: on which the transaction is open.
        token: of the transaction; None where its outcome cannot be asked for.
        record: what libpq reported about the transaction.
        resolve: determines the outcome, given the error that took the place of the answer, if any.
        read_only: whether the transaction may only read.
        state: how far it got.
        verdict: what `Transaction.run` raises, whatever a layer above does with the exception that it got.
    """

    runtime: SessionRuntime[ConnT]
    connection: ConnT
    token: CommitToken | None
    record: TransactionRecord
    resolve: Callable[[BaseException | None], Awaitable[None]]
    read_only: bool
    state: CommitState = field(default=CommitState.NOT_SENT, init=False)
    verdict: BaseException | None = field(default=None, init=False)

    async def send(self) -> None:
        """Commit.

        Raises:
            Exception: the driver's own: the server refused, or the connection broke and it is not committed.
            TransactionEnded: the transaction is over, or it failed and the work went on.
            InvalidOption: it was to be read-only, and wrote.
            CommitOutcomeUnknown: the outcome cannot be determined.
        """
        runtime, connection, errors = self.runtime, self.connection, self.runtime.errors
        if self.record.ended or runtime.is_idle(connection) or runtime.is_aborted(connection):
            failed = runtime.is_aborted(connection) and not self.record.ended
            how = "failed, and no exception reported that" if failed else "is over already"
            raise self._set_verdict(errors.transaction_ended(f"there is nothing to commit: the transaction {how}"))
        self.state = CommitState.SENT
        try:
            message = commit_sql.commit_read_only() if self.read_only else commit_sql.commit(self.token)
            reply = await runtime.execute(connection, message, None)
        except DialFailed as failed:
            if not await self._is_refused(failed):
                await self._settle(failed.cause, is_lost=runtime.is_broken(connection))
                self.state = CommitState.COMMITTED
                return
            self.state = CommitState.REFUSED
            if not failed.done and failed.fault.sqlstate == commit_sql.DIVISION_BY_ZERO:
                if self.token is not None:
                    raise self._set_verdict(
                        errors.transaction_ended("the work ended its transaction itself")
                    ) from failed.cause
                if self.read_only:
                    raise self._set_verdict(InvalidOption(_WROTE)) from failed.cause
            raise failed.cause from None
        if reply.tags[-1] != "COMMIT":
            self.state = CommitState.REFUSED
            raise self._set_verdict(errors.transaction_ended(f"the server answered COMMIT with {reply.tags[-1]}"))
        if not reply.replicated:
            await self._settle(None, is_lost=True)
        self.state = CommitState.COMMITTED

    async def _is_refused(self, failed: DialFailed) -> bool:
        """Whether an error proves that it did not commit; a connection whose server is lost is closed."""
        if self.runtime.is_broken(self.connection):
            return False
        if proves_refusal(failed.fault):
            return True
        is_lost = is_no_answer(failed.fault)
        if self.token is None:
            refused = not is_lost
        else:
            refused = not failed.fault.ends_session and await self._is_aborted(self.token)
        if is_lost and not refused:
            await self.runtime.discard(self.connection)
        return refused

    async def _is_aborted(self, token: CommitToken) -> bool:
        """Whether the backend that ran the transaction says that it is aborted."""
        idle = self.runtime.is_idle(self.connection)
        ask = commit_sql.ask_own(token) if idle else commit_sql.roll_back(token)
        try:
            reply = await self.runtime.execute(self.connection, ask, None)
        except DialFailed:
            return False
        return commit_sql.own_status(reply.rows) is XactStatus.ABORTED

    def _set_verdict(self, error: RefusalT) -> RefusalT:
        self.verdict = error
        return error

    async def _settle(self, cause: BaseException | None, *, is_lost: bool) -> None:
        """Determine the outcome; returns if it committed, else raises what a layer above takes for a failed COMMIT.

        Where the server is not lost and it did not commit, its error was a refusal after all.
        """
        try:
            await self.resolve(cause)
        except (Replay, CommitOutcomeUnknown) as verdict:
            if isinstance(verdict, Replay) and not is_lost:
                self.state = CommitState.REFUSED
                raise verdict.cause from None
            self.state, self.verdict = CommitState.SETTLED, verdict
            if isinstance(verdict, Replay):
                raise verdict.cause from None
            raise
