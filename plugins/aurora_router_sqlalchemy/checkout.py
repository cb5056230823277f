"""What an engine of ours listens to: a stale connection is replaced at checkout, a lost one's error says what happened.

A connection whose instance has too many is marked at checkout, so that the pool replaces it before its next use: thus
a pool adapts to readers that join and leave. A listener for the check-in would cost more than all that it has to do.
None of it costs a round trip (but behind a pooler: see `aurora_router.check`), nor anything for statements that
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
    event.listen(engine, "checkout", _on_checkout_async if engine.dialect.is_async else _on_checkout)
    event.listen(engine, "handle_error", _explain)


def _on_checkout(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """Make the pool replace a stale connection now, and one whose instance has too many before its next use.

    Raises:
        DisconnectionError: it is stale.
    """
    try:
        check(connection)
    except StaleConnection as error:
        raise exc.DisconnectionError(str(error)) from error
    if is_surplus(connection):
        record.invalidate(soft=True)


def _on_checkout_async(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """The same for SQLAlchemy's wrapper of an asyncio connection."""
    driver_connection = record.driver_connection
    try:
        checking = check(driver_connection)
        if isinstance(checking, CoroutineType):  # else it is done
            await_only(checking)
    except StaleConnection as error:
        raise exc.DisconnectionError(str(error)) from error
    if is_surplus(driver_connection):
        record.invalidate(soft=True)


def _explain(context: ExceptionContext) -> None:
    """Note at SQLAlchemy's wrapper what happened to the instance; psycopg's error, its cause, says the rest.

    The wrapper's message stays SQLAlchemy's, so that errors of one kind have one text.
    """
    wrapper, incident = context.sqlalchemy_exception, getattr(context.original_exception, "incident", None)
    if wrapper is not None and incident is not None and sys.version_info >= (3, 11):  # Python 3.10: it is in the text
        wrapper.add_note(incident.summary)
