"""Connections on a real cluster: equal to psycopg's own, nothing leaked, evenly spread."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import linecache
import os
import signal
import socket
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

import aurora_router
from aurora_router import AsyncConnection, Connection, connect
from aurora_router.connection import _call_until, _Dial, _dial
from aurora_router.flow import connect as flow
from aurora_router.flow.attempt import AttemptFailed
from aurora_router.forks import STEPS
from aurora_router.policy.cluster_state import ClusterState
from aurora_router.policy.slow_start import DialLimit, SlowStart
from aurora_router.runtime import dns
from aurora_router.runtime.registry import REGISTRY

pytestmark = pytest.mark.cluster

SETTINGS = "select name, setting from pg_settings where name not in ('application_name') order by name"


@pytest.fixture(scope="module")
def started():
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=5) as cluster:
        yield cluster


@pytest.fixture
def cluster(started, monkeypatch):
    """The cluster, reached without the monitor, whose own sockets and waiters come and go."""
    plain = started.conninfo
    monkeypatch.setattr(started, "conninfo", lambda *args, **extra: plain(*args, aurora_monitor="off", **extra))
    return started


@pytest.fixture(autouse=True)
def nothing_known():
    REGISTRY.reset()
    dns.forget()


def states():
    return list({id(each): each for each in REGISTRY._clusters.values()}.values())


def sockets():
    """The TCP sockets that this process has open to another one."""
    gc.collect()
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            link = str(entry.readlink())
        except OSError:
            continue
        if link.startswith("socket:"):
            found.append(link[8:-1])
    established = {
        fields[9]
        for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] in {"01", "02", "08"}
    }
    return {each for each in found if each in established}


def eventually(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


async def soon(condition, seconds=20.0):
    """The same, while the event loop goes on."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        await asyncio.sleep(0.01)


# ---------------------------------------------------------------- equal to stock


def described(connection):
    """What a user can see of a fresh connection."""
    pgconn = connection.pgconn
    status = pgconn.transaction_status
    with connection.cursor() as cursor:
        settings = cursor.execute(SETTINGS).fetchall()
        prepared = cursor.execute("select count(*) from pg_prepared_statements").fetchone()
        cursors = cursor.execute("select count(*) from pg_cursors").fetchone()
    connection.rollback()
    return {
        "status": status,
        "settings": settings,
        "prepared": prepared,
        "cursors": cursors,
        "autocommit": connection.autocommit,
        "isolation": connection.isolation_level,
        "read_only": connection.read_only,
        "prepare_threshold": connection.prepare_threshold,
        "row_factory": connection.row_factory,
        "nonblocking": pgconn.nonblocking,
        "notices": len(connection._notice_handlers),
        "hostaddr": connection.info.hostaddr,
        "dbname": connection.info.dbname,
        "user": connection.info.user,
        "encoding": connection.info.encoding,
    }


@pytest.mark.parametrize("target", ["writer", "instance:demo-2"])
def test_first_and_later_connections_are_equal_to_stock(cluster, target):
    with psycopg.connect(cluster.plain_conninfo(target)) as stock:
        expected = described(stock)
    assert expected["status"] == psycopg.pq.TransactionStatus.IDLE
    for _ in range(2):
        with connect(cluster.conninfo(target)) as ours:
            assert isinstance(ours, psycopg.Connection)
            assert described(ours) == expected


async def test_asynchronous_connections_are_equal_to_stock(cluster):
    async def told(connection):
        status = connection.pgconn.transaction_status
        settings = await (await connection.execute(SETTINGS)).fetchall()
        prepared = await (await connection.execute("select count(*) from pg_prepared_statements")).fetchone()
        return status, settings, prepared, connection.autocommit, connection.prepare_threshold

    async with await psycopg.AsyncConnection.connect(cluster.plain_conninfo()) as stock:
        expected = await told(stock)
    for _ in range(2):
        async with await AsyncConnection.connect(cluster.conninfo()) as ours:
            assert isinstance(ours, psycopg.AsyncConnection)
            assert await told(ours) == expected


