"""Reads that see one's own writes, through two engines: one for readers, one for the writer.

A token is made on a connection of the writer's pool, and looked for on the connection of the readers' pool that then
reads. See ``docs/read-your-writes.md``.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.orm import Session

import aurora_router

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aurora_router import CausalToken


def causal_token(source: Engine | Connection | Session) -> CausalToken:
    """Return a token for everything that was committed before: one round trip.

    Args:
        source: leads to the writer: an engine, from whose pool a connection is taken; a session, whose engine is meant;
            or a connection without an open transaction.

    Raises:
        TypeError: the engine is not one of ``postgresql+aurora``.
        InvalidOption: no method of ``aurora_causal`` works here.
        psycopg.ProgrammingError: a transaction is open.
    """
    place = source.get_bind() if isinstance(source, Session) else source
    if isinstance(place, Engine):
        with place.connect() as connection:
            return _driver_of(connection).causal_token()
    return _driver_of(place).causal_token()


async def causal_token_async(source: AsyncEngine | AsyncConnection | AsyncSession) -> CausalToken:
    """Return a token for everything that was committed before; see `causal_token`."""
    place = source.bind if isinstance(source, AsyncSession) else source
    if isinstance(place, AsyncEngine):
        async with place.connect() as connection:
            return await (await _driver_of_async(connection)).causal_token()
    if place is None:
        raise TypeError("the session has no engine of its own: give the engine that it wrote to")
    return await (await _driver_of_async(place)).causal_token()


def connect_after(readers: Engine, writer: Engine, token: CausalToken, *, timeout: float | None = None) -> Connection:
    """Return a connection that has replayed what a token stands for: of `readers`, else of `writer`.

    The reader is the one whose connection the pool gives. If it is behind, it is waited for, unless the token is not
    trusted.

    Args:
        readers: an engine whose connections lead to readers.
        writer: an engine whose connections lead to the writer of the same cluster.
        token: what has to be visible.
        timeout: how long to wait for the reader, in seconds; None: as ``aurora_causal_wait`` of its engine says.

    Raises:
        CausalTokenRejected: the token is of another cluster, or beyond the writer.
        TypeError: an engine is not one of ``postgresql+aurora``.
    """
    connection = readers.connect()
    try:
        if _driver_of(connection).has_replayed(token, timeout=timeout):
            return connection
    except BaseException:
        connection.close()
        raise
    connection.close()
    connection = writer.connect()
    try:
        _driver_of(connection).has_replayed(token)  # raises what refutes the token; else the writer serves anyway
    except BaseException:
        connection.close()
        raise
    return connection


@asynccontextmanager
async def connect_after_async(
    readers: AsyncEngine, writer: AsyncEngine, token: CausalToken, *, timeout: float | None = None
) -> AsyncIterator[AsyncConnection]:
    """Connect as `connect_after` does, for an ``async with`` block; the connection is closed at its end."""
    async with readers.connect() as connection:
        if await (await _driver_of_async(connection)).has_replayed(token, timeout=timeout):
            yield connection
            return
    async with writer.connect() as connection:
        await (await _driver_of_async(connection)).has_replayed(token)
        yield connection


def find_driver(connection: Connection) -> Any:
    """The driver's connection under one of an engine, blocking or on asyncio.

    Raises:
        TypeError: the engine is not one of ``postgresql+aurora``.
    """
    driver = connection.connection.driver_connection
    if isinstance(driver, (aurora_router.Connection, aurora_router.AsyncConnection)):
        return driver
    raise _refuse(driver)


def _driver_of(connection: Connection) -> aurora_router.Connection[Any]:
    driver = connection.connection.driver_connection
    if isinstance(driver, aurora_router.Connection):
        return driver
    raise _refuse(driver)


async def _driver_of_async(connection: AsyncConnection) -> aurora_router.AsyncConnection[Any]:
    driver = (await connection.get_raw_connection()).driver_connection
    if isinstance(driver, aurora_router.AsyncConnection):
        return driver
    raise _refuse(driver)


def _refuse(driver: object) -> TypeError:
    kind = type(driver)
    return TypeError(
        f"causal tokens need engines of postgresql+aurora://; this one gave a {kind.__module__}.{kind.__name__}"
    )
