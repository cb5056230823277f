"""The pools of `aurora_router.pool`, where nothing answers: their own deadlines hold."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time

import psycopg_pool
import pytest

from aurora_router.pool import (
    AsyncConnectionPool,
    AsyncNullConnectionPool,
    ConnectionPool,
    NullConnectionPool,
    _with_role,
)


@pytest.fixture
def silent():
    """A conninfo of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        yield f"host=127.0.0.1 port={listener.getsockname()[1]} user=x dbname=x aurora_monitor=off"


@pytest.fixture
def refused():
    """A conninfo of a port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"host=127.0.0.1 port={port} user=x dbname=x aurora_monitor=off"


@pytest.mark.case
def test_a_null_pool_hands_its_deadline_to_the_whole_connect(silent):
    with NullConnectionPool(silent, role="writer", open=True) as pool:
        began = time.monotonic()
        with pytest.raises(psycopg_pool.PoolTimeout), pool.connection(timeout=0.5):
            pass
        assert 0.4 < time.monotonic() - began < 1.9  # psycopg's own limit would be 2 s


async def test_a_null_pool_on_asyncio_does_as_well(silent):
    async with AsyncNullConnectionPool(silent, role="writer", open=False) as pool:
        began = time.monotonic()
        with pytest.raises(psycopg_pool.PoolTimeout):
            async with pool.connection(timeout=0.5):
                pass
        assert 0.4 < time.monotonic() - began < 1.9


def test_reconnect_failed_comes_when_the_pool_says(refused):
    failed = threading.Event()
    with ConnectionPool(
        refused, min_size=1, open=False, reconnect_timeout=0.5, reconnect_failed=lambda _: failed.set()
    ) as pool:
        assert failed.wait(10)  # aurora_failover_timeout is 60 s
        assert pool.get_stats()["connections_errors"] >= 1


async def test_reconnect_failed_on_asyncio_comes_when_the_pool_says(refused):
    failed = asyncio.Event()
    async with AsyncConnectionPool(
        refused, min_size=1, open=False, reconnect_timeout=0.5, reconnect_failed=lambda _: failed.set()
    ):
        await asyncio.wait_for(failed.wait(), 10)


def test_keywords_may_be_a_callable_that_is_asked_each_time():
    numbers = iter(range(9))
    resolve = _with_role(lambda: {"password": str(next(numbers))}, "reader")
    assert [resolve(), resolve()] == [{"password": str(number), "aurora_role": "reader"} for number in range(2)]
    assert _with_role({"user": "app"}, None) == {"user": "app"}
    assert _with_role(None, "any") == {"aurora_role": "any"}


async def test_and_an_awaited_one():
    async def token():
        return {"password": "x"}

    assert await _with_role(token, "reader")() == {"password": "x", "aurora_role": "reader"}


@pytest.mark.case
def test_a_forked_pool_is_used_by_no_thread_before_it_is_open_again(refused, monkeypatch):
    """A thread that came while another one opened it would get the parent's."""
    with contextlib.closing(ConnectionPool(refused, min_size=1, open=False)) as pool:
        pool._process = 0  # as in the child of a fork
        seen, made = [], psycopg_pool.ConnectionPool.__init__

        def observed(self, *args, **kwargs):
            seen.append(pool._process)
            made(self, *args, **kwargs)
            seen.append(pool._process)

        monkeypatch.setattr(psycopg_pool.ConnectionPool, "__init__", observed)
        with pytest.raises(psycopg_pool.PoolClosed):
            pool.getconn()
        assert (seen, pool._process) == ([0, 0], os.getpid())


@pytest.fixture(params=["refused", "silent"])
def outage(request):
    """The conninfo of a host where nothing listens, or where nothing is answered."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        if request.param == "silent":
            listener.listen()
        port = listener.getsockname()[1]
        yield f"host=127.0.0.1 port={port} user=app dbname=app sslmode=disable gssencmode=disable"


@pytest.mark.case
def test_a_pool_that_is_closed_in_an_outage_ends_its_connects(outage):
    """Its workers would go on for up to ``aurora_failover_timeout``; closing waits 5 s for each of them."""
    pool = ConnectionPool(outage, min_size=4, open=True)
    workers = [each for each in threading.enumerate() if each.name.startswith(pool.name)]
    began = time.monotonic()
    with pytest.raises(psycopg_pool.PoolTimeout):
        pool.wait(0.5)
    assert time.monotonic() - began < 5.0
    assert [each.name for each in workers if each.is_alive()] == []


@pytest.mark.case
async def test_the_same_on_asyncio(outage):
    pool = AsyncConnectionPool(outage, min_size=4, open=False)
    await pool.open()
    began = time.monotonic()
    with pytest.raises(psycopg_pool.PoolTimeout):
        await pool.wait(0.5)
    assert time.monotonic() - began < 5.0
