"""Causal tokens of psycopg's connections, blocking and on asyncio: thin shells over `flow.causal`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.errors import CausalTokenRejected
from aurora_router.flow import causal
from aurora_router.flow.runtime import DialFailed
from aurora_router.model.instance import Role
from aurora_router.policy.causal import Standing, refuse_kind
from aurora_router.psycopg_errors import StaleConnection
from aurora_router.runtime.blocking import run
from aurora_router.runtime.connect_args import ConnectArgs, read_connect_args
from aurora_router.runtime.sequential_dial import refuse_dial
from aurora_router.runtime.transacting import BlockingSessions, EventLoopSessions

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aurora_router.model.causal_token import CausalToken

Sessions = BlockingSessions[Any] | EventLoopSessions[Any]


def make_token(connection: Any) -> CausalToken:
    """Make a token on a blocking connection; see `flow.causal.make_token`."""
    args = _args_of(connection)
    return run(_make_token(BlockingSessions(refuse_dial, args.names), connection, args))


async def make_token_async(connection: Any) -> CausalToken:
    """Make a token on an asyncio connection."""
    args = _args_of(connection)
    return await _make_token(EventLoopSessions(refuse_dial, args.names), connection, args)


def has_replayed(connection: Any, token: CausalToken, wait: float | None) -> bool:
    """Whether a blocking connection's session has replayed what a token stands for, within `wait` seconds.

    None: as long as ``aurora_causal_wait`` says.
    """
    args = _args_of(connection)
    return run(_has_replayed(BlockingSessions(refuse_dial, args.names), connection, token, wait, args))


async def has_replayed_async(connection: Any, token: CausalToken, wait: float | None) -> bool:
    """The same on asyncio."""
    args = _args_of(connection)
    return await _has_replayed(EventLoopSessions(refuse_dial, args.names), connection, token, wait, args)


def _make_token(sessions: Sessions, connection: Any, args: ConnectArgs) -> Coroutine[Any, Any, CausalToken]:
    _refuse_busy(sessions, connection, "a causal token is made")
    return causal.make_token(
        sessions, connection, args.request.options.causal, args.causal_methods, args.nameless, args.causal_lacking
    )


async def _has_replayed(
    sessions: Sessions, connection: Any, token: CausalToken, wait: float | None, args: ConnectArgs
) -> bool:
    options = args.request.options
    _refuse_busy(sessions, connection, "a session is asked what it has replayed")
    if (why := refuse_kind(token, options.causal)) is not None:
        raise CausalTokenRejected(why)
    if connection.placement.pooled or connection.placement.instance is None:
        return False  # the next transaction may be another server's
    longest = (options.causal_wait if wait is None else wait) if token.is_trusted else 0.0
    try:
        finding = await causal.wait_for_standing(sessions, connection, token, longest, options.connect_timeout)
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
