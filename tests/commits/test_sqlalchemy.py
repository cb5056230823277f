"""The same cuts under SQLAlchemy: engine, session and sessionmaker, sync and async."""

from __future__ import annotations

import asyncio
import contextlib

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

import aurora_router
from aurora_router_sqlalchemy import run_transaction, run_transaction_async

from .relay import Cut
from .test_cut_off import rows

pytestmark = pytest.mark.cluster

CUTS = [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK, Cut.ANSWERED_FATAL, Cut.ANSWERED_CONFLICT]
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
    tokens = []
    try:
        for expected in (1, 2, 3):
            if cut is not None and expected == 2:
                pair.relays[pair.one].arm(cut)
            name = run_transaction(chosen, work, on_token=tokens.append)
            assert name == ("Connection" if source == "engine" else "Session")
            assert rows(pair) == expected
        assert cut is None or pair.relays[pair.one].done.is_set()
        assert len(tokens) == 3 + (cut is Cut.BEFORE_SEND) or cut is Cut.AFTER_SEND
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


class Second(Base):
    __tablename__ = "second"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.mark.case
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("is_hidden", [False, True])
@pytest.mark.parametrize("flushes", [False, True])
def test_a_session_with_a_second_engine_commits_nothing(pair, is_hidden, flushes):
    engine, other = sa.create_engine(url(pair)), sa.create_engine(url(pair))
    pair.run("create table second (id serial primary key); grant all on second, second_id_seq to app")
    maker = sessionmaker(engine, binds={Second: other})
    calls = []

    def both(session):
        calls.append(1)
        session.add(Row(n=1))
        session.add(Second())
        with contextlib.suppress(sa.exc.InvalidRequestError) if is_hidden else contextlib.nullcontext():
            if flushes:
                session.flush()

    for source in (maker, maker()):
        with pytest.raises(sa.exc.InvalidRequestError, match=r"second engine|rolled back"):
            run_transaction(source, both)
        assert run_transaction(source, lambda session: session.scalar(sa.select(sa.func.count(Row.id)))) == 0
    assert pair.value("select count(*) from second") == 0
    assert len(calls) == 2
    assert engine.pool.checkedout() == other.pool.checkedout() == 0
    engine.dispose()
    other.dispose()


@pytest.mark.case
@pytest.mark.filterwarnings("error")
def test_on_asyncio_a_second_engine_is_refused_too(pair):
    async def main():
        engine, other = create_async_engine(url(pair)), create_async_engine(url(pair))
        maker = async_sessionmaker(engine, binds={Second: other})

        async def both(session):
            session.add(Row(n=1))
            session.add(Second())

        with pytest.raises(sa.exc.InvalidRequestError, match="second engine"):
            await run_transaction_async(maker, both)
        await engine.dispose()
        await other.dispose()

    pair.run("create table second (id serial primary key); grant all on second, second_id_seq to app")
    asyncio.run(main())
    assert rows(pair) == 0
    assert pair.value("select count(*) from second") == 0


# ---------------------------------------------------------------- what SQLAlchemy makes of a resolved COMMIT


def listened(target):
    """The session hooks that are called, in order, but for those of savepoints."""
    fired = []

    def listen(name):
        def note(session):
            if not session.in_nested_transaction():
                fired.append(name)

        sa.event.listen(target, name, note)

    listen("after_commit")
    listen("after_rollback")
    return fired


def check_hooks(fired, cut):
    lost = [] if cut is Cut.AFTER_ACK else ["after_rollback"]
    assert fired == [*lost, "after_commit"]


@pytest.mark.case
@pytest.mark.parametrize("cut", [Cut.BEFORE_SEND, Cut.AFTER_ACK], ids=lambda cut: cut.name)
def test_hooks_and_objects_are_as_after_a_commit(pair, cut, caplog):
    engine = sa.create_engine(url(pair), pool_size=1, max_overflow=0, pool_timeout=5)
    with Session(engine) as session, session.begin():
        session.add(Row(n=1))
    session = Session(engine)
    known = session.scalars(sa.select(Row)).one()
    session.rollback()
    fired = listened(session)
    pair.relays[pair.one].arm(cut)

    def work(session):
        known.n += 1
        with session.begin_nested():
            added = Row(n=10)
            session.add(added)
        nested = session.begin_nested()
        session.add(Row(n=20))
        session.flush()
        nested.rollback()
        return added

    added = run_transaction(session, work)
    check_hooks(fired, cut)
    assert not session.in_transaction()
    for each in (known, added):
        state = sa.inspect(each)
        assert state.persistent
        assert not state.pending
        assert set(state.expired_attributes) == {"id", "n"}
    assert session.get(Row, known.id) is known
    assert (known.n, added.n) == (2, 10)
    assert sorted(session.scalars(sa.select(Row.n))) == [2, 10]
    session.close()
    assert engine.pool.checkedout() == 0
    engine.dispose()
    assert [each for each in caplog.records if each.name.startswith("sqlalchemy.pool")] == []