def test_arguments_of_psycopg_are_taken(cluster):
    from psycopg.rows import dict_row

    class Own(psycopg.Cursor):
        pass

    with connect(
        cluster.conninfo(), row_factory=dict_row, cursor_factory=Own, autocommit=True, prepare_threshold=None
    ) as connection:
        assert connection.execute("select 1 as one").fetchone() == {"one": 1}
        assert isinstance(connection.cursor(), Own)
        assert (connection.autocommit, connection.prepare_threshold) == (True, None)


def test_a_subclass_gets_its_own_class(cluster):
    class Mine(Connection):
        pass

    with Mine.connect(cluster.conninfo()) as connection:
        assert type(connection) is Mine


class Tagged(Connection):
    """A subclass that adds to what a dial is made with."""

    @classmethod
    def _get_connection_params(cls, conninfo, **kwargs):
        return {**super()._get_connection_params(conninfo, **kwargs), "application_name": "tagged"}


class Appended(Connection):
    """The same, a step later."""

    @classmethod
    def _connect_gen(cls, conninfo="", **kwargs):
        return super()._connect_gen(f"{conninfo} application_name=appended", **kwargs)


NAMED = "select current_setting('application_name')"


@pytest.mark.parametrize(("class_", "name"), [(Tagged, "tagged"), (Appended, "appended")])
def test_a_subclass_may_change_every_dial(cluster, class_, name):
    """psycopg is given no parameters where it need not parse them; a subclass is."""
    connect(cluster.conninfo()).close()
    for _ in range(3):
        with class_.connect(cluster.conninfo()) as connection:
            assert connection.execute(NAMED).fetchone() == (name,)


def test_a_tool_that_wraps_psycopgs_connect_sees_every_dial(cluster, monkeypatch):
    whole, seen = psycopg.Connection.connect.__func__, []

    @classmethod
    def traced(cls, conninfo="", **kwargs):
        seen.append(kwargs["hostaddr"])
        return whole(cls, conninfo, **{**kwargs, "application_name": "traced"})

    connect(cluster.conninfo()).close()
    monkeypatch.setattr(psycopg.Connection, "connect", traced)
    for _ in range(3):
        with connect(cluster.conninfo()) as connection:
            assert connection.execute(NAMED).fetchone() == ("traced",)
    assert len(seen) == 3


def test_native_errors_stay_native(cluster):
    with connect(cluster.conninfo()) as connection, pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("select 1/0")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed") as caught:
        connect(cluster.conninfo(password="wrong"))
    assert not isinstance(caught.value, aurora_router.AuroraRouterError)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        connect(cluster.conninfo(dbname="nowhere"))


# ---------------------------------------------------------------- placement


def test_placement_tells_where_and_why(cluster):
    with connect(cluster.conninfo("reader")) as connection:
        placement = connection.placement
        assert placement.instance in cluster.readers
        assert placement.current
        assert placement.reason
        assert placement.view.writer == cluster.writer
        (state,) = states()
        assert state.connections(placement.instance) == 1
    assert state.connections(placement.instance) == 0


def test_a_connection_that_is_forgotten_is_not_counted(cluster):
    connection = connect(cluster.conninfo("reader"))
    instance = connection.placement.instance
    (state,) = states()
    assert state.connections(instance) == 1
    with pytest.warns(ResourceWarning):
        connection = None
    assert state.connections(instance) == 0


def test_a_connection_made_otherwise_has_no_placement(cluster):
    with psycopg.connect(cluster.plain_conninfo()) as stock:
        ours = Connection(stock.pgconn)
        assert ours.placement is None
        ours.close()


# ---------------------------------------------------------------- nothing leaks


