"""What an engine of ours listens to: a stale connection is replaced at checkout, a lost one's error says what happened.

At check-in a connection is recycled if its instance has too many: so a pool goes along with readers that join and
leave. None of it costs a round trip (but behind a pooler: see `aurora_router.check`), nor anything for statements that
succeed.
"""

from __future__ import annotations

import sys
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc
from sqlalchemy.util import await_only

from aurora_router import StaleConnection, check, is_surplus

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.engine import ExceptionContext


def guard(engine: Engine) -> None:
    """Let an engine's pool, and each that takes its place, refuse what is stale, stay balanced, explain lost ones."""
    event.listen(engine, "checkout", _refuse_stale_async if engine.dialect.is_async else _refuse_stale)
    event.listen(engine, "checkin", _recycle_surplus)
    event.listen(engine, "handle_error", _explain)


def _refuse_stale(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """Make the pool replace a connection whose instance is not what it was.

    Raises:
        DisconnectionError: it is stale.
    """
    try:
        check(connection)
    except StaleConnection as error:
        raise exc.DisconnectionError(str(error)) from error


def _refuse_stale_async(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """The same for SQLAlchemy's wrapper of an asyncio connection."""
    try:
        checking = check(record.driver_connection)
        if isinstance(checking, CoroutineType):  # else it is done
            await_only(checking)
    except StaleConnection as error:
        raise exc.DisconnectionError(str(error)) from error


def _recycle_surplus(connection: Any, record: Any) -> None:
    """Make the pool replace a connection before its next use, where its instance has too many."""
    if connection is not None and is_surplus(record.driver_connection):
        record.invalidate(soft=True)


def _explain(context: ExceptionContext) -> None:
    """Note at SQLAlchemy's wrapper what happened to the instance; psycopg's error, its cause, says the rest.

    The wrapper's message stays SQLAlchemy's, so that errors of one kind have one text.
    """
    wrapper, incident = context.sqlalchemy_exception, getattr(context.original_exception, "incident", None)
    if wrapper is not None and incident is not None and sys.version_info >= (3, 11):  # Python 3.10: it is in the text
        wrapper.add_note(incident.summary)
