"""Cases about connections: each is run on stock psycopg and on ours, blocking and on asyncio, and the logs compared."""

from __future__ import annotations

import gc
import inspect
import pickle
import warnings

import psycopg
from psycopg import generators, pq
from psycopg.adapt import Dumper, Loader
from psycopg.rows import args_row, class_row, dict_row, kwargs_row, namedtuple_row, scalar_row, tuple_row
from psycopg.types import TypeInfo
from psycopg.types.composite import CompositeInfo
from psycopg.types.enum import EnumInfo
from psycopg.types.range import RangeInfo

from tests.conformance.ground import Ground
from tests.conformance.spy import plain, stock_class, tried

ERRORS = """
Warning Error InterfaceError DatabaseError DataError OperationalError IntegrityError InternalError ProgrammingError
NotSupportedError
""".split()  # noqa: SIM905 - as in the table of PEP 249


class Thing:
    """What rows may be made into."""

    def __init__(self, a: int, b: str) -> None:
        self.told = (a, b)

    def __repr__(self) -> str:
        return f"Thing{self.told}"


async def connecting(t: Ground) -> None:
    """What `connect` takes, and how it fails."""
    for given in (
        {},
        {"autocommit": True},
        {"row_factory": dict_row},
        {"prepare_threshold": None},
        {"cursor_factory": psycopg.ClientCursor if t.mode == "sync" else psycopg.AsyncClientCursor},
        {"context": psycopg.adapters},
        {"application_name": "conformance", "connect_timeout": 9},
    ):
        conn = await t.connect(**given)
        _ = conn.autocommit, conn.prepare_threshold, conn.closed, conn.broken
        t.told("row factory", plain(conn).row_factory)
        t.told("cursor", plain(conn).cursor())
        cur = await conn.execute("select current_setting('application_name') as name")
        await cur.fetchone()
    for wrong in ({"dbname": "absent"}, {"user": "nobody_of_this_name"}, {"password": "wrong"}):
        await tried(t.connect(**wrong))
    await tried(t.connect(nonsense="1"))
    await tried(t.connect("not a conninfo"))
    await tried(t.connect(options="-csearch_path"))


async def classes(t: Ground) -> None:
    """What kind of class it is: bases, the exceptions of PEP 249, signatures, the types that it makes."""
    conn = await t.connect()
    raw = plain(conn)
    for name in ERRORS:
        t.told(name, getattr(conn, name))
    t.told("is an instance", isinstance(raw, stock_class(raw)))
    t.told("is its module's connection", isinstance(raw, psycopg.BaseConnection))
    for name in sorted(vars(stock_class(raw)).keys() | vars(psycopg.BaseConnection).keys()):
        member = getattr(type(raw), name)
        if not name.startswith("_") and callable(member) and not isinstance(member, type):
            takes = [(p.name, p.kind, p.default) for p in inspect.signature(member).parameters.values()]
            t.told("signature", (name, takes, inspect.iscoroutinefunction(member)))
    t.told("repr", raw)
    t.told("repr's words", repr(raw).partition("[")[2].partition(" at ")[0])
    await tried(lambda: pickle.dumps(raw))
    _ = conn.lock, conn.pgconn, conn.connection, conn.cursor_factory, conn.server_cursor_factory, conn.row_factory
    conn.fileno()


async def attributes(t: Ground) -> None:
    """The settings of a transaction, by attribute and by setter, outside and inside of one."""
    conn = await t.connect()
    for inside in (False, True):
        if inside:
            await conn.execute("select 1")
        for name, value in {
            "isolation_level": psycopg.IsolationLevel.SERIALIZABLE,
            "read_only": True,
            "deferrable": True,
            "autocommit": True,
        }.items():
            setattr(conn, name, value)
            getattr(conn, name)
            setter = getattr(conn, f"set_{name}")
            await tried(setter(value))
            getattr(conn, name)
            await tried(setter("nonsense"))
            await tried(setter(False if name == "autocommit" else None))
            getattr(conn, name)
    await conn.rollback()
    for name, value in {"isolation_level": 2, "read_only": False, "deferrable": False}.items():
        await tried(getattr(conn, f"set_{name}")(value))
        getattr(conn, name)
    await conn.rollback()
    query = "select current_setting('transaction_isolation'), current_setting('transaction_read_only')"
    await (await conn.execute(query)).fetchone()
    conn.prepare_threshold = 2
    conn.prepared_max = 3
    _ = conn.prepare_threshold, conn.prepared_max
    conn.prepared_max = None
    _ = conn.prepared_max


async def information(t: Ground) -> None:
    """`info`, all of it, on a connection that is open and on one that is closed."""
    conn = await t.connect()
    info = conn.info
    await conn.execute("set time zone 'Europe/Vienna'")
    for closed in (False, True):
        for name in sorted(each for each in dir(plain(info)) if not each.startswith("_")):
            if name == "get_parameters":
                await tried(info.get_parameters)
            elif name == "parameter_status":
                for parameter in ("server_encoding", "in_hot_standby", "absent"):
                    await tried(lambda p=parameter: info.parameter_status(p))
            else:
                await tried(lambda n=name: getattr(info, n))
        if not closed:
            await conn.close()


