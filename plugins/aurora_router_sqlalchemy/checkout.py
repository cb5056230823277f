"""The pool's checkout hook: a stale connection is replaced before anybody gets it, without a round trip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import event, exc

from aurora_router import StaleConnection, check

if TYPE_CHECKING:
    from sqlalchemy import Engine


def guard(engine: Engine) -> None:
    """Let an engine's pool, and every pool that takes its place, refuse stale connections."""
    event.listen(engine, "checkout", _refuse_stale_async if engine.dialect.is_async else _refuse_stale)


def _refuse_stale(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """Tell the pool to replace a connection whose instance is not what it was.

    Raises:
        DisconnectionError: it is stale.
    """
    try:
        check(connection)
    except StaleConnection as error:
        raise exc.DisconnectionError(str(error)) from error


def _refuse_stale_async(connection: Any, record: Any, proxy: Any) -> None:  # noqa: ARG001 - the hook's signature
    """The same for SQLAlchemy's wrapper of an asyncio connection."""
    _refuse_stale(record.driver_connection, record, proxy)
