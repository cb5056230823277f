"""Engines over a real cluster: the same check runs on the stock dialect and on ours, sync and async."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.util import greenlet_spawn

DRIVERS = {"stock": "postgresql+psycopg", "aurora": "postgresql+aurora"}


@dataclass(frozen=True)
class Kind:
    """One way to make an engine; `run` hands a (sync) engine to a check, in a greenlet where it is an async one."""

    cluster: object
    dialect: str
    is_async: bool

    def url(self, target="writer", **query):
        return self.cluster.url(target, DRIVERS[self.dialect], **query)

    def run(self, check, url=None, **options):
        url = url or self.url()
        if self.is_async:
            return asyncio.run(self._awaited(check, url, options))
        engine = sa.create_engine(url, **options)
        try:
            return check(engine)
        finally:
            engine.dispose()

    @staticmethod
    async def _awaited(check, url, options):
        engine = create_async_engine(url, **options)
        try:
            return await greenlet_spawn(check, engine.sync_engine)
        finally:
            await engine.dispose()


def _kinds(*dialects):
    return [pytest.param((each, mode), id=f"{each}-{mode}") for each in dialects for mode in ("sync", "async")]


@pytest.fixture(params=_kinds("stock", "aurora"))
def kind(request, aurora_cluster):
    """All four; what a test asserts holds for each of them."""
    dialect, mode = request.param
    return Kind(aurora_cluster, dialect, mode == "async")


@pytest.fixture(params=_kinds("aurora"))
def ours(request, aurora_cluster):
    """Our two, for what the stock dialect can't do."""
    dialect, mode = request.param
    return Kind(aurora_cluster, dialect, mode == "async")


@pytest.fixture
def stock_of(aurora_cluster):
    """The stock counterpart of a kind."""
    return lambda kind: Kind(aurora_cluster, "stock", kind.is_async)


@pytest.fixture
def table(aurora_cluster):
    """A name that no other test uses; the table, if one was made, is dropped."""
    name = f"t_{secrets.token_hex(6)}"
    yield name
    engine = sa.create_engine(aurora_cluster.url(driver=DRIVERS["stock"]))
    with engine.begin() as connection:
        connection.exec_driver_sql("set lock_timeout = '5s'")  # a test that failed may have left a lock
        connection.exec_driver_sql(f"drop table if exists {name}")
    engine.dispose()