async def failures(t: Ground) -> None:
    """Errors of the server: class, SQLSTATE, message, diagnostics, and what they leave behind; they can be pickled."""
    conn = await t.connect()
    await conn.execute("create table t (id int primary key, n int not null check (n > 0), u text unique)")
    await conn.execute("insert into t values (1, 1, 'u')")
    await conn.commit()
    for statement in (
        "insert into t values (1, 1, 'v')",
        "insert into t values (2, null, 'v')",
        "insert into t values (2, 0, 'v')",
        "insert into t values (2, 1, 'u')",
        "select syntax error",
        "select * from absent",
        "select absent from t",
        "select 1/0",
        "select 'x'::int",
        "select %s",
        "do $$ begin raise exception using message = 'mine', errcode = 'ZZ123', detail = 'd', hint = 'h'; end $$",
        "set transaction isolation level serializable; select 1; set transaction isolation level serializable",
        "",
    ):
        await tried(conn.execute(statement))
        _ = conn.info.transaction_status
        await tried(conn.execute("select 'after'"))
        await conn.rollback()
    await tried(conn.execute("select %s, %s", [1]))
    await tried(conn.execute("select %s", [object()]))
    await tried(conn.execute("select %(a)s", [1]))
    await tried(conn.execute("select 1; select 2", binary=True))


async def lost(t: Ground) -> None:
    """A connection that the server ends."""
    conn, other = await t.connect(), await t.connect(autocommit=True)
    await conn.execute("select 1")
    await other.execute("select pg_terminate_backend(%s, 10000)", [plain(conn).info.backend_pid])
    await tried(conn.execute("select 1"))
    _ = conn.closed, conn.broken, conn.info.status, conn.info.transaction_status
    for action in (conn.commit, conn.rollback, lambda: conn.execute("select 1"), conn.cancel_safe):
        await tried(action)
    await conn.close()
    _ = conn.closed, conn.broken


async def forgotten(t: Ground) -> None:
    """A connection that was not closed says so when it is collected."""
    made = await t.make.connect(t.conninfo)
    raw = plain(made)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del made, raw
        gc.collect()
    t.told("warned", sorted({(each.category.__name__, str(each.message).partition("[")[2][:4]) for each in caught}))


async def adapting(t: Ground) -> None:
    """Adapters of a connection, and types that are fetched through it."""

    class Point:
        def __init__(self, x: int) -> None:
            self.x = x

    class PointDumper(Dumper):
        def dump(self, obj: Point) -> bytes:
            return str(obj.x).encode()

    class Doubled(Loader):
        def load(self, data: bytes) -> int:
            return 2 * int(bytes(data))

    conn = await t.connect()
    await conn.execute("create type pair as (a int, b text)")
    await conn.execute("create type mood as enum ('sad', 'ok')")
    await conn.execute("create type span as range (subtype = int)")
    adapters = conn.adapters
    adapters.register_dumper(Point, PointDumper)
    adapters.register_loader("int4", Doubled)
    await (await conn.execute("select %s::int", [Point(21)])).fetchone()
    await (await conn.execute("select 1", binary=True)).fetchone()
    for kind, name in ((TypeInfo, "text"), (CompositeInfo, "pair"), (EnumInfo, "mood"), (RangeInfo, "span")):
        info = kind.fetch(plain(conn), name)
        info = await info if inspect.isawaitable(info) else info
        t.told("type", (type(info).__name__, info.name, sorted(vars(info).keys())))
        info.register(plain(conn))
    await (await conn.execute("select (1, 'x')::pair, 'ok'::mood, '[1,3)'::span, 'x'::text")).fetchone()
    absent = TypeInfo.fetch(plain(conn), "absent")
    t.told("absent", await absent if inspect.isawaitable(absent) else absent)
    t.told("sql", psycopg.sql.SQL("{} {}").format(psycopg.sql.Identifier("a"), "b'").as_string(plain(conn)))
    other = await t.connect()
    await (await other.execute("select 1")).fetchone()


async def row_factories(t: Ground) -> None:
    """Row factories, of the connection and of the cursor."""
    conn = await t.connect()
    made = [tuple_row, dict_row, namedtuple_row, scalar_row, class_row(Thing), args_row(Thing), kwargs_row(Thing)]
    for factory in made:
        conn.row_factory = factory
        await (await conn.execute("select 1 as a, 'x' as b")).fetchone()
        cur = conn.cursor(row_factory=tuple_row)
        await cur.execute("select 2 as a, 'y' as b")
        await cur.fetchall()
    conn.cursor_factory = psycopg.RawCursor if t.mode == "sync" else psycopg.AsyncRawCursor
    await tried((await conn.execute("select $1::int as a, 'z' as b", [3])).fetchone())
    server = psycopg.ServerCursor if t.mode == "sync" else psycopg.AsyncServerCursor
    conn.server_cursor_factory = server
    for how in ({"name": "named"}, {"binary": True}, {"name": "named", "scrollable": True, "row_factory": dict_row}):
        await conn.cursor(**how).close()
    await tried(lambda: conn.cursor(nonsense=True))


async def waiting(t: Ground) -> None:
    """`wait`, driven by a generator of psycopg's own; the results are libpq's."""
    conn = await t.connect(autocommit=True)
    raw = plain(conn)
    raw.pgconn.send_query_params(b"select 1, 'x'", None)
    results = await conn.wait(generators.execute(raw.pgconn))
    t.told("results", [(each.status, each.get_value(0, 1)) for each in results])
    raw.pgconn.send_query_params(b"select 1/0", None)
    results = await conn.wait(generators.execute(raw.pgconn))
    t.told("results", [each.status for each in results])
    t.told("status", pq.TransactionStatus(raw.pgconn.transaction_status))


CASES = [
    connecting,
    classes,
    attributes,
    information,
    failures,
    lost,
    forgotten,
    adapting,
    row_factories,
    waiting,
]
