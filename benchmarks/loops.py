"""The loops over a connection that are compared, for anything with psycopg's interface.

Nothing but the standard library is imported: the incumbent runs the same file in an environment of its own.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

ROWS = 1000
_SERIES = f"select generate_series(1, {ROWS})"


def execute_fetchone(connection: Any, count: int) -> float:
    """``execute`` and ``fetchone`` on one cursor."""
    with connection.cursor() as cursor:
        start = perf_counter()
        for _ in range(count):
            cursor.execute("select 1")
            cursor.fetchone()
        return perf_counter() - start


def new_cursor(connection: Any, count: int) -> float:
    """A new cursor for each ``execute`` and ``fetchone``."""
    start = perf_counter()
    for _ in range(count):
        with connection.cursor() as cursor:
            cursor.execute("select 1")
            cursor.fetchone()
    return perf_counter() - start


def fetchone(connection: Any, count: int) -> float:
    """``fetchone`` alone, a thousand times for each `count`."""
    spent = 0.0
    with connection.cursor() as cursor:
        for _ in range(count):
            cursor.execute(_SERIES)
            start = perf_counter()
            for _ in range(ROWS):
                cursor.fetchone()
            spent += perf_counter() - start
    return spent


def iterate(connection: Any, count: int) -> float:
    """``for row in cursor`` over a thousand rows."""
    spent = 0.0
    with connection.cursor() as cursor:
        for _ in range(count):
            cursor.execute(_SERIES)
            start = perf_counter()
            for _row in cursor:
                pass
            spent += perf_counter() - start
    return spent


async def execute_fetchone_async(connection: Any, count: int) -> float:
    """As `execute_fetchone`."""
    async with connection.cursor() as cursor:
        start = perf_counter()
        for _ in range(count):
            await cursor.execute("select 1")
            await cursor.fetchone()
        return perf_counter() - start


async def new_cursor_async(connection: Any, count: int) -> float:
    """As `new_cursor`."""
    start = perf_counter()
    for _ in range(count):
        async with connection.cursor() as cursor:
            await cursor.execute("select 1")
            await cursor.fetchone()
    return perf_counter() - start


async def fetchone_async(connection: Any, count: int) -> float:
    """As `fetchone`."""
    spent = 0.0
    async with connection.cursor() as cursor:
        for _ in range(count):
            await cursor.execute(_SERIES)
            start = perf_counter()
            for _ in range(ROWS):
                await cursor.fetchone()
            spent += perf_counter() - start
    return spent


async def iterate_async(connection: Any, count: int) -> float:
    """As `iterate`."""
    spent = 0.0
    async with connection.cursor() as cursor:
        for _ in range(count):
            await cursor.execute(_SERIES)
            start = perf_counter()
            async for _row in cursor:
                pass
            spent += perf_counter() - start
    return spent


LOOPS = {
    "execute + fetchone": (execute_fetchone, execute_fetchone_async),
    "new cursor each time": (new_cursor, new_cursor_async),
    "fetchone x 1000": (fetchone, fetchone_async),
    "for row in cursor": (iterate, iterate_async),
}
"""Name -> the loop, and the same one awaited."""
