"""Running a transaction, again where it is proven that it did not commit.

Theory. A transaction whose COMMIT was never sent can not have committed. One whose COMMIT was answered is settled by
the answer: acknowledged, or refused with an error on a connection that lives on. What is left is a COMMIT that was
sent and not answered (the connection broke), or acknowledged although its wait for the replicas was cut short: then
the ticket, taken by the transaction's first message, lets `flow.outcome` find out.

Invariant: `run` returns only what a committed transaction returned, and starts another attempt only when the one
before is proven not to have committed. An exception other than `CommitOutcomeUnknown` means: not committed.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

from aurora_router.errors import CommitOutcomeUnknown, InvalidOption, TransactionEnded
from aurora_router.flow import marks
from aurora_router.flow.world import ConnT, DialFailed
from aurora_router.late import IMPORTING
from aurora_router.policy.options import OutcomeWay
from aurora_router.policy.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router.flow.outcome import Resolving
    from aurora_router.flow.session import Modes, Reply, SessionWorld
    from aurora_router.model.ticket import Ticket
    from aurora_router.policy.options import Options

T = TypeVar("T")

READ_ONLY = "25006"
CONFLICTS = frozenset({"40001", "40P01"})
"""SQLSTATEs that ask for another try: serialization failure, deadlock."""


@dataclass
class Plan(Generic[ConnT]):
    """How transactions are run; one per router, so that what was learned is learned once.

    Attributes:
        options: ours.
        take: gives a connection.
        give: takes it back, usable or not.
        resolving: makes the question for a ticket.
        ways: which way works in which database.
    """

    options: Options
    take: Callable[[], Awaitable[ConnT]]
    give: Callable[[ConnT], Awaitable[None]]
    resolving: Callable[[Ticket], Resolving[ConnT]]
    ways: dict[str, OutcomeWay] = field(default_factory=dict)


class _State(enum.Enum):
    """How far a commit got."""

    NOT_SENT = enum.auto()
    SENT = enum.auto()
    REFUSED = enum.auto()
    DONE = enum.auto()
    IN_DOUBT = enum.auto()


class Replay(Exception):
    """Proven not committed; another try may do."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class Commit(Generic[ConnT]):
    """The end of one transaction: sent once, its fate remembered."""

    def __init__(self, world: SessionWorld[ConnT], connection: ConnT, ticket: Ticket | None) -> None:
        self.world = world
        self.connection = connection
        self.ticket = ticket
        self.state = _State.NOT_SENT
        self.cause: BaseException | None = None

    async def send(self) -> None:
        """Commit. Raises the driver's own error when the server refused, or the connection broke."""
        world, connection = self.world, self.connection
        if world.idle(connection) or world.aborted(connection):
            how = "is over already" if world.idle(connection) else "failed, and that was not told by an exception"
            raise TransactionEnded(f"there is nothing to commit: the transaction {how}")
        self.state = _State.SENT
        try:
            reply = await world.execute(connection, marks.commit(self.ticket), None)
        except DialFailed as failed:
            self.cause = failed.cause
            if world.broken(connection):
                raise failed.cause from None
            self.state = _State.REFUSED
            if self.ticket is not None and world.aborted(connection):
                raise TransactionEnded("the transaction of the work was ended by the work itself") from failed.cause
            raise failed.cause from None
        if reply.tags[-1] != "COMMIT":
            self.state = _State.REFUSED
            raise TransactionEnded(f"the server answered COMMIT with {reply.tags[-1]}")
        self.state = _State.DONE if reply.replicated else _State.IN_DOUBT