@pytest.mark.parametrize("step", ["routed", "learned", "asked", "dialled"])
async def test_a_cancelled_connect_leaks_nothing(cluster, monkeypatch, step):
    """Cancelled right after each of the awaits of a connect that learns, discards and dials again."""
    from aurora_router.runtime.libpq_runtimes import EventLoopRuntime

    wanted = {"routed": ("resolve", 1), "learned": ("dial", 1), "asked": ("ask", 1), "dialled": ("dial", 2)}
    kind, number = wanted[step]
    original, seen = getattr(EventLoopRuntime, kind), []

    async def cancelling(runtime, *args, **kwargs):
        result = await original(runtime, *args, **kwargs)
        seen.append(result)
        if len(seen) == number:
            running[0].cancel()
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if kind == "dial":
                    await result.close()
                raise
        return result

    monkeypatch.setattr(EventLoopRuntime, kind, cancelling)
    before = sockets()
    running = [asyncio.ensure_future(AsyncConnection.connect(cluster.conninfo(), aurora_role="reader"))]
    with pytest.raises(asyncio.CancelledError):
        await running[0]
    assert len(seen) == number
    running.clear()
    seen.clear()
    await soon(lambda: sockets() <= before)
    for state in states():
        assert not any(map(len, state._dialling.values()))
        assert state.begin_topology_query()


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.002, 0.004, 0.006, 0.008, 0.012])
async def test_connects_cancelled_at_any_moment_leak_nothing(cluster, delay):
    before = sockets()
    tasks = [asyncio.ensure_future(AsyncConnection.connect(cluster.conninfo("reader"))) for _ in range(4)]
    await asyncio.sleep(delay)
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, psycopg.AsyncConnection):
            await result.close()
    del tasks, task, result  # a traceback keeps what its frames hold, with stock psycopg as well
    await soon(lambda: sockets() <= before)
    for state in states():
        assert not any(map(len, state._dialling.values()))


def interrupted(monkeypatch, kind, conninfo, **options):
    """A blocking connect into which Ctrl-C falls at the beginning of a step."""
    from aurora_router.runtime import libpq_runtimes

    original = getattr(libpq_runtimes.BlockingRuntime, kind)

    async def interrupting(runtime, *args, **kwargs):
        monkeypatch.setattr(libpq_runtimes.BlockingRuntime, kind, original)
        os.kill(os.getpid(), signal.SIGINT)
        return await original(runtime, *args, **kwargs)

    monkeypatch.setattr(libpq_runtimes.BlockingRuntime, kind, interrupting)
    with pytest.raises(KeyboardInterrupt):
        connect(conninfo, **options)


@pytest.mark.parametrize("kind", ["resolve", "dial", "ask"])
def test_an_interrupted_connect_leaks_nothing(cluster, monkeypatch, kind):
    before = sockets()
    interrupted(monkeypatch, kind, cluster.conninfo(), aurora_role="reader")
    eventually(lambda: sockets() <= before)
    for state in states():
        assert not any(map(len, state._dialling.values()))
        assert state.begin_topology_query()
        state.end_topology_query()
    with connect(cluster.conninfo("reader")) as connection:
        assert connection.placement.instance in cluster.readers


def test_an_interrupt_while_waiting_for_a_writer(cluster, monkeypatch):
    """The wait for news ends at once, and no task is left on the list of those that wait."""
    with connect(cluster.conninfo()):
        pass
    (state,) = states()
    started = threading.Event()
    real = flow.choose_strategy

    async def fails(attempt):
        started.set()
        raise AttemptFailed("no writer")

    monkeypatch.setattr(flow, "choose_strategy", lambda attempt: fails)

    def interrupt():
        started.wait(20)
        while not state._waiters:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        connect(cluster.conninfo(), aurora_failover_timeout=30)
    thread.join()
    monkeypatch.setattr(flow, "choose_strategy", real)
    assert not state._waiters


# ---------------------------------------------------------------- many at once


def spread(placed, cluster):
    counts = Counter(placed)
    assert set(counts) <= set(cluster.readers)
    return max(counts.values()) - min(counts[each] for each in cluster.readers)


def test_threads_spread_over_the_readers(cluster):
    with ThreadPoolExecutor(25) as executor:
        found = list(executor.map(lambda _: connect(cluster.conninfo("reader")), range(50)))
    assert spread([each.placement.instance for each in found], cluster) <= 1
    for each in found:
        each.close()