@pytest.mark.parametrize("cut", [Cut.BEFORE_SEND, Cut.AFTER_ACK], ids=lambda cut: cut.name)
def test_hooks_of_a_sessionmaker(pair, cut):
    engine = sa.create_engine(url(pair))
    maker = sessionmaker(engine, expire_on_commit=False)
    fired = listened(maker)
    pair.relays[pair.one].arm(cut)

    def work(session):
        row = Row(n=1)
        session.add(row)
        return row

    row = run_transaction(maker, work)
    check_hooks(fired, cut)
    assert sa.inspect(row).detached
    assert row.id is not None
    engine.dispose()


@pytest.mark.case
@pytest.mark.parametrize("cut", [Cut.BEFORE_SEND, Cut.AFTER_ACK], ids=lambda cut: cut.name)
def test_hooks_and_objects_on_asyncio(pair, cut, caplog):
    async def main():
        engine = create_async_engine(url(pair), pool_size=1, max_overflow=0, pool_timeout=5)
        session = AsyncSession(engine)
        fired = listened(session.sync_session)
        pair.relays[pair.one].arm(cut)

        async def work(session):
            row = Row(n=1)
            session.add(row)
            await session.flush()
            return row

        row = await run_transaction_async(session, work)
        check_hooks(fired, cut)
        assert sa.inspect(row).persistent
        await session.refresh(row)
        assert row.n == 1
        await session.close()
        assert engine.pool.checkedout() == 0
        await engine.dispose()

    asyncio.run(main())
    assert [each for each in caplog.records if each.name.startswith("sqlalchemy.pool")] == []


def test_hooks_where_the_outcome_is_unknown(pair):
    engine = sa.create_engine(url(pair) + "&aurora_outcome=off")
    session = Session(engine)
    fired = listened(session)
    pair.relays[pair.one].arm(Cut.AFTER_ACK)
    with pytest.raises(aurora_router.CommitOutcomeUnknown):
        run_transaction(session, work)
    assert fired == ["after_rollback"]
    assert run_transaction(session, work) == "Session"
    assert rows(pair) == 2
    session.close()
    engine.dispose()


@pytest.mark.case
@pytest.mark.parametrize("end", ["commit", "rollback then another"])
def test_a_work_that_ends_its_session_and_then_fails(pair, end):
    engine = sa.create_engine(url(pair))
    calls = []

    def work(session):
        calls.append(1)
        if end != "commit":
            session.rollback()
        session.add(Row(n=1))
        session.commit()
        raise sa.exc.OperationalError("x", {}, psycopg.errors.SerializationFailure("40001"))

    with pytest.raises(aurora_router.TransactionEnded):
        run_transaction(sessionmaker(engine), work)
    assert (rows(pair), len(calls)) == (1, 1)
    assert engine.pool.checkedout() == 0
    engine.dispose()


def test_a_session_of_two_phases_is_refused(pair):
    engine = sa.create_engine(url(pair))
    with pytest.raises(sa.exc.InvalidRequestError, match="two phases"):
        run_transaction(sessionmaker(engine, twophase=True), work)
    assert engine.pool.checkedout() == 0
    engine.dispose()


# ---------------------------------------------------------------- credentials that change


class Credentials:
    """A password that is given out at each connect by the hook that SQLAlchemy has for tokens."""

    def __init__(self, pair, engine, *, connects):
        self.pair, self.current = pair, "app"

        @sa.event.listens_for(engine, "do_connect")
        def connect(dialect, record, arguments, parameters):
            parameters["password"] = self.current
            return dialect.connect(*arguments, **parameters) if connects else None

    def change(self):
        self.pair.run("alter role app password 'new'")
        self.current = "new"


@pytest.mark.case
@pytest.mark.parametrize("connects", [False, True], ids=["parameters", "connection"])
def test_the_resolver_connects_with_the_password_of_the_moment(pair, connects):
    engine = sa.create_engine(url(pair), pool_size=1)
    credentials = Credentials(pair, engine, connects=connects)
    assert run_transaction(engine, work) == "Connection"
    credentials.change()
    pair.relays[pair.one].arm(Cut.AFTER_ACK)
    assert run_transaction(sessionmaker(engine), work) == "Session"
    assert rows(pair) == 2
    engine.dispose()


def test_the_resolver_connects_with_the_password_of_the_moment_on_asyncio(pair):
    async def main():
        engine = create_async_engine(url(pair), pool_size=1)
        credentials = Credentials(pair, engine.sync_engine, connects=False)
        await run_transaction_async(engine, work_async)
        credentials.change()
        pair.relays[pair.one].arm(Cut.AFTER_ACK)
        assert await run_transaction_async(engine, work_async) == "AsyncConnection"
        assert rows(pair) == 2
        await engine.dispose()

    asyncio.run(main())
