from __future__ import annotations

import asyncio

import pytest

pytestmark = pytest.mark.cluster


async def test_an_answer_is_a_sample(instance):
    await instance.sample(timeout=10)
    assert instance.missed == 0
    assert not instance.newest.recovering
    assert instance.newest.received > 0


async def test_a_slow_server_owes_one_answer_on_one_session(instance):
    await instance.sample(timeout=10)
    backend = (await instance.session.query("select pg_backend_pid()"))[0][0]
    before = instance.newest
    instance.engine.freeze()
    for beat in range(1, 4):
        await instance.sample(timeout=0.02)
        assert instance.missed == beat
    instance.engine.thaw()
    await instance.sample(timeout=10)
    assert instance.missed == 0
    assert instance.newest is not before
    assert (await instance.session.query("select pg_backend_pid()"))[0][0] == backend


async def test_two_who_wait_for_the_same_answer(instance):
    await asyncio.gather(*(instance.sample(timeout=10) for _ in range(3)))
    assert len(instance.samples) == 1
    assert instance.missed == 0


async def test_a_dead_server_is_missed(instance):
    instance.engine.kill()
    await instance.sample(timeout=10)
    assert instance.missed == 1
    assert instance.pid is None


async def test_what_was_asked_of_a_server_that_is_no_more_is_forgotten(instance):
    await instance.sample(timeout=10)
    instance.engine.freeze()
    await instance.sample(timeout=0.01)
    instance.forget()
    assert (instance.missed, instance.newest, instance.lag) == (0, None, None)
    instance.engine.thaw()
    await instance.sample(timeout=10)
    assert instance.missed == 0