async def test_tasks_spread_over_the_readers(cluster):
    found = await asyncio.gather(*(AsyncConnection.connect(cluster.conninfo("reader")) for _ in range(50)))
    assert spread([each.placement.instance for each in found], cluster) <= 1
    for each in found:
        await each.close()


@pytest.mark.parametrize(("balance", "most"), [("round_robin", 0), ("least_connections", 1), ("two_choices", 10)])
async def test_strategies_keep_their_promise(cluster, balance, most):
    options = {"aurora_balance": balance}
    async with await AsyncConnection.connect(cluster.conninfo()):
        pass
    found = await asyncio.gather(*(AsyncConnection.connect(cluster.conninfo("reader"), **options) for _ in range(50)))
    assert spread([each.placement.instance for each in found], cluster) <= most
    for each in found:
        await each.close()


def test_a_prefilled_pool_of_thirty_spreads(cluster):
    from psycopg_pool import ConnectionPool

    with ConnectionPool(
        cluster.conninfo("reader"), connection_class=Connection, min_size=30, max_size=30, open=True
    ) as pool:
        pool.wait(60)
        taken = [pool.getconn() for _ in range(30)]
        assert spread([each.placement.instance for each in taken], cluster) <= 1
        for each in taken:
            pool.putconn(each)


async def test_a_prefilled_asynchronous_pool_spreads(cluster):
    from psycopg_pool import AsyncConnectionPool

    async with AsyncConnectionPool(
        cluster.conninfo("reader"), connection_class=AsyncConnection, min_size=30, max_size=30, open=False
    ) as pool:
        await pool.wait(60)
        taken = [await pool.getconn() for _ in range(30)]
        assert spread([each.placement.instance for each in taken], cluster) <= 1
        for each in taken:
            await pool.putconn(each)


def test_a_blocking_dial_that_is_not_wanted_any_more_ends():
    """The server takes the connection and says nothing; psycopg looks up every tenth of a second."""
    wanted = iter([True, False])
    with socket.create_server(("127.0.0.1", 0)) as mute:
        params = {"host": "127.0.0.1", "port": mute.getsockname()[1]}
        until = time.monotonic() + 30.0
        with _Dial(None, until, lambda: next(wanted)), pytest.raises(psycopg.errors.ConnectionTimeout):
            psycopg.Connection.connect.__func__(aurora_router.Connection, "", **params)


# ---------------------------------------------------------------- exceptions of signal handlers


class _Interrupts:
    """A trace function that raises KeyboardInterrupt before the n-th different line of what connects.

    A signal handler runs between two instructions, but never between the end of a ``with`` block and its ``__exit__``
    (a lock's, at least), which a trace function would: what is traced there is left out.
    """

    def __init__(self, number, files):
        self.left = number
        self.files = files
        self.seen = set()
        self.entered = {}

    def __call__(self, frame, event, _):
        name = frame.f_code.co_filename
        return self.line if name.endswith(self.files) else None

    def line(self, frame, event, _):
        where = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and not self._leaves_with(frame, where):
            if where not in self.seen:
                self.left -= 1
            self.seen.add(where)
            if self.left == 0:
                raise KeyboardInterrupt(f"at {where[0]}:{where[1]}")
        return self.line

    def _leaves_with(self, frame, where):
        if not linecache.getline(*where).lstrip().startswith(("with ", "async with ")):
            return False
        return self.entered.setdefault((frame, where), frame.f_lasti) != frame.f_lasti


_FLOW = tuple(f"flow/{each.name}" for each in Path(flow.__file__).parent.glob("*.py"))
_CONNECTING = (*_FLOW, "runtime/blocking.py", "aurora_router/connection.py", "aurora_router/forks.py")
_ADMITTING = ("flow/dial_limiter.py", "flow/attempt.py")


