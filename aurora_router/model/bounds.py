"""How much is remembered by name: names come and go for as long as a process lives, so every such table has a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import MutableMapping

KeyT = TypeVar("KeyT")

MAX_NAMES = 256
"""How many names or addresses a table has at most: a cluster has 16 instances, and may change their addresses."""


def forget_oldest(table: MutableMapping[KeyT, Any], most: int = MAX_NAMES) -> None:
    """Remove the entries that were entered first, until there are at most `most`; for tables that threads share too."""
    for key in list(table)[: max(0, len(table) - most)]:
        table.pop(key, None)


def forget_empty(table: MutableMapping[KeyT, Any], most: int = MAX_NAMES) -> None:
    """Remove the entries that are empty, if there are `most` or more."""
    if len(table) >= most:
        for key in [key for key, each in list(table.items()) if not len(each)]:
            table.pop(key, None)
