"""Django's PostgreSQL backend, whose connections are `aurora_router.Connection`.

It is Django's in everything but this: what makes a connection, when a kept one is dropped (its instance is not what it
was, which is known without a round trip), what a pool hands out, and where ``dbshell`` goes. What is made is psycopg's
own class and raises psycopg's own errors: SQL, adaptation and `django.db`'s errors are Django's by inheritance.

``OPTIONS`` takes what Django's backend takes and every ``aurora_…`` option. They are read at the first connect, where
`aurora_router.InvalidOption` and `aurora_router.MalformedHost` come out as they are: the settings are wrong.
"""

from __future__ import annotations

import sys
from copy import copy
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql import base
from django.db.utils import DatabaseErrorWrapper
from django.utils.functional import cached_property

try:
    import psycopg
    from psycopg.conninfo import make_conninfo

    import aurora_router
except ImportError as error:  # Django went on with psycopg2
    raise ImproperlyConfigured(
        f"aurora_router_django needs psycopg 3, and could not import it ({error}): "
        "pip install 'aurora-router[binary,django]'"
    ) from error


if TYPE_CHECKING:
    from types import TracebackType


def is_current(connection: aurora_router.Connection[Any]) -> bool:
    """Whether a connection is to what it was made for, as far as is known here; a stale one is closed."""
    try:
        aurora_router.check(connection)
    except aurora_router.StaleConnection:
        return False
    return True


class _Psycopg:
    """The driver as Django sees it: psycopg, but for `connect`."""

    connect = staticmethod(aurora_router.connect)

    def __getattr__(self, name: str) -> Any:
        return getattr(psycopg, name)


class _ErrorWrapper(DatabaseErrorWrapper):
    """Django's, whose errors say what psycopg's do: what happened to the instance of a lost connection."""

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc_type is None:
            return
        try:
            super().__exit__(exc_type, exc_value, traceback)
        except Exception as error:
            incident = getattr(exc_value, "incident", None)
            if incident is not None:
                error.incident = incident  # type: ignore[attr-defined]
                if sys.version_info >= (3, 11):  # Python 3.10 has it in the text already
                    error.add_note(incident.summary)  # its cause, which is shown with it, says the rest
            raise


class DatabaseFeatures(base.DatabaseFeatures):
    """PostgreSQL's, of which one is not tried out: Django makes a table for that, which a reader refuses."""

    supports_transactions = True


class DatabaseClient(base.DatabaseClient):
    """psql for ``manage.py dbshell``, on the instance of a connection of ours: it knows none of our options."""

    def runshell(self, parameters: list[str]) -> None:
        """Run psql, and wait for its end."""
        with self.connection.temporary_connection():
            info = self.connection.connection.info
            name = make_conninfo(dbname=info.dbname, hostaddr=info.hostaddr or None)
            place = {"HOST": info.host, "PORT": info.port, "NAME": name}
        there = copy(self.connection)
        there.settings_dict = {**there.settings_dict, **place}
        base.DatabaseClient(there).runshell(parameters)


class DatabaseWrapper(base.DatabaseWrapper):
    """An alias of ``DATABASES``, and a thread's connection to it.

    Attributes:
        causal_token: what the thread's reads on readers must see (see `aurora_router_django.causal`).
        has_debt: whether it may have written more than that.
    """

    causal_token: aurora_router.CausalToken | None = None
    has_debt: bool = False

    Database = _Psycopg()
    client_class = DatabaseClient
    features_class = DatabaseFeatures
    wrap_database_errors = cached_property(_ErrorWrapper)

    def create_cursor(self, name: str | None = None) -> Any:
        """Return a cursor, which may write."""
        self.has_debt = True
        return super().create_cursor(name)

    def is_transaction_open(self) -> bool:
        """Whether a transaction has begun on the server: a block that has run no statement has none."""
        if self.connection is None or self.connection.closed:
            return bool(self.in_atomic_block and self.has_debt)
        return bool(self.connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE)

    def close_if_unusable_or_obsolete(self) -> None:
        """Drop a stale connection at the request's boundary, without a round trip; then what Django drops.

        A persistent connection to an instance that has too many is dropped as well (a pool sees to its own).
        """
        if not self.in_atomic_block:
            self.causal_token, self.has_debt = None, False  # the next request is another client's
        if self.connection is not None and not is_current(self.connection):
            self.close()
        is_kept = not (self.in_atomic_block or self.settings_dict["OPTIONS"].get("pool"))
        if is_kept and self.connection is not None and aurora_router.is_surplus(self.connection):
            self.close()
        super().close_if_unusable_or_obsolete()

    def ensure_connection(self) -> None:
        """Connect where there is no connection; one that was opened before a fork is its parent's, and none of ours.

        Within a transaction nothing can go on with it: it is closed here, and Django refuses every statement until the
        end of the block.
        """
        if self.connection is not None and getattr(self.connection, "is_inherited", False):
            self.close()
        super().ensure_connection()

    def is_usable(self) -> bool:
        """Whether the connection is not stale and answers (Django asks after errors, and by CONN_HEALTH_CHECKS)."""
        return self.connection is not None and is_current(self.connection) and super().is_usable()

    @property
    def pool(self) -> Any:
        """The alias's pool (``OPTIONS["pool"]``, Django 5.1 or later); None: there is none."""
        wanted = self.settings_dict["OPTIONS"].get("pool")
        if not wanted or self.alias == NO_DB_ALIAS:
            return None
        if self.alias not in self._connection_pools:
            self._connection_pools.setdefault(self.alias, self._new_pool({} if wanted is True else wanted))
        return self._connection_pools[self.alias]

    def _new_pool(self, options: dict[str, Any]) -> Any:
        """A pool that hands out no stale connection, and with CONN_HEALTH_CHECKS none that does not answer."""
        if self.settings_dict["CONN_MAX_AGE"] != 0:
            raise ImproperlyConfigured("Pooling doesn't support persistent connections. Leave CONN_MAX_AGE at 0.")
        try:
            from aurora_router.pool import ConnectionPool  # noqa: PLC0415 - needs an extra
        except ImportError as error:
            raise ImproperlyConfigured(
                f"OPTIONS['pool'] needs psycopg_pool, and could not import it ({error}): "
                "pip install 'aurora-router[django,pool]'"
            ) from error
        params = {**self.get_connection_params(), "autocommit": True}
        # A pool connects in threads of its own and would only report that it took too long.
        read = ("aurora_", "balance", "host", "port")
        aurora_router.Router(**{name: params[name] for name in params if name.startswith(read)})

        def check(connection: aurora_router.Connection[Any]) -> None:
            aurora_router.check(connection)
            if self.settings_dict["CONN_HEALTH_CHECKS"]:
                ConnectionPool.check_connection(connection)

        return ConnectionPool(kwargs=params, open=False, configure=self._configure_connection, check=check, **options)
