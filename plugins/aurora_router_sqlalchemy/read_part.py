"""The reader's part of a session's transaction: its COMMIT has nothing to make durable, so losing it loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection

_MARK = "aurora_router.read_part"


def mark_read_part(connection: Connection) -> None:
    """Mark a connection as the reader's part of a transaction."""
    connection.info[_MARK] = True


def unmark_read_part(connection: Connection) -> None:
    """Remove the mark, if the driver's connection is there still."""
    if not connection.closed and not connection.invalidated:
        connection.info.pop(_MARK, None)


def has_nothing_to_commit(connection: Any) -> bool:
    """Whether a pool's connection is a marked one to a reader: an instance that cannot have written anything."""
    placement = getattr(connection.driver_connection, "placement", None)
    return _MARK in connection.info and placement is not None and placement.role.value == "reader"
