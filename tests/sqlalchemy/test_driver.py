"""Whatever SQLAlchemy offers to replace the driver's connect is respected, as with the stock dialect."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

import aurora_router

SCHEMES = ["postgresql+psycopg", "postgresql+aurora"]
NOWHERE = "://app:app@127.0.0.1:1/app"


class Mine(psycopg.OperationalError):
    """Raised by what took the place of the driver's connect."""


def replaced(*args, **kwargs):
    raise Mine(f"called with {kwargs.get('host')}")


def refused(engine):
    """The driver's error when an engine connects; engines of asyncio in their greenlet."""
    with pytest.raises(exc.OperationalError) as caught:
        engine.connect()
    return caught.value.orig


def run(scheme, mode, check, **options):
    if mode == "sync":
        return check(sa.create_engine(scheme + NOWHERE, **options))

    async def awaited():
        engine = create_async_engine(scheme + NOWHERE, **options)
        return await greenlet_spawn(check, engine.sync_engine)

    return asyncio.run(awaited())


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.case
def test_the_connect_of_the_loaded_driver(scheme, mode, monkeypatch):
    def check(engine):
        monkeypatch.setattr(engine.dialect.loaded_dbapi, "connect", replaced)
        return refused(engine)

    assert str(run(scheme, mode, check)) == "called with 127.0.0.1"


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_listener_that_connects_by_itself(scheme, mode):
    def check(engine):
        event.listen(engine, "do_connect", lambda dialect, record, cargs, cparams: replaced(**cparams))
        return refused(engine)

    assert str(run(scheme, mode, check)) == "called with 127.0.0.1"


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.case
def test_a_module_of_ones_own(scheme):
    class Driver:
        connect = staticmethod(replaced)

        def __getattr__(self, name):
            return getattr(psycopg, name)

    assert str(run(scheme, "sync", refused, module=Driver())) == "called with 127.0.0.1"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_creator(scheme):
    assert str(run(scheme, "sync", refused, creator=replaced)) == "called with None"


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_without_any_of_them_the_connection_is_ours(mode):
    def check(engine):
        return refused(engine)

    options = {"connect_args": {"aurora_failover_timeout": 0}}
    assert isinstance(run("postgresql+aurora", mode, check, **options), aurora_router.NoInstanceAvailable)


def test_what_is_replaced_for_one_engine_is_not_for_another(monkeypatch):
    first, second = (sa.create_engine("postgresql+aurora" + NOWHERE) for _ in range(2))
    monkeypatch.setattr(first.dialect.loaded_dbapi, "connect", replaced)
    assert second.dialect.loaded_dbapi.connect == aurora_router.Connection.connect
    assert first.dialect.loaded_dbapi.OperationalError is psycopg.OperationalError