def swept(files, prepare, conninfo, **options):
    """Interrupt a connect at each of its lines in turn; nothing may be taken afterwards."""
    before, number = sockets(), 0
    while True:
        number += 1
        prepare()
        interrupts, tracing = _Interrupts(number, files), sys.gettrace()
        sys.settrace(interrupts)
        try:
            connection = connect(conninfo, **options)
        except KeyboardInterrupt as caught:
            connection, where = None, str(caught)
        finally:
            sys.settrace(tracing)
            interrupts.entered.clear()
        if connection is not None:
            connection.close()
            return interrupts.seen
        assert sockets() <= before, where
        for state in states():
            assert not any(map(len, state._dialling.values())), where
            assert not any(map(len, state._connections.values())), where
            assert not state.is_querying_topology, where
            assert not state.dial_permits, where
            assert not state._lock._is_owned(), where
            assert not state.needed, where
        assert not len(STEPS.dials), where
        assert _call_until() == (None, None), where
        assert _dial.get() is None or _dial.get()() is None, where


@pytest.mark.one_python
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("path", ["cold", "after a failover"])
def test_a_connect_interrupted_at_any_line_leaks_nothing(cluster, path):
    conninfo, cold = cluster.conninfo(), path == "cold"
    with connect(conninfo):
        pass
    (known,) = states()

    def prepare():
        if cold:
            REGISTRY.reset()
        else:
            limit = DialLimit(known.view.epoch, SlowStart.begin(time.monotonic(), 0.0))
            known.update(ClusterState.change_dial_limit, limit)

    gc.freeze()
    try:
        files, role = (_CONNECTING, "reader") if cold else (_ADMITTING, "writer")
        lines = swept(files, prepare, conninfo, aurora_role=role)
    finally:
        gc.unfreeze()
    assert len(lines) > (300 if cold else 40)
    assert cold or known.slow_start.width == 2, (
        "the dial that was not interrupted was admitted, and reported its success"
    )


# ---------------------------------------------------------------- signal handlers that connect


class _Handler:
    """A trace function that acts as a signal handler before each different line of the library, once."""

    def __init__(self, handle):
        self.handle = handle
        self.seen = set()
        self.at = None

    def __call__(self, frame, event, _):
        return self.line if "/aurora_router/" in frame.f_code.co_filename else None

    def line(self, frame, event, _):
        where = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and where not in self.seen:
            self.seen.add(where)
            self.at = where
            self.handle()  # nothing is traced meanwhile
        return self.line


@contextlib.contextmanager
def no_longer_than(seconds, handler):
    """A thread that waits for a lock is woken by a signal."""

    def give_up(*_):
        sys.settrace(None)
        pytest.fail(f"the handler waits for what it interrupted, at {handler.at}")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.one_python
def test_a_signal_handler_may_connect_at_any_line_of_a_connect(cluster):
    conninfo, held = cluster.conninfo("reader"), []
    with connect(conninfo):
        pass

    def handle():
        held.append(connect(conninfo, aurora_failover_timeout=15))
        if len(held) > 8:
            held.pop(0).close()

    handler, tracing = _Handler(handle), sys.gettrace()
    with no_longer_than(150, handler):
        for path in ("cold", "cold", "warm"):
            if path == "cold":
                REGISTRY.reset()
                dns.forget()
            sys.settrace(handler)
            try:  # all handlers together take longer than a connect may
                connection = connect(conninfo, aurora_failover_timeout=140, aurora_connect_timeout=140)
                connection.execute("SELECT 1")
                connection.close()
            finally:
                sys.settrace(tracing)
    for each in held:
        each.close()
    assert len(handler.seen) > 600
    for known in states():
        assert not any(map(len, known._dialling.values()))
        assert not any(map(len, known._connections.values()))


@pytest.mark.parametrize("error", [ModuleNotFoundError("gone"), OSError(24, "no descriptor"), AttributeError("moved")])
def test_an_error_that_cannot_be_explained_is_raised_as_it_is(monkeypatch, error):
    """The library's files may be out of reach when the first connection is lost."""

    def fail(*_):
        raise error

    connection = object.__new__(aurora_router.Connection)
    connection.placement = object()
    monkeypatch.setattr("aurora_router.runtime.incidents.as_lost", fail)
    lost = psycopg.OperationalError("lost")
    assert connection._explain(lost) is lost
