"""Read-your-writes: makes causal tokens, and puts a read on an instance that has replayed what a token stands for.

Theory: `policy.causal`. Invariant: a connection to a reader is handed out only after its own session has proven that it
has replayed the token's writes; otherwise it is one to the writer. Every other connection is closed, whatever happens,
and its reservation released. A token that the writer contradicts is refused before any reader is waited for, unless it
is trusted.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Generic

from aurora_router.errors import CausalTokenRejected, InvalidOption, RoutingError
from aurora_router.flow import causal_sql, commit_sql
from aurora_router.flow.begin import DEGRADED_SECONDS
from aurora_router.flow.connect import connect
from aurora_router.flow.runtime import ConnT, DialFailed, Runtime
from aurora_router.flow.topology_query import ask
from aurora_router.model.causal_token import CausalToken, DurablePosition, LogPosition, NoProof, WitnessRow
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Role
from aurora_router.policy.causal import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    WRITER_PAUSE,
    Finding,
    Standing,
    Step,
    choose_step,
    judge,
    refuse_kind,
)
from aurora_router.policy.options import CausalMethod, CustomBalance, ReaderFallback
from aurora_router.policy.route import CHOOSING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router.flow.attempt import ConnectResult
    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.session import Reply, SessionRuntime
    from aurora_router.flow.source import Source
    from aurora_router.model.causal_token import Proof
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.policy.candidate import Candidate
    from aurora_router.policy.options import Options
    from aurora_router.policy.route import Request, Route

_LACKING = commit_sql.LACKING | {commit_sql.READ_ONLY}
"""SQLSTATEs that mean that a method does not work here: the witness row cannot be written on a reader."""
ASKING_SECONDS = 0.5
"""How long a reader has at least to answer, in seconds, also where `aurora_causal_wait` is nearly over."""
ADVICE = (
    "Install the witness table (aurora-router outcome install URL); or, on plain PostgreSQL, GRANT pg_read_all_stats "
    "to the user; or, on Aurora, accept the assumption of aurora_causal=durable_lsn"
)


class _Unfit(Exception):
    """A method that does not work here.

    Attributes:
        is_reader: whether it may work on the writer.
    """

    def __init__(self, why: str, *, is_reader: bool = False) -> None:
        super().__init__(why)
        self.is_reader = is_reader


# ---------------------------------------------------------------- making tokens


async def make_token(
    runtime: SessionRuntime[ConnT],
    connection: ConnT,
    method: CausalMethod,
    known: dict[str, CausalMethod],
    nameless: set[str],
    lacking: dict[str, tuple[str, float]],
) -> CausalToken:
    """Make a token that covers everything that was acknowledged before the call; `connection` is idle.

    Args:
        runtime: does the I/O.
        connection: to the writer; with the log position, also to a reader: then for what its session has seen.
        method: ``aurora_causal``.
        known: by database, the method that ``auto`` chose before; updated.
        nameless: databases whose server does not report its system identifier; updated (see `flow.begin.Plan`).
        lacking: databases that offer none of the methods of ``auto``: why, and until when, by the runtime's clock, that
            is not asked again; updated.

    Raises:
        InvalidOption: the server does not offer the method, or none of them, now or `DEGRADED_SECONDS` ago.
        Exception: the driver's own: the connection broke, or the server refused.
    """
    database, tried, refusals = runtime.database(connection), [method], list[str]()
    if method is CausalMethod.AUTO:
        why, until = lacking.get(database, ("", 0.0))
        if runtime.now() < until:
            raise InvalidOption(why)
        tried = sorted((CausalMethod.LOG, CausalMethod.WITNESS), key=lambda each: each is not known.get(database))
    is_reader = False
    for each in tried:
        try:
            proof = await _make_proof(runtime, connection, each, nameless, is_chosen=method is each)
        except _Unfit as unfit:
            is_reader = is_reader or unfit.is_reader
            refusals.append(f"{each.value}: {unfit}")
        except DialFailed as failed:
            if runtime.is_broken(connection) or failed.fault.sqlstate not in _LACKING:
                raise failed.cause from None
            is_reader = is_reader or failed.fault.sqlstate == commit_sql.READ_ONLY
            refusals.append(f"{each.value}: {failed.fault.text}")
        else:
            if method is CausalMethod.AUTO:
                known[database] = each
            return CausalToken(proof, is_trusted=True)
    text = f"no causal token can be made in database {database} ({'; '.join(refusals)}). {ADVICE}"
    if method is CausalMethod.AUTO and not is_reader:
        lacking[database] = (text, runtime.now() + DEGRADED_SECONDS)
    raise InvalidOption(text)


async def _make_proof(
    runtime: SessionRuntime[ConnT], connection: ConnT, method: CausalMethod, nameless: set[str], *, is_chosen: bool
) -> Proof:
    if method is CausalMethod.LOG:
        rows = (await runtime.execute(connection, causal_sql.LOG, None)).rows
        evidence = causal_sql.read_log(rows)
        if evidence.lsn is None or evidence.timeline is None:
            raise _Unfit("the timeline of this reader cannot be read", is_reader=True)
        if not is_chosen and not causal_sql.may_read_timelines(rows):
            raise _Unfit("the user may not read pg_stat_wal_receiver, so no reader could prove it")
        return LogPosition(evidence.system, evidence.timeline, evidence.lsn)
    if method is CausalMethod.WITNESS:
        id_ = runtime.new_id()
        make = partial(causal_sql.write_witness, id_)
        reply = await _execute_nameless(runtime, connection, make, nameless, commit_sql.NO_TABLE)
        return causal_sql.read_written(reply.rows, id_)
    reply = await _execute_nameless(runtime, connection, causal_sql.show_durable, nameless)
    durable = causal_sql.read_durable(reply.rows)
    if durable.lsn is None:
        raise _Unfit("the instance shows no durable_lsn of its own")
    return DurablePosition(durable.system, durable.lsn)


async def _execute_nameless(
    runtime: SessionRuntime[ConnT],
    connection: ConnT,
    make: Callable[..., str],
    nameless: set[str],
    final: frozenset[str] = frozenset(),
) -> Reply:
    """Send ``make(system=True)``; where the server does not report its system identifier, ``make(system=False)``.

    A refusal whose SQLSTATE is in `final` has another reason.
    """
    database = runtime.database(connection)
    system = database not in nameless
    try:
        return await runtime.execute(connection, make(system=system), None)
    except DialFailed as failed:
        is_lacking = failed.fault.sqlstate in commit_sql.LACKING and failed.fault.sqlstate not in final
        if runtime.is_broken(connection) or not is_lacking or not system:
            raise
    reply = await runtime.execute(connection, make(system=False), None)
    nameless.add(database)
    return reply


def find_token(commit: CommitToken | None, method: CausalMethod) -> CausalToken | None:
    """The causal token of a committed transaction that wrote a witness row, which is the token; None: it wrote none."""
    if commit is None or commit.witness is None or commit.witness_table is None:
        return None
    if method not in {CausalMethod.AUTO, CausalMethod.WITNESS}:
        return None
    return CausalToken(WitnessRow(commit.witness, commit.witness_table), is_trusted=True)


# ---------------------------------------------------------------- asking one session


async def find_standing(runtime: Runtime[ConnT], connection: ConnT, token: CausalToken, seconds: float) -> Finding:
    """Ask a session where it stands; a server that cannot answer proves nothing.

    Raises:
        DialFailed: the connection broke, or no answer came within `seconds`.
    """
    proof = token.proof
    if isinstance(proof, NoProof):
        return Finding(Standing.UNPROVABLE, "the token's transaction left nothing to look for")
    try:
        rows = await ask(runtime, connection, causal_sql.ask(proof), seconds)
    except DialFailed as failed:
        sqlstate = failed.fault.sqlstate
        if sqlstate not in commit_sql.LACKING:
            raise
        if isinstance(proof, WitnessRow) and sqlstate in commit_sql.NO_TABLE:
            return Finding(Standing.BEHIND, "it has no witness table (yet)")
        return Finding(Standing.UNPROVABLE, failed.fault.text)
    return judge(token, causal_sql.read(proof, rows))


async def wait_for_standing(
    runtime: Runtime[ConnT], connection: ConnT, token: CausalToken, wait: float, seconds: float
) -> Finding:
    """Ask a session until it has replayed the token's writes, for `wait` seconds at most, and no query above `seconds`.

    Raises:
        DialFailed: the connection broke, or a query got no answer.
    """
    until, pause = runtime.now() + wait, FIRST_PAUSE
    while True:
        finding = await find_standing(runtime, connection, token, seconds)
        left = until - runtime.now()
        if finding.standing is not Standing.BEHIND or left <= 0.0:
            return finding
        await runtime.sleep(min(pause, left))
        pause = min(2 * pause, LONGEST_PAUSE)


# ---------------------------------------------------------------- connecting


async def connect_after(
    runtime: Runtime[ConnT],
    find: Callable[[Request, Route], Cluster],
    request: Request,
    sources: Sequence[Source],
    token: CausalToken,
) -> ConnectResult[ConnT]:
    """Put one connection on a reader that has replayed a token's writes, or on the writer.

    Takes what `flow.connect.connect` takes, and raises what it raises.

    Raises:
        CausalTokenRejected: the token is of another cluster, beyond the writer, or of a kind that is not accepted.
        InvalidOption: the name leads through a proxy, where a session is not kept on one server.
        NoInstanceAvailable: no reader that may serve has replayed it, and the writer may not serve.
    """
    if (why := refuse_kind(token, request.options.causal)) is not None:
        raise CausalTokenRejected(why)
    causal = _CausalConnect(runtime, find, request, sources, token, runtime.now() + request.options.causal_wait)
    chosen: ConnectResult[ConnT] | None = None
    try:
        chosen = await causal.run()
        return chosen
    finally:
        for each in causal.opened:
            if each is not chosen:
                each.release()
                await runtime.discard(each.connection)


@dataclass
class _CausalConnect(Generic[ConnT]):
    """One read with a token; what it opened is in `opened`, what was found about readers in `findings`."""

    runtime: Runtime[ConnT]
    find: Callable[[Request, Route], Cluster]
    request: Request
    sources: Sequence[Source]
    token: CausalToken
    until: float
    opened: list[ConnectResult[ConnT]] = field(default_factory=list)
    findings: dict[str, tuple[ConnectResult[ConnT], Finding]] = field(default_factory=dict)
    writer: ConnectResult[ConnT] | None = None
    has_none_left: bool = False

    async def run(self) -> ConnectResult[ConnT]:
        result = await self._connect(self.request)
        if result.instance is None:
            raise InvalidOption(
                f"after= cannot be kept through {self.request.first}, which routes by itself: it may serve each "
                "transaction from another server. Connect to the cluster's own endpoint"
            )
        if result.role is Role.WRITER:
            self.writer = result
            return await self._check_writer()
        pause = FIRST_PAUSE
        proven: ConnectResult[ConnT] | None = result if await self._ask(result) else None
        while proven is None:
            left = self.until - self.runtime.now()
            step = choose_step(
                [finding.standing for _, finding in self.findings.values()],
                others=self._has_others(result),
                is_verified=self.token.is_trusted or self.writer is not None,
                is_time_over=left <= 0.0,
            )
            if step is Step.ASK_ANOTHER:
                proven = await self._try_another()
            elif step is Step.WAIT:
                await self.runtime.sleep(min(pause, left))
                pause = min(2 * pause, LONGEST_PAUSE)
                proven = await self._ask_again()
            else:
                self._refuse_writer(result, step)
                writer = await self._check_writer()
                proven = writer if step is Step.WRITER else None
        return proven

    async def _ask(self, result: ConnectResult[ConnT]) -> bool:
        """Whether the session of a connection has proven to have replayed the token's writes."""
        if result.pooled:
            finding = Finding(Standing.UNPROVABLE, "a pooler may serve each transaction from another server")
        else:
            limit = min(self.request.options.connect_timeout, max(ASKING_SECONDS, self.until - self.runtime.now()))
            try:
                finding = await find_standing(self.runtime, result.connection, self.token, limit)
            except DialFailed as failed:
                finding = Finding(Standing.UNPROVABLE, failed.fault.text)
        self.findings[result.instance or ""] = (result, finding)
        return finding.standing is Standing.PROVEN

    async def _connect(self, request: Request) -> ConnectResult[ConnT]:
        result = await connect(self.runtime, self.find, request, self.sources)
        self.opened.append(result)
        return result

    async def _ask_again(self) -> ConnectResult[ConnT] | None:
        """Ask the readers that are behind; returns the first that no longer is."""
        for result, finding in [*self.findings.values()]:
            if finding.standing is Standing.BEHIND and await self._ask(result):
                return result
        return None

    def _has_others(self, result: ConnectResult[ConnT]) -> bool:
        """Whether there is a reader to choose that was not asked, and did not fail a moment ago."""
        if self.has_none_left or result.route is None or result.route.mode not in CHOOSING:
            return False
        quarantine, now = result.cluster.state.health.quarantine, self.runtime.now()
        left = (each.id for each in result.cluster.view.readers() if each.id not in self.findings)
        return any(quarantine.remaining(id_, now) <= 0.0 for id_ in left)

    async def _try_another(self) -> ConnectResult[ConnT] | None:
        """Ask the reader with the fewest connections of those that were not asked; returns it if it is proven."""

        def order(candidates: Sequence[Candidate]) -> list[Candidate]:
            random = self.runtime.random
            return sorted(candidates, key=lambda each: (each.id in self.findings, each.connections, random()))

        limit = max(0.0, min(self.request.options.failover_timeout, self.until - self.runtime.now()))
        options = replace(
            self.request.options,
            balance=CustomBalance("readers that were not asked", order),
            weights=(),
            failover_timeout=limit,
            reader_fallback=ReaderFallback.ERROR,
        )
        try:
            result = await self._connect(replace(self.request, options=options))
        except RoutingError:
            self.has_none_left = True
            return None
        self.has_none_left = result.instance in self.findings or result.role is Role.WRITER
        return result if not self.has_none_left and await self._ask(result) else None

    def _refuse_writer(self, result: ConnectResult[ConnT], step: Step) -> None:
        """Raise where the writer may not do a step: serve in the place of a reader, or only be asked."""
        options, route = self.request.options, result.route
        is_choice = options.instance is None and route is not None and route.mode in CHOOSING
        is_strict = route is not None and route.role is WantedRole.READER
        if is_choice and (step is Step.VERIFY or options.reader_fallback is ReaderFallback.WRITER or not is_strict):
            return
        text = "; ".join(f"{id_}: {finding.reason}" for id_, (_, finding) in self.findings.items())
        why = "aurora_reader_fallback=error" if is_choice else "the name is that of certain instances"
        raise self.runtime.errors.no_instance_available(
            f"no reader has proven to have replayed what the causal token stands for ({text}), and the writer may not "
            f"serve in its place ({why})"
        )

    async def _check_writer(self) -> ConnectResult[ConnT]:
        """Return a connection to the writer, which does not contradict the token.

        One that was lost meanwhile, or that a trusted token shows to be replaced, is looked for again.
        """
        pause, until = FIRST_PAUSE, self.runtime.now() + self.request.options.failover_timeout
        while True:
            writer = self.writer or await self._connect(replace(self.request, options=self._as_writer()))
            self.writer, cause = writer, None
            try:
                finding = await find_standing(
                    self.runtime, writer.connection, self.token, self.request.options.connect_timeout
                )
            except DialFailed as failed:
                finding, cause = Finding(Standing.REPLACED, failed.fault.text), failed.cause
            if finding.standing not in {Standing.BEYOND, Standing.REPLACED, Standing.FOREIGN}:
                return writer
            may_change = cause is not None or (self.token.is_trusted and finding.standing is Standing.REPLACED)
            left = until - self.runtime.now()
            if not may_change or left <= 0.0:
                text = f"the causal token is refused: {finding.standing.value} ({finding.reason})"
                raise cause or CausalTokenRejected(text)
            self.writer = None
            await self.runtime.sleep(min(pause, left))
            pause = min(2 * pause, WRITER_PAUSE)

    def _as_writer(self) -> Options:
        fallback = ReaderFallback.WRITER
        return replace(self.request.options, role=WantedRole.WRITER, max_lag=None, reader_fallback=fallback)
