"""Determines the outcome of a transaction: asks the instance that proves to be the writer, until there is a verdict.

Invariant: a verdict is returned only from an answer that came together with the acknowledgement of a commit of our
own on the same connection, whose wait for its replicas was not cut short. After any other answer the query is repeated.
The message sets every setting that this relies on (`flow.commit_sql`), whatever the session was set to.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Generic

from aurora_router.errors import RoutingError
from aurora_router.flow import commit_sql
from aurora_router.flow.connect import connect
from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.backoff import full_jitter
from aurora_router.policy.options import ReaderFallback
from aurora_router.policy.outcome import Finding, Outcome, judge_log, judge_witness

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.session import SessionRuntime
    from aurora_router.flow.source import Source
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.policy.route import Request, Route

LOCK_TIMEOUT = 0.5
"""How long one insert of a witness waits for a transaction in progress, in seconds."""
FIRST_WAIT, LONGEST_WAIT = 0.01, 0.5
"""Longest first wait, and longest wait, between two queries, in seconds."""
ORPHAN_SECONDS = 1.0
"""How long a backend of ours may wait for a statement before it is terminated, in seconds."""
_LOCK_NOT_AVAILABLE = "55P03"


class _NoVerdict(Exception):
    """This query gave no verdict; another one may."""


class Resolver(Generic[ConnT]):
    """Determines the outcome of one transaction.

    Args:
        runtime: does the I/O; its connections are made only for this query.
        find: returns the state of the cluster that a routed request is for.
        request: how the transaction's connection was requested; the writer is asked, whatever role that was.
        sources: how to ask for the topology.
        token: of the transaction.
    """

    def __init__(
        self,
        runtime: SessionRuntime[ConnT],
        find: Callable[[Request, Route], Cluster],
        request: Request,
        sources: Sequence[Source],
        token: CommitToken,
    ) -> None:
        self.runtime = runtime
        self.find = find
        self.sources = sources
        self.token = token
        self.cause: BaseException | None = None
        options = request.options
        self._patience = options.failover_timeout
        self._query_seconds = options.connect_timeout
        self._terminates = options.outcome_terminate
        self._request = replace(
            request,
            is_urgent=True,
            options=replace(
                options, role=WantedRole.WRITER, instance=None, max_lag=None, reader_fallback=ReaderFallback.WRITER
            ),
        )
        self._started = runtime.now()
        self._seen_alive: float | None = None

    async def run(self) -> Finding:
        """Ask until there is a verdict, for ``aurora_failover_timeout`` seconds at most.

        Returns:
            The last finding; one that is not final is `Outcome.IN_PROGRESS` or `Outcome.UNKNOWN`.

        Raises:
            Exception: the driver's own, where no other try could end otherwise (a wrong password, no such database).
        """
        last = Finding(Outcome.UNKNOWN, "no instance answered that proved to be the writer")
        asked = 0
        while True:
            try:
                last = await self._ask_writer()
            except _NoVerdict as why:
                last = Finding(Outcome.UNKNOWN, str(why))
            else:
                if last.outcome is not Outcome.IN_PROGRESS:
                    return last
            if self._seconds_left() <= 0.0:
                return last
            pause = full_jitter(asked, self.runtime.random(), base=FIRST_WAIT, cap=LONGEST_WAIT)
            await self.runtime.sleep(min(pause, self._seconds_left()))
            asked += 1

    def _seconds_left(self) -> float:
        return max(0.0, self._started + self._patience - self.runtime.now())

    async def _ask_writer(self) -> Finding:
        """Connect to the writer and ask, repeatedly while it reports that the transaction is in progress."""
        result = await self._connect_to_writer()
        connection = result.connection
        try:
            finding, asked = await self._query_outcome(connection), 0
            while finding.outcome is Outcome.IN_PROGRESS and self._seconds_left() > 0.0:
                await self._end_orphan(connection)
                pause = full_jitter(asked, self.runtime.random(), base=FIRST_WAIT, cap=LONGEST_WAIT)
                await self.runtime.sleep(min(pause, self._seconds_left()))
                finding, asked = await self._query_outcome(connection), asked + 1
            return finding
        finally:
            result.release()
            await self.runtime.discard(connection)

    async def _connect_to_writer(self) -> ConnectResult[ConnT]:
        """Connect to the writer; the reservation is kept meanwhile, so that the monitor runs on."""
        options = replace(self._request.options, failover_timeout=self._seconds_left())
        request = replace(self._request, options=options)
        try:
            return await connect(self.runtime, self.find, request, self.sources)
        except RoutingError as error:
            self.cause = error
            raise _NoVerdict(f"the writer could not be connected: {error}") from error

    async def _query_outcome(self, connection: ConnT) -> Finding:
        """Send one query; its verdict counts if the barrier in it was acknowledged."""
        token, runtime = self.token, self.runtime
        by_witness = token.witness is not None
        version = runtime.server_version(connection)
        if by_witness:
            sql = commit_sql.ask_witness(token, version, runtime.new_id(), LOCK_TIMEOUT)
        else:
            sql = commit_sql.ask_log(token, version)
        try:
            reply = await runtime.execute(connection, sql, self._query_seconds + LOCK_TIMEOUT)
        except DialFailed as failed:
            if not by_witness or failed.fault.sqlstate != _LOCK_NOT_AVAILABLE:
                raise self._note_no_verdict(failed) from failed
            return await self._leave_blocked_insert(connection)
        if reply.tags[-1] != "COMMIT" or not reply.replicated:
            raise _NoVerdict("the writer's commit was not acknowledged by its replicas")
        if not reply.rows:
            raise _NoVerdict("the witness cannot be read")
        if by_witness:
            return judge_witness(token, commit_sql.witness_evidence(reply.rows, runtime.database(connection)))
        return judge_log(token, commit_sql.log_evidence(reply.rows))

    async def _leave_blocked_insert(self, connection: ConnT) -> Finding:
        """Roll back an insert that waited too long for a transaction in progress."""
        try:
            await self.runtime.execute(connection, "ROLLBACK", self._query_seconds)
        except DialFailed as failed:
            raise self._note_no_verdict(failed) from failed
        return Finding(Outcome.IN_PROGRESS, "a living transaction holds its witness")

    def _note_no_verdict(self, failed: DialFailed) -> _NoVerdict:
        self.cause = failed.cause
        return _NoVerdict(f"asking failed: {failed.fault.text}")

    async def _end_orphan(self, connection: ConnT) -> None:
        """Terminate the transaction's backend if it still waits for a statement after a while: none will come."""
        now = self.runtime.now()
        if self._seen_alive is None:
            self._seen_alive = now
        if not self._terminates or now - self._seen_alive < ORPHAN_SECONDS:
            return
        self._seen_alive = now
        try:
            await self.runtime.execute(connection, commit_sql.terminate(self.token), self._query_seconds)
        except DialFailed as failed:
            raise self._note_no_verdict(failed) from failed
