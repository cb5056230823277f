"""The first message of a transaction: BEGIN, and the statement whose answer becomes the commit token.

Two methods can determine the outcome of a lost COMMIT: a row of a witness table, or the server's log position. A
database is asked once which one it offers; the router's `Plan` keeps the answer. A method that turns out to be missing
is replaced by the next one for `DEGRADED_SECONDS`: the table by the log position, and that by having no token at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic

from aurora_router.errors import InvalidOption
from aurora_router.flow import commit_sql
from aurora_router.flow.commit import Replay
from aurora_router.flow.runtime import ConnT, DialFailed
from aurora_router.policy.options import OutcomeMethod

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aurora_router.flow.outcome import Resolver
    from aurora_router.flow.session import Reply, SessionRuntime
    from aurora_router.model.commit_token import CommitToken
    from aurora_router.policy.options import Options

DEGRADED_SECONDS = 300.0
"""How long a method that a database does not offer is not tried again."""


@dataclass
class Plan(Generic[ConnT]):
    """How transactions are run; one per router, so that what was learned is learned once.

    Attributes:
        options: this library's options.
        take: provides a connection.
        give: takes it back, usable or not.
        new_resolver: makes the resolver of a token, with the current credentials.
        methods: which method works in which database.
        degraded: by database, which method replaces one that was not available, and until when, by the runtime's clock.
        nameless: databases whose server does not report its system identifier, so that tokens are without it.
    """

    options: Options
    take: Callable[[], Awaitable[ConnT]]
    give: Callable[[ConnT], Awaitable[None]]
    new_resolver: Callable[[CommitToken], Awaitable[Resolver[ConnT]]]
    methods: dict[str, OutcomeMethod] = field(default_factory=dict)
    degraded: dict[str, tuple[OutcomeMethod, float]] = field(default_factory=dict)
    nameless: set[str] = field(default_factory=set)


class FirstMessage(Generic[ConnT]):
    """The first message of one attempt, on its connection."""

    def __init__(self, runtime: SessionRuntime[ConnT], plan: Plan[ConnT], connection: ConnT) -> None:
        self.runtime = runtime
        self.plan = plan
        self.connection = connection
        self.database = runtime.database(connection)

    async def send(self, begin: str) -> CommitToken | None:
        """Begin by the statement `begin` (empty: a layer above has begun); returns the token, or None without a method.

        Raises:
            DialFailed: the server refused it for another reason, or the connection broke.
            InvalidOption: the method that the options ask for is not available.
            Replay: a layer above has begun, and its transaction failed with the mark: another attempt may succeed.
        """
        chosen = self.plan.options.outcome
        method = known = chosen if chosen is not OutcomeMethod.AUTO else self._find_known_method()
        if method is None:
            method = self.plan.methods[self.database] = await self._find_method()
        try:
            token = await self._mark(begin, method)
        except DialFailed as failed:
            if self.runtime.is_broken(self.connection) or failed.fault.sqlstate not in commit_sql.LACKING:
                raise
            if method is OutcomeMethod.WITNESS:
                if self.database not in self.plan.nameless and failed.fault.sqlstate not in commit_sql.NO_TABLE:
                    self.plan.nameless.add(self.database)
                    return await self._mark_again(begin, failed)
                self.plan.nameless.discard(self.database)
            if chosen is OutcomeMethod.WITNESS:
                raise InvalidOption(
                    f"aurora_outcome=witness: {failed.fault.text} "
                    "(install it by: aurora-router outcome install URL, or set aurora_outcome=auto)"
                ) from failed.cause
            if chosen is OutcomeMethod.LOG:
                raise InvalidOption(f"aurora_outcome=log: the server does not offer it: {failed.fault.text}") from None
            self._degrade(method, failed.fault.text)
            return await self._mark_again(begin, failed)
        if known is None:
            self.plan.degraded.pop(self.database, None)
        return token

    async def _mark_again(self, begin: str, failed: DialFailed) -> CommitToken | None:
        """Begin again after a mark was refused; where a layer above has begun, that is by another attempt."""
        if not begin:
            raise Replay(failed.cause) from failed
        await self.runtime.rollback(self.connection)
        return await self.send(begin)

    def _find_known_method(self) -> OutcomeMethod | None:
        """The method of a database; None where it has to be found out, for the first time or again after a while."""
        degraded = self.plan.degraded.get(self.database)
        return self.plan.methods.get(self.database) if degraded is None or self.runtime.now() < degraded[1] else None

    def _degrade(self, lacking: OutcomeMethod, text: str) -> None:
        """Use the next method for a while in the place of one that is not available; advise of it if that is news."""
        method = OutcomeMethod.LOG if lacking is OutcomeMethod.WITNESS else OutcomeMethod.OFF
        before = self.plan.degraded.get(self.database)
        self.plan.methods[self.database] = method
        self.plan.degraded[self.database] = (method, self.runtime.now() + DEGRADED_SECONDS)
        if before is not None and before[0] is method:
            return
        if method is OutcomeMethod.OFF:
            what = (
                "a COMMIT whose answer is lost cannot be resolved. There is no witness table, and the log position is "
                "not available"
            )
        else:
            what = "the witness table is not available any more, commits are resolved by the log position"
        advice = f"database {self.database}: {what}: {text}. Create the table by: aurora-router outcome install URL"
        self.runtime.advise(self.connection, advice)

    async def _find_method(self) -> OutcomeMethod:
        """The better method that this database offers: once per database, one question."""
        reply = await self._execute(commit_sql.PROBE)
        return OutcomeMethod.WITNESS if reply.rows[0][0] == "t" else OutcomeMethod.LOG

    async def _mark(self, begin: str, method: OutcomeMethod) -> CommitToken | None:
        prefix = f"{begin}; " if begin else ""
        if method is OutcomeMethod.WITNESS:
            id_ = self.runtime.new_id()
            system = self.database not in self.plan.nameless
            reply = await self._execute(prefix + commit_sql.witness_mark(id_, system=system))
            return commit_sql.witness_token(reply.rows, id_, self.database)
        if method is OutcomeMethod.LOG:
            version = self.runtime.server_version(self.connection)
            reply = await self._execute(prefix + commit_sql.log_mark(version))
            return commit_sql.log_token(reply.rows, version)
        await self._execute(begin)
        return None

    async def _execute(self, sql: str) -> Reply:
        return await self.runtime.execute(self.connection, sql, None)
