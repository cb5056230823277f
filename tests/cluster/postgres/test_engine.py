from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import psycopg
import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import processes
from aurora_router_cluster.postgres.engine import State

pytestmark = pytest.mark.cluster


def connect(engine, dbname="app", **options):
    return psycopg.connect(
        host=str(engine.home), port=engine.port, user="postgres", dbname=dbname, autocommit=True, **options
    )


def eventually(condition, timeout=20.0):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


async def started(engine, template, extra=None, *, standby=False):
    await engine.clone(template)
    engine.configure(extra or {}, standby=standby)
    engine.start()
    await engine.wait()
    return engine


async def test_a_copy_of_the_template_starts_answers_and_stops(make_engine, template):
    engine = await started(make_engine(), template)
    assert engine.state() is State.READY
    with connect(engine) as connection:
        assert connection.execute("show cluster_name").fetchone() == ("one",)
        assert connection.execute("select version()").fetchone()[0].startswith(f"PostgreSQL {engine.binaries.version} ")
    await engine.stop()
    assert engine.state() is State.DOWN
    assert not engine.alive


async def test_a_standby_follows_and_is_promoted(make_engine, template):
    writer = await started(make_engine("writer"), template)
    follow = f"host={writer.home} port={writer.port} user=postgres application_name=reader"
    reader = make_engine("reader")
    await started(reader, template, {"primary_conninfo": follow}, standby=True)
    with connect(writer) as connection:
        connection.execute("create table t as select 42 as answer")
    with connect(reader) as connection:
        eventually(lambda: connection.execute("select to_regclass('t') is not null").fetchone()[0])
        assert reader.state() is State.STANDBY
        await writer.stop()
        await reader.promote()
        assert reader.state() is State.READY
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)
        connection.execute("insert into t values (43)")


async def test_kill_leaves_no_process(make_engine, template):
    engine = await started(make_engine(), template)
    with connect(engine) as connection:
        family = [engine.process.pid, *processes.children(engine.process.pid)]
        assert connection.info.backend_pid in family
        assert len(family) > 3
        engine.kill()
        eventually(lambda: all(map(processes.is_zombie, family)))
        assert engine.state() is State.DOWN
        with pytest.raises(psycopg.OperationalError):
            connection.execute("select 1")


async def test_a_frozen_instance_answers_nobody_and_thaws(make_engine, template):
    engine = await started(make_engine(), template)
    with connect(engine) as connection:
        engine.freeze()
        for pid in (engine.process.pid, connection.info.backend_pid):
            eventually(lambda pid=pid: processes.stat_fields(pid)[0] == "T")
        assert engine.alive
        assert engine.frozen
        connection.pgconn.send_query(b"select 7")
        connection.pgconn.flush()
        engine.thaw()
        assert connection.pgconn.get_result().get_value(0, 0) == b"7"
        while connection.pgconn.get_result():
            pass
        assert not engine.frozen


async def test_a_frozen_instance_can_be_stopped(make_engine, template):
    engine = await started(make_engine(), template)
    engine.freeze()
    await engine.stop()
    assert not engine.alive


async def test_a_start_that_fails_shows_the_servers_words(make_engine, template):
    engine = make_engine()
    await engine.clone(template)
    engine.configure({"shared_buffers": "nonsense"}, standby=False)
    engine.start()
    with pytest.raises(EngineError, match="shared_buffers"):
        await engine.wait()


async def test_asking_a_server_that_is_down_says_so(make_engine, template):
    engine = make_engine()
    await engine.clone(template)
    with pytest.raises(EngineError, match="one is not running"):
        engine.reload()


async def test_a_copy_that_fails_says_what_was_copied(make_engine, run_directory):
    with pytest.raises(EngineError, match="no-such-place"):
        await make_engine().clone(run_directory / "no-such-place")


async def test_start_after_kill(make_engine, template):
    engine = await started(make_engine(), template)
    engine.kill()
    engine.start()
    await engine.wait(State.READY)


def test_synchronous_code_can_use_it(make_engine, template):
    engine = asyncio.run(started(make_engine(), template))
    assert engine.state() is State.READY
    asyncio.run(engine.stop())


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_an_instance_ends_with_its_killed_starter(run_directory, template, binaries):
    program = textwrap.dedent(
        f"""
        import asyncio, signal
        from pathlib import Path
        from aurora_router_cluster.postgres import binaries
        from aurora_router_cluster.postgres.account import Account
        from aurora_router_cluster.postgres.engine import Engine
        account = Account.default()
        found = binaries.find(account, {str(binaries.directory)!r})
        engine = Engine("orphan", Path({str(run_directory)!r}) / "orphan", found, account)
        async def main():
            await engine.clone(Path({str(template)!r}))
            engine.configure({{}}, standby=False)
            engine.start()
            await engine.wait()
            print(engine.process.pid, flush=True)
        asyncio.run(main())
        signal.pause()
        """
    )
    starter = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    postmaster = int(starter.stdout.readline())
    assert processes.in_directory(run_directory)
    os.kill(starter.pid, signal.SIGKILL)
    starter.wait()
    starter.stdout.close()
    eventually(lambda: processes.is_zombie(postmaster))
    eventually(lambda: not [p for p in processes.in_directory(run_directory) if not processes.is_zombie(p)])


async def test_sweep_ends_frozen_leftovers(make_engine, template, run_directory):
    engine = await started(make_engine(), template)
    engine.freeze()
    assert processes.sweep(run_directory) > 3
    eventually(lambda: not engine.alive)  # seen as a zombie a moment before its parent can collect it