class Transaction(Generic[ConnT, T]):
    """One call of ``run_transaction``.

    Args:
        world: the ground.
        plan: see `Plan`.
        work: done in each attempt.
        modes: of the transaction; win over the connection's own.
        finish: commits by way of a layer above, which calls the connection's ``commit``; None: we do.
        tell: is told the ticket of each attempt, before the work.
    """

    def __init__(
        self,
        world: SessionWorld[ConnT],
        plan: Plan[ConnT],
        work: Callable[[ConnT], Awaitable[T]],
        modes: Modes,
        finish: Callable[[], Awaitable[None]] | None = None,
        tell: Callable[[Ticket], None] | None = None,
    ) -> None:
        self.world = world
        self.plan = plan
        self.work = work
        self.modes = modes
        self.finish = finish
        self.tell = tell
        self._until = world.now() + plan.options.transaction_timeout
        self._counted = 0
        self._read_only = False

    async def run(self) -> T:
        """Run it until it committed.

        Raises:
            CommitOutcomeUnknown: it can not be told whether it committed.
            TransactionEnded: the work ended its transaction itself, or went on after it had failed.
            Exception: what the work or the driver raised; the transaction did not commit.
        """
        pending: Replay | None
        try:
            return await self._attempt()
        except Replay as replay:
            last = pending = replay
        with IMPORTING:
            from aurora_router.retry import transacting  # noqa: PLC0415 - tenacity is imported when first needed

        try:
            async for attempt in transacting(self.world, self._tried, self._left, retry_on=Replay):
                with attempt:
                    if pending is not None:
                        pending = None
                        raise last
                    return await self._attempt()
        except Replay as replay:
            last = replay
        raise last.cause

    def _tried(self) -> int:
        """How many attempts counted."""
        return self._counted

    def _left(self) -> float:
        """Seconds for another attempt; 0 when it would be one too many."""
        enough = self._counted >= self.plan.options.transaction_attempts
        return 0.0 if enough else max(0.0, self._until - self.world.now())

    async def _attempt(self) -> T:
        connection = await self.plan.take()
        try:
            ticket = await self._begin(connection)
            self._counted += 1
            if ticket is not None and self.tell is not None:
                self.tell(ticket)
            commit = Commit(self.world, connection, ticket)
            result = await self._worked(connection)
            doubt = await self._finished(commit)
        except BaseException:
            await self._abandon(connection)
            raise
        if doubt is not None or commit.state is _State.IN_DOUBT:
            await self._abandon(connection)
            await self._resolved(ticket, doubt)
        else:
            await self.plan.give(connection)
        return result

    async def _abandon(self, connection: ConnT) -> None:
        """Give a connection back without its transaction, or closed."""
        world = self.world
        if not world.broken(connection) and not world.idle(connection):
            try:
                await world.rollback(connection)
            except Exception as error:  # noqa: BLE001 - a rollback that fails leaves nothing but to close
                del error
                await world.discard(connection)
        await self.plan.give(connection)

    # ------------------------------------------------------------ the work

    async def _worked(self, connection: ConnT) -> T:
        try:
            return await self.work(connection)
        except Exception as error:
            if self._asks_for_replay(connection, error):
                raise Replay(error) from error
            raise
        except BaseException:
            await self.world.discard(connection)
            raise

    def _asks_for_replay(self, connection: ConnT, error: BaseException) -> bool:
        """Whether an exception is a reason to try again: COMMIT was not sent, or was refused."""
        trouble = self.world.trouble(error)
        if trouble.sqlstate in CONFLICTS:
            return True
        return trouble.connection and (self.world.broken(connection) or trouble.sqlstate == READ_ONLY)

    async def _finished(self, commit: Commit[ConnT]) -> BaseException | None:
        """Commit; returns the reason for doubt, where there is one."""
        try:
            await self._finish(commit)
        except Exception as error:
            if commit.state is _State.SENT:
                return commit.cause or error
            if commit.state is not _State.DONE and self._asks_for_replay(commit.connection, error):
                raise Replay(error) from error
            raise
        except BaseException:
            await self.world.discard(commit.connection)
            raise
        if commit.state is _State.NOT_SENT:
            raise TransactionEnded("the work's layer did not commit by the connection that it was given")
        return None

    async def _finish(self, commit: Commit[ConnT]) -> None:
        if self.finish is None:
            await commit.send()
            return
        with self.world.committing(commit.connection, commit.send):
            await self.finish()

    async def _resolved(self, ticket: Ticket | None, doubt: BaseException | None) -> None:
        """Find out; returns when it committed."""
        if ticket is None:
            if self._read_only:
                raise Replay(doubt or RuntimeError("a read-only transaction has nothing to replicate"))
            raise CommitOutcomeUnknown("the answer to COMMIT was lost, and there is no way to ask for it") from doubt
        resolving = self.plan.resolving(ticket)
        try:
            finding = await resolving.run()
        except Exception as error:
            why = f"the answer to COMMIT was lost, and nobody can be asked for it: {error}"
            raise CommitOutcomeUnknown(why, ticket=ticket) from error
        if finding.outcome is Outcome.NOT_COMMITTED:
            raise Replay(doubt or TransactionEnded("the replicas did not get the transaction"))
        if finding.outcome is not Outcome.COMMITTED:
            why = f"the answer to COMMIT was lost: {finding.reason}"
            raise CommitOutcomeUnknown(why, ticket=ticket) from (doubt or resolving.cause)

    # ------------------------------------------------------------ the first message

    async def _begin(self, connection: ConnT) -> Ticket | None:
        """Begin, with the marks of the way that works here; a connection that can't is tried no further."""
        modes = self.modes.over(self.world.modes(connection))
        self._read_only = bool(modes.read_only)
        begin = marks.begin(modes.sql) if self.world.idle(connection) else ""
        if not begin and self.modes.sql:
            raise InvalidOption(f"a transaction has begun already: it can not be {self.modes.sql} any more")
        try:
            if self._read_only:
                await self._said(connection, begin)
                return None
            return await self._marked(connection, begin)
        except DialFailed as failed:
            if self.world.broken(connection) or failed.fault.sqlstate == READ_ONLY:
                self._counted += failed.fault.sqlstate == READ_ONLY
                await self.world.discard(connection)
                raise Replay(failed.cause) from failed
            raise failed.cause from None

    async def _marked(self, connection: ConnT, begin: str) -> Ticket | None:
        database = self.world.database(connection)
        chosen = self.plan.options.outcome
        way = chosen if chosen is not OutcomeWay.AUTO else self.plan.ways.get(database)
        if way is None:
            way = self.plan.ways[database] = await self._probed(connection)
        try:
            return await self._mark(connection, begin, way)
        except DialFailed as failed:
            if not begin or self.world.broken(connection) or not self._lacks(failed.fault.sqlstate, way):
                raise
            if chosen is OutcomeWay.WITNESS:
                raise InvalidOption(
                    f"aurora_outcome=witness: {failed.fault.text} "
                    "(install it by: aurora-router outcome install URL, or set aurora_outcome=auto)"
                ) from failed.cause
            if chosen is OutcomeWay.LOG:
                raise InvalidOption(f"aurora_outcome=log: the server does not offer it: {failed.fault.text}") from None
        await self.world.rollback(connection)
        self.plan.ways[database] = OutcomeWay.LOG if way is OutcomeWay.WITNESS else OutcomeWay.OFF
        return await self._marked(connection, begin)

    def _lacks(self, sqlstate: str | None, way: OutcomeWay) -> bool:
        """Whether an error says that a way is not to be had here; of the log, any error but a reader's does."""
        tried = self.plan.options.outcome is OutcomeWay.AUTO and way is OutcomeWay.LOG
        return sqlstate in marks.LACKING or (tried and sqlstate != READ_ONLY)

    async def _probed(self, connection: ConnT) -> OutcomeWay:
        """The better way that this database offers: once per database, one question."""
        reply = await self._said(connection, marks.PROBE)
        return OutcomeWay.WITNESS if reply.rows[0][0] == "t" else OutcomeWay.LOG

    async def _mark(self, connection: ConnT, begin: str, way: OutcomeWay) -> Ticket | None:
        prefix = f"{begin}; " if begin else ""
        if way is OutcomeWay.WITNESS:
            id_ = self.world.unique()
            reply = await self._said(connection, prefix + marks.witness_mark(id_))
            return marks.witness_ticket(reply.rows, id_)
        if way is OutcomeWay.LOG:
            version = self.world.server_version(connection)
            reply = await self._said(connection, prefix + marks.log_mark(version))
            return marks.log_ticket(reply.rows, version)
        await self._said(connection, begin)
        return None

    async def _said(self, connection: ConnT, sql: str) -> Reply:
        return await self.world.execute(connection, sql, None)
