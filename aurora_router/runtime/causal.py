"""Causal tokens of psycopg's connections, blocking and on asyncio: thin shells over `flow.causal`."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn

import psycopg

from aurora_router.errors import AuroraRouterError, CausalTokenRejected
from aurora_router.flow import causal
from aurora_router.flow.runtime import DialFailed
from aurora_router.model.causal_token import CausalToken, NoProof
from aurora_router.model.instance import Role
from aurora_router.policy.causal import Standing, refuse_kind
from aurora_router.psycopg_errors import CommitOutcomeUnknown, StaleConnection
from aurora_router.runtime.blocking import run
from aurora_router.runtime.connect_args import ConnectArgs, read_connect_args
from aurora_router.runtime.transacting import BlockingSessions, EventLoopSessions

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from aurora_router.flow.transaction import Transaction
    from aurora_router.model.commit_token import CommitToken

Sessions = BlockingSessions[Any] | EventLoopSessions[Any]


def make_token(connection: Any) -> CausalToken:
    """Make a token on a blocking connection; see `flow.causal.make_token`."""
    args = _args_of(connection)
    return run(_make_token(BlockingSessions(_dial_nothing, args.names), connection, args))


async def make_token_async(connection: Any) -> CausalToken:
    """Make a token on a connection of asyncio."""
    args = _args_of(connection)
    return await _make_token(EventLoopSessions(_dial_nothing, args.names), connection, args)


def has_replayed(connection: Any, token: CausalToken, wait: float) -> bool:
    """Whether a blocking connection's session has replayed what a token stands for, within `wait` seconds."""
    args = _args_of(connection)
    return run(_has_replayed(BlockingSessions(_dial_nothing, args.names), connection, token, wait, args))


async def has_replayed_async(connection: Any, token: CausalToken, wait: float) -> bool:
    """The same on asyncio."""
    args = _args_of(connection)
    return await _has_replayed(EventLoopSessions(_dial_nothing, args.names), connection, token, wait, args)


class TransactionToken:
    """The causal token of one call of ``run_transaction``.

    Args:
        report: is given the token in the end; None: no token is wanted, and nothing is done.
        args: of the router.
    """

    def __init__(self, report: Callable[[CausalToken], None] | None, args: ConnectArgs) -> None:
        self._report = report
        self._args = args
        self._made: tuple[CausalToken, CommitToken | None] | None = None

    async def make(self, sessions: Sessions, connection: Any, transaction: Transaction[Any, Any]) -> None:
        """Make the token on the transaction's connection, if that has committed.

        Nothing that fails here is an error of the transaction: then the token is one without a proof.
        """
        if self._report is None or not transaction.is_committed:
            return
        method = self._args.request.options.causal
        found = causal.find_token(transaction.token, method)
        if found is None and sessions.is_idle(connection):
            with suppress(psycopg.Error, AuroraRouterError):
                found = await causal.make_token(sessions, connection, method, self._args.causal_methods)
        self._made = (found or CausalToken(NoProof(), is_trusted=True), transaction.token)

    def report(self) -> None:
        """Report the token of what was committed.

        Raises:
            CommitOutcomeUnknown: the user's function failed; the transaction is committed.
        """
        if self._report is None or self._made is None:
            return
        found, token = self._made
        try:
            self._report(found)
        except Exception as error:
            why = f"the transaction is committed, and on_causal failed: {type(error).__name__}: {error}"
            raise CommitOutcomeUnknown(why, token=token) from error


def _make_token(sessions: Sessions, connection: Any, args: ConnectArgs) -> Coroutine[Any, Any, CausalToken]:
    _refuse_busy(sessions, connection, "a causal token is made")
    return causal.make_token(sessions, connection, args.request.options.causal, args.causal_methods)


async def _has_replayed(
    sessions: Sessions, connection: Any, token: CausalToken, wait: float, args: ConnectArgs
) -> bool:
    _refuse_busy(sessions, connection, "a session is asked what it has replayed")
    if (why := refuse_kind(token, args.request.options.causal)) is not None:
        raise CausalTokenRejected(why)
    if connection.placement.pooled or connection.placement.instance is None:
        return False  # the next transaction may be another server's
    seconds, wait = args.request.options.connect_timeout, wait if token.is_trusted else 0.0
    try:
        finding = await causal.wait_for_standing(sessions, connection, token, wait, seconds)
    except DialFailed as failed:
        if not sessions.is_idle(connection):
            connection.discard()  # an answer that comes late would be taken for another's
        raise failed.cause from None
    is_writer, text = connection.placement.role is Role.WRITER, f"{finding.standing.value} ({finding.reason})"
    if finding.standing is Standing.REPLACED and token.is_trusted:
        raise StaleConnection(text)
    if finding.standing in {Standing.BEYOND, Standing.REPLACED} or (finding.standing is Standing.FOREIGN and is_writer):
        raise CausalTokenRejected(f"the causal token is refused: {text}")
    return finding.standing is Standing.PROVEN


def _args_of(connection: Any) -> ConnectArgs:
    if connection.origin is None:
        raise ValueError("the connection was not made by aurora_router, so its cluster is not known")
    conninfo, keywords = connection.origin
    return read_connect_args(conninfo, keywords)


def _refuse_busy(sessions: Sessions, connection: Any, what: str) -> None:
    """Refuse an open transaction: what it wrote is not committed, and its snapshot may be an old one."""
    if sessions.is_broken(connection):
        raise psycopg.OperationalError("the connection is closed")
    if not sessions.is_idle(connection) or sessions.is_busy(connection):
        raise psycopg.ProgrammingError(f"{what} between two transactions, and one is open: commit or roll back first")


def _dial_nothing(*_: object) -> NoReturn:
    raise RuntimeError("a connection is asked, none is made")
