from __future__ import annotations

import asyncio

import pytest

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres.endpoints import EngineAddress
from aurora_router_cluster.postgres.session import Session

pytestmark = pytest.mark.cluster


@pytest.fixture
async def engine(make_engine, template):
    engine = make_engine()
    await engine.clone(template)
    engine.configure({}, standby=False)
    engine.start()
    await engine.wait()
    return engine


@pytest.fixture
async def session(engine):
    session = Session(EngineAddress(engine.name, engine.home, engine.port, "postgres", engine.data))
    yield session
    session.close()


async def test_rows_are_text_and_null(session):
    assert await session.query("select 1, null, '', 'ä' union all select 2, 'x', 'y', 'z'") == [
        ("1", None, "", "ä"),
        ("2", "x", "y", "z"),
    ]
    assert await session.query("create table t (i int)") == []
    assert await session.query("select 1; select 2") == [("2",)]


async def test_an_error_has_the_server_s_words_and_the_next_query_works(session):
    with pytest.raises(EngineError, match=r'ERROR 42P01: relation "nosuch" does not exist'):
        await session.query("select * from nosuch")
    assert await session.query("select 1") == [("1",)]


async def test_queries_at_once_wait_for_each_other(session):
    answers = await asyncio.gather(*(session.query(f"select {n}") for n in range(10)))
    assert [answer[0][0] for answer in answers] == [str(n) for n in range(10)]


async def test_a_frozen_server_costs_no_more_than_the_deadline(session, engine):
    await session.query("select 1")
    engine.freeze()
    with pytest.raises(EngineError, match=r"did not answer within 0\.1 s"):
        await session.query("select 1", timeout=0.1)
    engine.thaw()
    assert await session.query("select 2") == [("2",)]


async def test_a_dead_server_is_reported(session, engine):
    await session.query("select 1")
    engine.kill()
    for _ in range(2):
        with pytest.raises(EngineError, match="ended the connection, or refused it"):
            await session.query("select 1")


async def test_closing_fails_the_query_under_way(session):
    await session.query("select 1")
    under_way = asyncio.get_running_loop().create_task(session.query("select pg_sleep(60)", timeout=60))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    session.close()
    with pytest.raises(EngineError):
        await under_way
    assert await session.query("select 3") == [("3",)]
