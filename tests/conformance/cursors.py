"""Cases about cursors and COPY: every kind of cursor is asked for the same things, also for what it can't do."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import raw_cursor
from psycopg.rows import dict_row
from psycopg.types.numeric import Int8

from tests.conformance.ground import Ground
from tests.conformance.spy import TWINS, plain, tried

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

KINDS: dict[type, bool] = {
    psycopg.Cursor: False,
    psycopg.ClientCursor: False,
    psycopg.RawCursor: False,
    psycopg.ServerCursor: True,
    raw_cursor.RawServerCursor: True,
}
"""The blocking classes; whether they are named."""


@dataclass(frozen=True)
class Of:
    """A case for one kind of cursor."""

    kind: type
    case: Callable[[Ground, Any, Any, str], Coroutine[Any, Any, None]]

    @property
    def __name__(self) -> str:
        return f"{self.case.__name__}-{self.kind.__name__}"

    @property
    def __doc__(self) -> str:  # type: ignore[override] # what the docs say of it
        return self.case.__doc__ or ""

    async def __call__(self, t: Ground) -> None:
        kind = self.kind if t.mode == "sync" else TWINS[self.kind]
        conn = await t.connect()
        await conn.execute("create table t (id int, name text)")
        await conn.execute("insert into t select g, 'n' || g from generate_series(1, 10) g")
        await conn.commit()
        if KINDS[self.kind]:
            conn.server_cursor_factory = kind
            cur = conn.cursor("mine")
        else:
            conn.cursor_factory = kind
            cur = conn.cursor()
        try:
            await self.case(t, conn, cur, "$1" if "Raw" in kind.__name__ else "%s")
        finally:
            if not plain(conn).closed:
                await conn.rollback()
                await cur.close()


async def fetching(t: Ground, conn: Any, cur: Any, mark: str) -> None:
    """Execute, fetch, scroll, describe."""
    _ = (
        cur.closed,
        cur.connection,
        cur.adapters,
        cur.arraysize,
        cur.rowcount,
        cur.rownumber,
        cur.format,
        cur.description,
    )
    _ = cur.statusmessage, cur.pgresult, cur.row_factory
    await tried(cur.fetchone)
    await tried(cur.fetchall)
    await tried(lambda: cur.execute(f"select id, name from t where id > {mark} order by id", [2]))
    _ = cur.description, cur.rowcount, cur.rownumber, cur.statusmessage, cur.pgresult
    t.told("column", [(each.name, each.type_code, each.internal_size) for each in plain(cur).description or []])
    await tried(cur.fetchone)
    await tried(lambda: cur.fetchmany(2))
    cur.arraysize = 3
    await tried(cur.fetchmany)
    _ = cur.rownumber
    for value, mode in ((0, "absolute"), (2, "relative"), (99, "absolute"), (-99, "relative"), (1, "nonsense")):
        await tried(lambda v=value, m=mode: cur.scroll(v, m))
    await conn.rollback()
    await tried(lambda: cur.execute("select 1 as one"))
    await tried(cur.fetchall)
    await tried(cur.fetchone)
    await tried(cur.nextset)
    await conn.rollback()
    await tried(lambda: cur.execute("select id from t order by id"))
    with suppress(psycopg.Error):
        async for _row in cur:
            pass
    cur.setinputsizes([1])
    cur.setoutputsize(1, 0)
    cur.row_factory = dict_row
    await conn.rollback()
    await tried(lambda: cur.execute("select 1 as one, 'x' as x", binary=True))
    _ = cur.format
    cur.format = psycopg.pq.Format.BINARY
    await tried(cur.fetchone)
    await tried(cur.close)
    _ = cur.closed
    await tried(lambda: cur.execute("select 1"))
    await tried(cur.fetchone)


async def several(t: Ground, conn: Any, cur: Any, mark: str) -> None:
    """Several results: of several statements, of executemany; `set_result`, `results`; errors in the middle."""
    await tried(lambda: cur.execute("select 1; select 2 where false; insert into t values (77); select 3"))
    for _ in range(5):
        await tried(cur.fetchall)
        _ = cur.rowcount, cur.statusmessage
        await tried(cur.nextset)
    await conn.rollback()
    second = f"insert into t values ({mark}, {mark.replace('1', '2')}) returning id"
    await tried(lambda: cur.executemany(second, [(11, "a"), (12, "b"), (13, "c")], returning=True))
    for index in (1, -1, 9):
        if hasattr(plain(cur), "set_result"):
            await tried(lambda i=index: cur.set_result(i))
        await tried(cur.fetchone)
    if hasattr(plain(cur), "results"):
        with suppress(psycopg.Error):
            async for each in cur.results():
                await tried(each.fetchall())
    await conn.rollback()
    await tried(lambda: cur.executemany(second.partition(" returning")[0], [(11, "a"), (12, "b")]))
    _ = cur.rowcount
    await conn.rollback()
    await tried(lambda: cur.executemany(second, [(11, "a"), ("x", "b")]))
    _ = conn.info.transaction_status
    await conn.rollback()
    await tried(lambda: cur.execute(f"select {mark}::bigint, pg_typeof({mark}::bigint)", [Int8(1)]))
    await tried(cur.fetchall)
    await conn.rollback()
    if hasattr(plain(cur), "mogrify"):
        t.told("mogrify", cur.mogrify("select %s, %s", [1, "o'clock"]))


async def streaming(t: Ground, conn: Any, cur: Any, mark: str) -> None:
    """`stream`: to the end, broken off, failing in the middle."""
    for query in (
        f"select g from generate_series(1, {mark}) g",
        f"select 1 / (3 - g) from generate_series(1, {mark}) g",
    ):
        with suppress(psycopg.Error):
            async for _ in cur.stream(query, [4]):
                pass
        await conn.rollback()
    with suppress(psycopg.Error):
        async for _ in cur.stream("select id from t", size=3):
            pass
    await conn.rollback()
    with suppress(psycopg.Error):
        async for _ in cur.stream("insert into t values (20)"):
            pass
    await conn.rollback()
    async with cur as entered:
        await tried(lambda: entered.execute("select 1"))
    _ = cur.closed


async def named(t: Ground, conn: Any, cur: Any, mark: str) -> None:
    """What only cursors on the server have: size of a fetch, scrolling back, life beyond the transaction."""
    if not hasattr(plain(cur), "itersize"):
        return
    _ = cur.name, cur.scrollable, cur.withhold, cur.itersize
    cur.itersize = 2
    cur.scrollable = True
    cur.withhold = True
    await cur.execute(f"select id, name from t where id < {mark} order by id", [6])
    async for _ in cur:
        pass
    await cur.scroll(-3)
    await cur.fetchone()
    _ = cur.rownumber
    await cur.scroll(1, "absolute")
    await cur.fetchmany(2)
    await tried(conn.commit)
    await tried(cur.fetchall)
    await conn.rollback()
    await tried(cur.close)
    _ = cur.closed
    held = conn.cursor("held", withhold=True, scrollable=False)
    await held.execute("select id from t order by id")
    await held.fetchone()
    await conn.commit()
    await held.fetchmany(2)
    await conn.commit()
    await tried(held.scroll(-1))
    await conn.rollback()
    await held.close()
    again = conn.cursor("again")
    await again.execute("select 1")
    other = conn.cursor("again")
    await tried(other.execute("select 2"))
    await conn.rollback()
    await again.close()
    await other.close()


async def copying(t: Ground, conn: Any, cur: Any, mark: str) -> None:
    """COPY both ways: by row, by block, typed, binary; errors of either side."""
    out = "copy (select id, name from t where id < 4 order by id) to stdout"
    with suppress(psycopg.Error):
        async with cur.copy(out) as copy:
            _ = copy.connection, copy.cursor, copy.formatter, copy.writer
            await copy.read()
            async for _ in copy:
                pass
            await tried(copy.read)
        _ = cur.rowcount, cur.statusmessage
    with suppress(psycopg.Error):
        async with cur.copy(out) as copy:
            copy.set_types(["int4", "text"])
            await copy.read_row()
            async for _ in copy.rows():
                pass
            await tried(copy.read_row)
    with suppress(psycopg.Error):
        async with cur.copy(out + " (format binary)") as copy:
            copy.set_types(["int4", "text"])
            async for _ in copy.rows():
                pass
    with suppress(psycopg.Error, ZeroDivisionError):
        async with cur.copy("copy (select repeat('x', 1000) from generate_series(1, 9999)) to stdout") as copy:
            await copy.read()
            raise ZeroDivisionError
    _ = conn.info.transaction_status
    await conn.rollback()
    for rows in ([(31, "a"), (32, None)], [(33, "b", "too many")], [("x", "c")]):
        with suppress(psycopg.Error):
            async with cur.copy("copy t from stdin") as copy:
                for row in rows:
                    await copy.write_row(row)
        _ = cur.rowcount, conn.info.transaction_status
        await conn.rollback()
    with suppress(psycopg.Error):
        async with cur.copy("copy t from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            await copy.write_row((34, "d"))
    with suppress(psycopg.Error):
        async with cur.copy("copy t from stdin") as copy:
            await copy.write("35\te\n")
            await copy.write(b"36\tf\n")
            await tried(lambda: copy.write(37))
    await tried(lambda: cur.execute("select id, name from t where id > 10 order by id"))
    await tried(cur.fetchall)
    await conn.rollback()
    with suppress(psycopg.Error, ZeroDivisionError):
        async with cur.copy("copy t from stdin") as copy:
            await copy.write("38\tg\n")
            raise ZeroDivisionError
    _ = conn.info.transaction_status
    await conn.rollback()
    with suppress(psycopg.Error):
        async with cur.copy("select 1"):
            pass
    await conn.rollback()
    with suppress(psycopg.Error):
        async with cur.copy("copy t from stdin") as copy:
            await copy.finish(None)
    await conn.rollback()
    await (await conn.execute("select count(*) from t")).fetchone()


SCRIPTS = [fetching, several, streaming, named, copying]
CASES = [Of(kind, script) for script in SCRIPTS for kind in KINDS]
