"""Cases about what goes on in a session: transactions, notifications, pipelines, cancelling, prepared statements."""

from __future__ import annotations

import inspect
from contextlib import suppress

import psycopg

from tests.conformance.ground import Ground
from tests.conformance.spy import plain, tried


async def transactions(t: Ground) -> None:
    """Commit, rollback, and what `with` does with a connection."""
    conn = await t.connect()
    await conn.execute("create table t (id int primary key)")
    await conn.commit()
    await conn.execute("insert into t values (1)")
    _ = conn.info.transaction_status
    await conn.rollback()
    await (await conn.execute("select count(*) from t")).fetchone()
    await conn.rollback()
    async with await t.connect() as inner:
        await inner.execute("insert into t values (2)")
    _ = inner.closed, inner.broken
    with suppress(ZeroDivisionError):
        async with await t.connect() as inner:
            await inner.execute("insert into t values (3)")
            raise ZeroDivisionError
    _ = inner.closed
    with suppress(psycopg.Error):
        async with await t.connect() as inner:
            await inner.execute("insert into t values (2)")
    await (await conn.execute("select * from t")).fetchall()
    await conn.close()
    _ = conn.closed, conn.broken
    await conn.close()
    for action in (conn.commit, conn.rollback, lambda: conn.execute("select 1"), conn.cursor, conn.cancel, conn.fileno):
        await tried(action)


async def savepoints(t: Ground) -> None:
    """`transaction()`: nested, named, rolled back by an error, by force, and by psycopg.Rollback."""
    conn = await t.connect()
    await conn.execute("create table t (id int)")
    await conn.commit()
    async with conn.transaction() as outer:
        _ = outer.savepoint_name, outer.connection, outer.force_rollback, outer.pgconn
        await tried(lambda: outer.Status)  # new in 3.3
        await tried(lambda: outer.status)
        await conn.execute("insert into t values (1)")
        with suppress(ZeroDivisionError):
            async with conn.transaction("mine") as inner:
                _ = inner.savepoint_name
                await conn.execute("insert into t values (2)")
                raise ZeroDivisionError
        await tried(lambda: inner.status)  # new in 3.3
        async with conn.transaction(force_rollback=True):
            await conn.execute("insert into t values (3)")
        async with conn.transaction() as third:
            await conn.execute("insert into t values (4)")
            raise psycopg.Rollback(plain(third))
        await tried(conn.commit)
        await tried(conn.rollback)
    await tried(lambda: outer.status)  # new in 3.3
    async with conn.transaction() as outer:
        await conn.execute("insert into t values (5)")
        async with conn.transaction():
            raise psycopg.Rollback(plain(outer))
    async with conn.transaction():
        with suppress(psycopg.Error):
            async with conn.transaction():
                await conn.execute("insert into absent values (5)")
        await (await conn.execute("select id from t order by id")).fetchall()
    with suppress(psycopg.Error):
        async with conn.transaction():
            await conn.execute("select 1/0")
    _ = conn.info.transaction_status


async def two_phases(t: Ground) -> None:
    """Two-phase commit."""
    conn = await t.connect()
    await conn.execute("create table t (id int)")
    await conn.commit()
    xid = conn.xid(7, "conformance", "one")
    t.told("xid", (str(xid), xid.format_id, xid.gtrid, xid.bqual, len(xid), xid[1], xid.prepared, xid.owner))
    await conn.tpc_begin(xid)
    await conn.execute("insert into t values (1)")
    await tried(conn.commit)
    await tried(conn.rollback)
    await tried(lambda: conn.transaction().__aenter__())
    await conn.tpc_prepare()
    await tried(conn.tpc_prepare)
    await conn.tpc_commit()
    for end in (conn.tpc_commit, conn.tpc_rollback):
        await conn.tpc_begin(conn.xid(7, "conformance", "two"))
        await conn.execute("insert into t values (2)")
        await end()
    for end in (conn.tpc_commit, conn.tpc_rollback):
        other = await t.connect()
        await other.tpc_begin("conformance_other")
        await other.execute("insert into t values (3)")
        await other.tpc_prepare()
        await other.close()
        recovering = plain(conn).tpc_recover()
        recovered = await recovering if inspect.isawaitable(recovering) else recovering
        (found,) = [each for each in recovered if each.gtrid == "conformance_other"]
        t.told("recovered", (str(found), found.owner, found.database, type(found.prepared)))
        await conn.rollback()
        await end(found)
    await (await conn.execute("select id from t order by id")).fetchall()
    await conn.rollback()
    await conn.tpc_recover()
    await conn.execute("select 1")
    await tried(conn.tpc_begin("in a transaction"))
    await tried(conn.tpc_prepare)
    await conn.rollback()
    await tried(conn.tpc_commit("conformance_absent"))
    await tried(lambda: conn.xid(-1, "x", "y"))


