"""A database router for two aliases of one cluster: reads go to readers, writes and the rest of a block to the writer.

``DATABASE_ROUTERS = ["aurora_router_django.routers.ReaderRouter"]`` routes between the aliases ``default`` and
``replica``; for others there are the arguments, or a subclass.
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from aurora_router_django.causal import find_wrapper, is_proven


class ReaderRouter:
    """Reads from readers what may be read there; everything else is the writer's.

    A transaction (``atomic``) that has run a statement on the writer stays there with its reads, in tests, too. After a
    write a reader serves if it has proven to have replayed it, else the writer does.

    Args:
        writer: the alias of the writer.
        reader: the alias of the readers; if ``DATABASES`` does not have it, everything is the writer's.
    """

    writer: str = DEFAULT_DB_ALIAS
    reader: str = "replica"

    def __init__(self, writer: str | None = None, reader: str | None = None) -> None:
        self.writer = writer or self.writer
        self.reader = reader or self.reader

    def db_for_read(self, model: Any, **hints: Any) -> str:  # noqa: ARG002 - Django's signature
        """Return the alias to read from.

        Raises:
            ImproperlyConfigured: an alias is one of another engine.
            CausalTokenRejected: what the thread must see is of another cluster.
        """
        if self.reader not in connections:
            return self.writer
        writer = find_wrapper(self.writer)
        if writer.is_transaction_open():
            return self.writer
        return self.reader if is_proven(find_wrapper(self.reader), writer) else self.writer

    def db_for_write(self, model: Any, **hints: Any) -> str:  # noqa: ARG002
        """Return the alias of the writer; ``select_for_update`` and ``get_or_create`` ask for it, too."""
        return self.writer

    def allow_relation(self, obj1: Any, obj2: Any, **hints: Any) -> bool | None:  # noqa: ARG002
        """Allow relations between objects of the two aliases, which are one database."""
        pair = {self.writer, self.reader}
        return True if {obj1._state.db, obj2._state.db} <= pair else None  # noqa: SLF001 - Django's documented name

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:  # noqa: ARG002
        """Refuse migrations on readers; the others are left to Django, and to further routers."""
        return False if db == self.reader else None
