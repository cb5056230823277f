"""What this thread has written and must see, kept with its connection to the writer.

Theory. Any cursor on the writer may write, raw SQL included, so each leaves a debt: there may be more than the token
proves. The debt is paid before the next read on a reader, or at the end of a request: one round trip on the
writer's connection, for a token that covers everything before it. A connection to a reader that has proven to have
replayed the token keeps that proof, so that it is asked once.

What is kept is forgotten at the boundary of a request (`django.db.close_old_connections`). From one request of a client
to the next it is the middleware of `aurora_router.web` that carries the token.
"""

from __future__ import annotations

import logging
from typing import Any, cast

from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections

from aurora_router import AuroraRouterError, CausalToken, StaleConnection, web
from aurora_router.logs import Logger
from aurora_router_django.base import DatabaseWrapper

_UNPROVABLE = CausalToken.parse("1n").trust()
"""Stands for writes that no reader can be shown to have: the writer serves."""
logger = Logger("aurora_router.django")


def causal_token(using: str = DEFAULT_DB_ALIAS) -> CausalToken:
    """Return a token for everything that was committed before: one round trip.

    Args:
        using: the alias of the writer.

    Raises:
        ImproperlyConfigured: its engine is not ``aurora_router_django``.
        InvalidOption: no method of ``aurora_causal`` works here.
        psycopg.ProgrammingError: a transaction is open. `django.db.transaction.on_commit` runs after its end.
    """
    wrapper = find_wrapper(using)
    token = cast("CausalToken", _connect(wrapper).causal_token())
    _keep(wrapper, token)
    return token


def read_after(token: CausalToken, using: str = DEFAULT_DB_ALIAS) -> None:
    """Let this thread's reads, by `ReaderRouter`, see what a token stands for, until the end of the request or task.

    Args:
        token: from elsewhere, such as the process that started a task.
        using: the alias of the writer.
    """
    find_wrapper(using).causal_token = token


def find_wrapper(alias: str) -> DatabaseWrapper:
    """This thread's connection to an alias.

    Raises:
        ImproperlyConfigured: its engine is not ``aurora_router_django``.
    """
    wrapper = connections[alias]
    if not isinstance(wrapper, DatabaseWrapper):
        raise ImproperlyConfigured(f"the ENGINE of DATABASES[{alias!r}] has to be 'aurora_router_django' to be routed")
    return wrapper


def pay(wrapper: DatabaseWrapper) -> None:
    """Make a token for what was written on the writer's connection, if there may be something.

    The writes are done, so that no error may leave here.
    """
    if not wrapper.has_debt:
        return
    try:
        token = _connect(wrapper).causal_token()
    except Exception as error:  # noqa: BLE001 - see above
        level = logging.WARNING if isinstance(error, AuroraRouterError) else logging.INFO
        text = "no causal token after a write, so this thread goes on reading from the writer: %s"
        logger.log_once(level, f"{wrapper.alias} {type(error).__name__}", text, error)
        token = _UNPROVABLE
    _keep(wrapper, token)


def is_proven(reader: DatabaseWrapper, writer: DatabaseWrapper) -> bool:
    """Whether the connection to a reader has replayed all that the thread and its request must see."""
    pay(writer)
    needed = [*dict.fromkeys(each for each in (writer.causal_token, web.current()) if each is not None)]
    if not needed:
        return True
    if _UNPROVABLE in needed or reader.is_transaction_open():
        return False
    driver = _connect(reader)
    if getattr(driver, "proven_tokens", None) == needed:
        return True
    try:
        if not all(driver.has_replayed(token) for token in needed):
            return False
    except StaleConnection:
        reader.close()
        return False
    driver.proven_tokens = needed
    return True


def _connect(wrapper: DatabaseWrapper) -> Any:
    """The driver's connection; opened if there is none."""
    wrapper.ensure_connection()
    return wrapper.connection


def _keep(wrapper: DatabaseWrapper, token: CausalToken) -> None:
    wrapper.causal_token, wrapper.has_debt = token, False
    web.keep(token)
