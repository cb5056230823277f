"""A promotion that is cut short: what the servers do is real, the moment of the fault is chosen."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import socket

import pymysql
import pytest

from aurora_router_cluster.errors import ClusterError, FailoverImpossibleError
from aurora_router_cluster.mysql.cluster import MySqlCluster
from aurora_router_cluster.mysql.server import Server
from aurora_router_cluster.options import ClusterOptions
from aurora_router_cluster.postgres import processes
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.registry import ClusterDirectory, make_run_directory

pytestmark = pytest.mark.cluster


@contextlib.asynccontextmanager
async def serve(*, auto, readers=2):
    """A cluster in this process."""
    key = f"promotion-{secrets.token_hex(4)}"
    options = ClusterOptions(name="demo", key=key, readers=readers, engine="mysql", auto=auto)
    home = ClusterDirectory(key)
    home.claim()
    run = make_run_directory(None, readers + 1, Account.default(), 40)
    served = MySqlCluster(options, home, run)
    try:
        await served.start()
        yield served.cluster
    finally:
        await served.close()
        home.release()
        shutil.rmtree(run, ignore_errors=True)


def fault_at(monkeypatch, statement, fault):
    """Do `fault(server)` once, just before a server is sent `statement`."""
    whole, done = Server.query, []

    async def query(self, *statements, **more):
        if not done and any(statement in each for each in statements) and self.pid is not None:
            done.append(self)
            fault(self)
        return await whole(self, *statements, **more)

    monkeypatch.setattr(Server, "query", query)
    return done


def stop(server):
    """The process stands still, and the control plane does not know."""
    processes.freeze(server.pid)


def cut(server):
    """The session of the control plane is lost, and the server lives."""
    server._session._sock.shutdown(socket.SHUT_RDWR)


async def until(condition, seconds=40.0):
    async def look():
        while not condition():  # noqa: ASYNC110 - of processes
            await asyncio.sleep(0.01)

    await asyncio.wait_for(look(), seconds)


async def ask(instance, sql):
    def work():
        login = {"user": "app", "password": "app", "database": "app", "autocommit": True, "ssl_disabled": True}
        connection = pymysql.connect(host=instance.address.host, port=instance.address.port, read_timeout=20, **login)
        with contextlib.closing(connection), connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetchall()

    return await asyncio.to_thread(work)


def is_whole(cluster):
    return cluster.writer is not None and all(each.available for each in cluster.instances.values())


@pytest.mark.parametrize("statement", ["STOP SLAVE IO_THREAD", "rpl_semi_sync_master_enabled = ON", "read_only = OFF"])
@pytest.mark.parametrize("fault", [Server.kill, stop, cut], ids=["killed", "hung", "cut"])
def test_the_chosen_reader_fails_while_it_is_promoted(mariadb, monkeypatch, statement, fault):
    """The cluster is whole again, takes writes, and has every acknowledged one."""

    async def scenario():
        async with serve(auto=True) as cluster:
            former = cluster.writer
            await ask(former, "create table t (i int)")
            await ask(former, "insert into t values (1)")
            met = fault_at(monkeypatch, statement, fault)
            former.server.kill()
            await until(lambda: met and cluster.writer is not former and is_whole(cluster))
            await ask(cluster.writer, "insert into t values (2)")
            assert await ask(cluster.writer, "select i from t order by i") == ((1,), (2,))

    asyncio.run(scenario())


def test_the_new_writer_is_lost_before_its_readers_have_what_it_was_promoted_with(mariadb, monkeypatch):
    """It is started again: another reader has received less, and would lose an acknowledged commit."""

    async def scenario():
        async with serve(auto=False) as cluster:
            former, (has_all, has_less) = cluster.writer, cluster.readers
            await ask(former, "create table t (i int)")
            await has_less.server.query("STOP SLAVE IO_THREAD")
            await ask(former, "insert into t values (1)")
            former.server.kill()
            fault_at(monkeypatch, "read_only = OFF", Server.kill)
            with pytest.raises(ClusterError):
                await cluster.fail_over(None)
            assert cluster.writer is has_all
            with pytest.raises(FailoverImpossibleError, match="no reader has all that was acknowledged"):
                await cluster.fail_over(None)
            assert await ask(has_all, "select i from t") == ((1,),)
            await ask(has_all, "insert into t values (2)")  # which a reader acknowledges again
            done = await cluster.fail_over(has_less.name)
            assert done.writer == has_less.name
            assert await ask(has_less, "select i from t order by i") == ((1,), (2,))

    asyncio.run(scenario())


@pytest.mark.parametrize("fault", [Server.kill, cut], ids=["killed", "cut"])
def test_a_planned_failover_to_a_reader_that_fails(mariadb, monkeypatch, fault):
    """The writer goes on, and nothing listens for the reader, whose server is down."""

    async def scenario():
        async with serve(auto=False) as cluster:
            former, chosen = cluster.writer, cluster.readers[0]
            await ask(former, "create table t (i int)")
            fault_at(monkeypatch, "RESET SLAVE ALL", fault)
            with pytest.raises(FailoverImpossibleError, match="is still the writer"):
                await cluster.fail_over(chosen.name)
            assert cluster.writer is former
            await ask(former, "insert into t values (1)")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((chosen.address.host, chosen.address.port), 5)

    asyncio.run(scenario())


@pytest.mark.parametrize("readers", [0, 1])
def test_what_a_writer_acknowledged_by_itself_is_not_replaced(mariadb, readers):
    """A reader that does not follow yet is no holder: the writer is started again on its own data."""

    async def scenario():
        async with serve(auto=False, readers=readers) as cluster:
            writer = cluster.writer
            await ask(writer, "create table t (i int)")
            if readers:
                (alone,) = cluster.readers
                alone.held = True
                alone.server.kill()
                alone.state = "stopped"
            await cluster.update_holders()
            assert not cluster.semi_sync
            assert not cluster.holders
            await ask(writer, "insert into t values (1)")
            writer.server.kill()
            writer.state = "stopped"
            with pytest.raises(FailoverImpossibleError, match="no reader is known to have all"):
                await cluster.fail_over(None)

    asyncio.run(scenario())


def test_a_reader_that_has_joined_has_to_catch_up_before_it_replaces_the_writer(mariadb):
    async def scenario():
        async with serve(auto=False, readers=1) as cluster:
            former = cluster.writer
            await ask(former, "create table t (i int)")
            done = await cluster.fail_over(None)  # planned: the new writer waits for no reader at first
            writer = cluster.get(done.writer)
            await until(lambda: former.available)
            await former.server.query("STOP SLAVE IO_THREAD")
            for number in range(20):
                await ask(writer, f"insert into t values ({number})")  # no reader has any of them
            await cluster.update_holders()
            assert cluster.semi_sync
            writer.server.kill()
            with pytest.raises(FailoverImpossibleError, match="no reader has all that was acknowledged"):
                await cluster.fail_over(None)
            assert cluster.writer is writer
            assert await ask(writer, "select count(*) from t") == ((20,),)

    asyncio.run(scenario())
