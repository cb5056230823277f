"""The same cuts under SQLAlchemy: engine, session and sessionmaker, sync and async."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import aurora_router
from aurora_router_sqlalchemy import run_transaction, run_transaction_async

from .relay import Cut
from .test_cut_off import rows

pytestmark = pytest.mark.cluster

CUTS = [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK]
SOURCES = ["engine", "session", "sessionmaker"]


class Base(DeclarativeBase):
    pass


class Row(Base):
    __tablename__ = "ledger"
    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int]


@pytest.fixture
def pair(make_pair):
    pair = make_pair()
    pair.run("drop table ledger; create table ledger (id serial primary key, n int)")
    pair.run("grant all on ledger, ledger_id_seq to app")
    return pair


def url(pair):
    ports = [str(pair.relays[engine].port) for engine in (pair.one, pair.two)]
    query = (
        f"host=127.0.0.1:{ports[0]}&host=127.0.0.1:{ports[1]}&sslmode=disable&gssencmode=disable"
        "&aurora_source=postgresql"
    )
    return f"postgresql+aurora://app:app@/app?{query}"


def work(subject):
    if isinstance(subject, Session):
        subject.add(Row(n=1))
    else:
        subject.execute(sa.insert(Row).values(n=1))
    return type(subject).__name__


async def work_async(subject):
    if isinstance(subject, AsyncSession):
        subject.add(Row(n=1))
    else:
        await subject.execute(sa.insert(Row).values(n=1))
    return type(subject).__name__


@pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_sync(pair, cut, source):
    engine = sa.create_engine(url(pair))
    chosen = {"engine": engine, "session": Session(engine), "sessionmaker": sessionmaker(engine)}[source]
    tickets = []
    try:
        for expected in (1, 2, 3):
            if cut is not None and expected == 2:
                pair.relays[pair.one].arm(cut)
            name = run_transaction(chosen, work, on_ticket=tickets.append)
            assert name == ("Connection" if source == "engine" else "Session")
            assert rows(pair) == expected
        assert cut is None or pair.relays[pair.one].done.is_set()
        assert len(tickets) == 3 + (cut is Cut.BEFORE_SEND) or cut is Cut.AFTER_SEND
    finally:
        if isinstance(chosen, Session):
            chosen.close()
        engine.dispose()


@pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_async(pair, cut, source):
    async def main():
        engine = create_async_engine(url(pair))
        made = {"engine": engine, "session": AsyncSession(engine), "sessionmaker": async_sessionmaker(engine)}
        chosen = made[source]
        for expected in (1, 2, 3):
            if cut is not None and expected == 2:
                pair.relays[pair.one].arm(cut)
            name = await run_transaction_async(chosen, work_async)
            assert name == ("AsyncConnection" if source == "engine" else "AsyncSession")
            assert rows(pair) == expected
        assert cut is None or pair.relays[pair.one].done.is_set()
        await made["session"].close()
        await engine.dispose()

    asyncio.run(main())


def test_errors_stay_what_they_are_and_leave_the_pool_whole(pair):
    engine = sa.create_engine(url(pair), pool_size=1, max_overflow=0, pool_timeout=5)
    try:
        with pytest.raises(sa.exc.IntegrityError):
            run_transaction(engine, lambda c: [c.execute(sa.insert(Row).values(id=1, n=1)) for _ in range(2)])
        with pytest.raises(ZeroDivisionError):
            run_transaction(sessionmaker(engine), lambda s: (s.add(Row(n=1)), s.flush(), 1 / 0))
        with pytest.raises(aurora_router.TransactionEnded):
            run_transaction(engine, lambda c: c.commit())
        with Session(engine) as session:
            session.execute(sa.select(1))
            with pytest.raises(sa.exc.InvalidRequestError, match="has begun one"):
                run_transaction(session, work)
        assert run_transaction(engine, work) == "Connection"
        assert rows(pair) == 1
        assert engine.pool.checkedout() == 0
    finally:
        engine.dispose()


def test_the_engines_isolation_level_is_kept(pair):
    engine = sa.create_engine(url(pair), isolation_level="SERIALIZABLE")
    try:
        show = sa.text("show transaction_isolation")
        assert run_transaction(engine, lambda c: c.execute(show).scalar()) == "serializable"
        level = run_transaction(engine, lambda c: c.execute(show).scalar(), isolation="repeatable read")
        assert level == "repeatable read"
    finally:
        engine.dispose()


def test_conflicts_are_tried_again(pair):
    """Two transactions read what the other writes: SERIALIZABLE lets one of them fail, and it is run again."""
    engine = sa.create_engine(url(pair), isolation_level="SERIALIZABLE")
    other = sa.create_engine(url(pair), isolation_level="SERIALIZABLE")
    count = sa.select(sa.func.count()).select_from(Row)
    seen = []

    def both(connection):
        seen.append(connection.execute(count).scalar())
        if len(seen) == 1:
            with other.begin() as rival:
                rival.execute(count)
                rival.execute(sa.insert(Row).values(n=2))
        connection.execute(sa.insert(Row).values(n=1))

    try:
        run_transaction(engine, both)
        assert seen == [0, 1]
        assert rows(pair) == 2
    finally:
        engine.dispose()
        other.dispose()


def test_an_engine_of_another_dialect_is_refused(pair):
    engine = sa.create_engine(
        "postgresql+psycopg://postgres@/app", connect_args={"host": str(pair.one.home), "port": pair.one.port}
    )
    try:
        with pytest.raises(TypeError, match=r"postgresql\+aurora"):
            run_transaction(engine, work)
        assert engine.pool.checkedout() == 0
    finally:
        engine.dispose()