async def notifications(t: Ground) -> None:
    """LISTEN: by `notifies`, by handlers; NOTIFY from this connection and from another."""
    conn, other = await t.connect(autocommit=True), await t.connect(autocommit=True)
    heard = []

    def hear(notify: psycopg.Notify) -> None:
        heard.append((notify.channel, notify.payload, type(notify)))

    conn.add_notify_handler(hear)
    await conn.execute("listen conformance")
    await conn.execute("notify conformance, 'own'")
    t.told("heard", heard)
    conn.remove_notify_handler(hear)
    await tried(lambda: conn.remove_notify_handler(hear))
    for payload in ("1", "2", "3"):
        await other.execute(f"notify conformance, '{payload}'")
    async for notify in conn.notifies(timeout=30, stop_after=3):
        t.told("notify", (notify.channel, notify.payload))
    async for _ in conn.notifies(timeout=0.01):
        raise AssertionError("no notification")

    async def told() -> None:
        await other.execute("notify conformance, 'later'")

    async def waits() -> None:
        async for notify in conn.notifies(timeout=30, stop_after=1):
            t.told("notify", notify.payload)

    await t.beside(waits(), told)
    await conn.execute("unlisten *")
    await (await conn.execute("select 1")).fetchone()


async def notices(t: Ground) -> None:
    """Handlers of notices."""
    conn = await t.connect()
    said = []

    def hear(diag: psycopg.errors.Diagnostic) -> None:
        said.append((diag.severity, diag.sqlstate, diag.message_primary, diag.message_hint, diag.context))

    conn.add_notice_handler(hear)
    await conn.execute("do $$ begin raise notice 'a notice' using hint = 'a hint'; end $$")
    conn.remove_notice_handler(hear)
    await tried(lambda: conn.remove_notice_handler(hear))
    await conn.execute("do $$ begin raise notice 'nobody hears'; end $$")
    t.told("said", said)


async def cancelling(t: Ground) -> None:
    """`cancel` and `cancel_safe` of a statement that runs; of nothing; the connection stays usable."""
    conn = await t.connect()
    for how in ("cancel", "cancel_safe"):

        async def cancel(how: str = how) -> None:
            await t.running(f"pg_sleep(30 /* {how} */)")
            await tried(getattr(conn, how))

        await t.beside(conn.execute(f"select pg_sleep(30 /* {how} */)"), cancel)
        _ = conn.info.transaction_status
        await conn.rollback()
        await (await conn.execute("select 1")).fetchone()
        await conn.rollback()
    await conn.cancel_safe(timeout=5)
    await tried(conn.cancel)


async def pipelines(t: Ground) -> None:
    """Pipeline mode: results, synchronisation, errors, nesting."""
    conn = await t.connect()
    await conn.execute("create table t (id int)")
    await conn.commit()
    async with conn.pipeline() as pipeline:
        _ = pipeline.status, conn.info.pipeline_status, pipeline.pgconn, pipeline.level
        _ = pipeline.command_queue, pipeline.result_queue
        pipeline.is_supported()
        first = await conn.execute("insert into t values (1) returning id")
        second = await conn.execute("select 2")
        await pipeline.sync()
        await second.fetchone()
        await first.fetchone()
        async with conn.pipeline():
            await (await conn.execute("select 3")).fetchone()
        cur = conn.cursor()
        await cur.executemany("insert into t values (%s) returning id", [(7,), (8,)], returning=True)
        await cur.fetchall()
    raised: list[Exception] = []
    try:
        async with conn.pipeline() as second:  # which of these raises depends on when the answer comes
            failing = plain(conn).execute("select 1/0")
            _ = await failing if inspect.isawaitable(failing) else failing
            syncing = plain(second).sync()
            _ = await syncing if inspect.isawaitable(syncing) else syncing
    except psycopg.Error as error:
        raised.append(error)
    t.told("raised", raised[0])
    await conn.rollback()
    _ = conn.info.pipeline_status
    async with conn.pipeline(), conn.transaction():
        await conn.execute("insert into t values (9)")
    await (await conn.execute("select count(*) from t")).fetchone()


async def prepared(t: Ground) -> None:
    """Prepared statements: by themselves, on demand, never; given up when there are many."""
    conn = await t.connect(autocommit=True)
    count = "select count(*) from pg_prepared_statements"

    async def counted() -> None:
        await (await conn.execute(count, prepare=False)).fetchone()

    async def prepares(n: int, sql: str = "select %s::int + 1", **how: bool) -> None:
        for _ in range(n):
            await tried(conn.execute(sql, [1], **how))  # psycopg 3.2 on an old libpq fails here after deallocate
        await tried(counted())

    await prepares(5)
    await prepares(1)
    await prepares(1, "select %s::int + 2", prepare=True)
    await prepares(9, "select %s::int + 3", prepare=False)
    conn.prepared_max = 1
    await prepares(1, "select %s::int + 4", prepare=True)
    conn.prepare_threshold = 0
    await prepares(1, "select %s::int + 5")
    await tried(conn.execute("deallocate all"))
    await prepares(1, "select %s::int + 6")
    conn.prepare_threshold = None
    await prepares(7, "select %s::int + 7")


CASES = [
    transactions,
    savepoints,
    two_phases,
    notifications,
    notices,
    cancelling,
    pipelines,
    prepared,
]
