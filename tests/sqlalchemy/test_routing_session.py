"""Sessions that route, sync and async, on a cluster with readers that replay late."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
import yaml
from sqlalchemy import event, exc, orm
from sqlalchemy.ext.asyncio import async_sessionmaker

import aurora_router
from aurora_router import web
from aurora_router_sqlalchemy import (
    AsyncRoutingSession,
    RoutingSession,
    causal_token,
    create_async_engines,
    create_engines,
    routing_session,
    run_transaction,
)
from aurora_router_sqlalchemy.routing_session import Kind, judge
from benchmarks.causal import lagging_cluster
from tests.superuser import connect_as_superuser, hold_replay

KEY = b"k" * 32


class Base(orm.DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    __tablename__ = "note"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    text: orm.Mapped[str] = orm.mapped_column(server_default="")
    lines: orm.Mapped[list[Line]] = orm.relationship(cascade="all", order_by="Line.id")


class Line(Base):
    __tablename__ = "line"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    note_id: orm.Mapped[int] = orm.mapped_column(sa.ForeignKey("note.id"))


# ---------------------------------------------------------------- what a statement does

NOTES = sa.select(Note)
KINDS = {
    "select": (NOTES, Kind.READ),
    "select of columns": (sa.select(Note.__table__.c.id).where(Note.id > sa.func.abs(-1)), Kind.READ),
    "union": (sa.union(sa.select(Note.id), sa.select(Line.id)), Kind.READ),
    "cte": (sa.select(sa.select(Note.id).cte()), Kind.READ),
    "lambda": (sa.lambda_stmt(lambda: sa.select(Note)), Kind.READ),
    "lambda for update": (sa.lambda_stmt(lambda: sa.select(Note).with_for_update()), Kind.WRITE),
    "for update": (NOTES.with_for_update(), Kind.WRITE),
    "for share, in a subquery": (
        NOTES.where(Note.id.in_(sa.select(Line.note_id).with_for_update(read=True))),
        Kind.WRITE,
    ),
    "insert": (sa.insert(Note), Kind.WRITE),
    "update": (sa.update(Note).values(text=""), Kind.WRITE),
    "delete": (sa.delete(Note.__table__), Kind.WRITE),
    "entities of an insert": (sa.select(Note).from_statement(sa.insert(Note).returning(Note)), Kind.WRITE),
    "entities of a select": (sa.select(Note).from_statement(sa.select(Note)), Kind.READ),
    "select of a cte that inserts": (sa.select(sa.insert(Note).returning(Note.id).cte()), Kind.WRITE),
    "select with a cte that deletes": (sa.select(Note).add_cte(sa.delete(Line).cte()), Kind.WRITE),
    "next value of a sequence": (sa.select(sa.Sequence("s").next_value()), Kind.WRITE),
    "text": (sa.text("select 1"), Kind.UNKNOWN),
    "text with columns": (sa.text("select id from note").columns(Note.id), Kind.UNKNOWN),
    "a subquery of text": (sa.select(sa.text("select 1 as a").columns(sa.column("a")).subquery()), Kind.UNKNOWN),
    "entities of text": (sa.select(Note).from_statement(sa.text("select * from note")), Kind.UNKNOWN),
    "function": (sa.func.now(), Kind.UNKNOWN),
    "ddl": (sa.DDL("create table x ()"), Kind.UNKNOWN),
    "nothing": (None, Kind.UNKNOWN),
}


@pytest.mark.parametrize(("statement", "kind"), KINDS.values(), ids=KINDS)
def test_what_a_statement_does_is_read_from_its_object(statement, kind):
    assert judge(statement) is kind


# ---------------------------------------------------------------- on a cluster


@pytest.fixture(scope="module")
def cluster():
    with lagging_cluster("1 ms") as cluster:
        engine = sa.create_engine(cluster.url("writer"))
        Base.metadata.create_all(engine)
        engine.dispose()
        for reader in cluster.readers:
            wait_for_rows(cluster, reader, 0)
        yield cluster


@dataclass
class Sessions:
    """Both engines; `run` passes sessions to a check, one after the other, in a greenlet where they are async."""

    cluster: Any
    is_async: bool
    options: dict[str, Any]

    def run(self, check, *more, **options):
        return asyncio.run(self._run_async(check, more, options)) if self.is_async else self._run(check, more, options)

    def _run(self, check, more, options):
        self.engines = create_engines(self.cluster.url("writer"), **self.options)
        try:
            for one in (check, *more):
                with RoutingSession(self.engines.writer, readers=self.engines.readers, **options) as session:
                    found = one(session)
            self._check_nothing_is_held(self.engines)
            return found
        finally:
            for each in self.engines:
                each.dispose()

    async def _run_async(self, check, more, options):
        engines = create_async_engines(self.cluster.url("writer"), **self.options)
        self.engines = [each.sync_engine for each in engines]
        make = async_sessionmaker(engines.writer, class_=AsyncRoutingSession, readers=engines.readers, **options)
        try:
            for one in (check, *more):
                async with make() as session:
                    found = await session.run_sync(one)
            self._check_nothing_is_held(self.engines)
            return found
        finally:
            for each in engines:
                await each.dispose()

    @staticmethod
    def _check_nothing_is_held(engines):
        assert [each.pool.checkedout() for each in engines] == [0, 0]


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def sessions(request, cluster):
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as conn:
        conn.execute(
            "truncate note, line; insert into note values (1, 'one'), (2, 'two'); insert into line values (1, 1)"
        )
        lsn = conn.execute("select pg_current_wal_lsn()").fetchone()
    for name in cluster.readers:
        with connect_as_superuser(cluster, name) as conn:
            while conn.execute("select pg_last_wal_replay_lsn() >= %s", lsn).fetchone() != (True,):
                time.sleep(0.01)
    return Sessions(cluster, request.param, {})


WHERE = sa.select(sa.func.pg_is_in_recovery())
RAW = sa.text("select pg_is_in_recovery()")


def on_reader(session, statement=WHERE, **options):
    return session.scalar(statement, **options)


def there(session, id_):
    return session.scalar(sa.select(Note.text).where(Note.id == id_))


pytestmark = pytest.mark.cluster


class TestRules:
    """Which statement goes where, within one transaction."""

    def test_reads_go_to_a_reader_until_the_transaction_writes(self, sessions):
        def check(session):
            assert on_reader(session)
            note = session.get(Note, 1)
            assert [each.id for each in note.lines] == [1], "a lazy load reads"
            assert on_reader(session)
            note.text = "changed"
            assert session.scalar(sa.select(Note.text).where(Note.id == 1)) == "changed", "by the autoflush before it"
            assert not on_reader(session)
            session.rollback()
            assert on_reader(session), "the next transaction wrote nothing"
            assert there(session, 1) == "one"

        sessions.run(check)

    @pytest.mark.parametrize(
        "write",
        [
            lambda session: session.execute(sa.insert(Note).values(id=9)),
            lambda session: session.execute(sa.update(Note).values(text="x")),
            lambda session: session.execute(sa.delete(Line.__table__)),
            lambda session: session.execute(NOTES.with_for_update()).all(),
            lambda session: session.get(Note, 1, with_for_update=True),
            lambda session: session.execute(sa.text("select 1")),
            lambda session: session.connection(),
            lambda session: session.execute(sa.select(sa.insert(Note).values(id=9).returning(Note.id).cte())),
            lambda session: session.bulk_insert_mappings(Note, [{"id": 9}]),
            lambda session: session.bulk_save_objects([Note(id=9)]),
            lambda session: session.query(Note).filter_by(id=1).update({"text": "x"}, synchronize_session=False),
            lambda session: (session.add(Note(id=9)), session.flush()),
            lambda session: (session.add(Note(id=9)), session.begin_nested()),
            lambda session: session.delete(session.get(Note, 2)) or session.flush(),
            lambda session: session.scalar(WHERE, execution_options={"aurora_role": "writer"}),
        ],
    )
    def test_a_write_takes_the_rest_of_the_transaction_to_the_writer(self, sessions, write):
        def check(session):
            assert on_reader(session)
            write(session)
            assert not on_reader(session)
            session.rollback()
            assert on_reader(session)

        sessions.run(check)

    def test_what_cannot_be_seen_can_be_marked(self, sessions):
        reads = {"execution_options": {"aurora_role": "reader"}}

        def check(session):
            assert on_reader(session, RAW, **reads)
            assert on_reader(session, RAW.execution_options(aurora_role="reader"))
            assert on_reader(session, sa.func.pg_is_in_recovery(), **reads)
            assert session.connection(**reads).scalar(RAW)
            assert session.connection(bind_arguments={"aurora_role": "reader"}).scalar(RAW)
            assert (
                session.query(Note)
                .from_statement(sa.text("select * from note"))
                .execution_options(aurora_role="reader")
                .all()
            )
            assert on_reader(session), "none of it was the writer's"
            assert not on_reader(session, execution_options={"aurora_role": "writer"})
            assert not on_reader(session, RAW, **reads), "the transaction is the writer's by now"

        sessions.run(check)

    def test_a_savepoint_changes_nothing(self, sessions):
        def check(session):
            with session.begin():
                assert on_reader(session)
                with session.begin_nested():
                    assert on_reader(session)
                savepoint = session.begin_nested()
                session.add(Note(id=9, text="undone"))
                session.flush()
                savepoint.rollback()
                assert not on_reader(session), "its rollback does not undo that"
                with session.begin_nested():
                    session.add(Note(id=8, text="kept"))
                assert (there(session, 9), there(session, 8)) == (None, "kept")
            assert there(session, 8) == "kept"

        sessions.run(check)

    def test_an_object_that_a_reader_gave_is_written_on_the_writer(self, sessions):
        def check(session):
            note = session.get(Note, 1)
            assert on_reader(session)
            note.text = "changed"
            session.commit()
            assert note.text == "changed", "reloaded: expire_on_commit"
            session.refresh(note)
            assert note.text == "changed"

        sessions.run(check)

    def test_a_session_for_one_role(self, sessions):
        def reads(session):
            assert on_reader(session, RAW)
            assert session.connection().scalar(RAW)
            with pytest.raises(exc.InvalidRequestError, match="a read was announced"):
                session.execute(sa.insert(Note).values(id=9))
            session.add(Note(id=9))
            with pytest.raises(exc.InvalidRequestError, match="a read was announced"):
                session.flush()

        def writes(session):
            assert not on_reader(session)

        sessions.run(reads, role="reader")
        sessions.run(writes, role="writer")

    def test_a_read_only_transaction_is_a_readers_as_a_whole(self, sessions):
        def check(session):
            session.connection(execution_options={"postgresql_readonly": True})
            assert on_reader(session, RAW)
            with pytest.raises(exc.InternalError, match="read-only transaction"):
                session.execute(sa.insert(Note).values(id=9))
            session.rollback()
            session.execute(sa.insert(Note).values(id=9))
            assert not on_reader(session)

        sessions.run(check)

    @pytest.mark.skipif(not sa.__version__.startswith("2.1"), reason="sessions have execution options from 2.1 on")
    def test_options_of_the_session(self, sessions):
        def check(session):
            assert on_reader(session, RAW)

        sessions.run(check, execution_options={"postgresql_readonly": True})
        sessions.run(check, execution_options={"aurora_role": "reader", "isolation_level": "REPEATABLE READ"})

    def test_a_result_that_is_streamed_from_a_reader_outlives_a_write(self, sessions):
        def check(session):
            found = session.scalars(sa.select(Note).order_by(Note.id).execution_options(yield_per=1))
            first = next(found)
            first.text = "changed"
            session.flush()
            assert [each.id for each in found] == [2]
            session.commit()
            assert there(session, 1) == "changed"

        sessions.run(check)

    def test_reads_of_a_transaction_share_its_snapshot_on_the_reader(self, sessions):
        def check(session):
            session.connection(execution_options={"aurora_role": "reader", "isolation_level": "REPEATABLE READ"})
            assert there(session, 7) is None
            with psycopg.connect(sessions.cluster.plain_conninfo(), autocommit=True) as conn:
                conn.execute("insert into note values (7)")
            time.sleep(0.2)
            assert there(session, 7) is None

        sessions.run(check)

    def test_an_engine_of_its_own_is_not_routed(self, sessions):
        def check(session):
            session.bind_mapper(Line, session.readers)
            assert session.get_bind(Line) is session.readers
            assert session.get_bind(Note) is session.bind
            assert on_reader(session)

        sessions.run(check)

    def test_get_bind_only_answers(self, sessions):
        def check(session):
            assert session.get_bind() is session.bind
            assert session.get_bind(clause=NOTES) is session.readers
            assert "FROM note" in str(session.query(Note))
            assert session.get_bind(bind=session.readers) is session.readers
            assert not session.in_transaction()
            session.add(Note(id=9))
            session.commit()
            assert session.get_bind(clause=NOTES) is session.bind, "no reader is proven yet"
            assert not session.in_transaction()

        sessions.run(check)

    def test_events_of_the_user_come_as_ever(self, sessions):
        seen = []

        def check(session):
            @event.listens_for(session, "do_orm_execute")
            def route(state):
                seen.append(state.is_select)
                state.bind_arguments["aurora_role"] = "writer"

            assert not on_reader(session)

        sessions.run(check)
        assert seen == [True]


def test_a_session_of_one_connection_does_not_route(cluster):
    """As in a test suite that rolls everything back."""
    writer, readers = create_engines(cluster.url("writer"))
    with writer.connect() as connection:
        outer = connection.begin()
        with RoutingSession(connection, readers=readers, join_transaction_mode="create_savepoint") as session:
            session.add(Note(id=50, text="fifty"))
            session.commit()
            assert there(session, 50) == "fifty"
            assert not on_reader(session)
        outer.rollback()
    assert readers.pool.checkedout() == writer.pool.checkedout() == 0
    with RoutingSession(writer) as session:
        assert there(session, 50) is None
        assert not on_reader(session), "without readers"
    for each in (writer, readers):
        each.dispose()


class TestOwnWrites:
    """Reads after a commit: the session's, and the request's."""

    def test_a_session_reads_its_commit_though_no_reader_has_it(self, sessions):
        def check(session):
            with hold_replay(sessions.cluster):
                for n in range(3):
                    session.add(Note(id=100 + n, text="new"))
                    session.commit()
                    for _ in range(3):
                        assert there(session, 100 + n) == "new"
                        assert not on_reader(session)
                        session.rollback()
            until = time.monotonic() + 30
            while not on_reader(session):
                session.rollback()
                assert time.monotonic() < until, "the readers replay again, and are still not used"
            assert there(session, 102) == "new"

        sessions.run(check)

    def test_without_that_its_read_is_stale(self, sessions, monkeypatch):
        """So that the test above is known to find what it is there for."""
        monkeypatch.setattr(RoutingSession, "_commit_writes", lambda _: None)

        def check(session):
            with hold_replay(sessions.cluster):
                session.add(Note(id=200, text="new"))
                session.commit()
                assert there(session, 200) is None

        sessions.run(check)

    def test_a_proof_is_asked_for_once_per_connection(self, sessions, monkeypatch):
        asked = []
        kind = aurora_router.AsyncConnection if sessions.is_async else aurora_router.Connection
        real = kind.has_replayed
        monkeypatch.setattr(kind, "has_replayed", lambda *args, **more: asked.append(args[0]) or real(*args, **more))

        def check(session):
            session.add(Note(id=300))
            session.commit()
            session.scalar(WHERE)
            session.rollback()
            assert asked == [], "the first one reads from the writer"
            until = time.monotonic() + 30
            while not on_reader(session):
                session.rollback()
                assert time.monotonic() < until
            asked.clear()
            for _ in range(5):
                session.rollback()
                assert on_reader(session)
            assert asked == []
            session.rollback()
            session.add(Note(id=301))
            session.commit()
            for _ in range(2):
                session.rollback()
                session.scalar(WHERE)
            assert asked, "of another token"

        sessions.run(check)

    def test_a_session_that_writes_and_is_closed_pays_nothing(self, sessions, monkeypatch):
        kind = aurora_router.AsyncConnection if sessions.is_async else aurora_router.Connection
        monkeypatch.setattr(kind, "causal_token", lambda _: pytest.fail("a token was made"))

        def check(session):
            session.add(Note(id=400))
            session.commit()

        sessions.run(check)

    def test_a_token_from_elsewhere(self, sessions):
        def check(session):
            assert there(session, 500) == "new"

        engine = sa.create_engine(sessions.cluster.url("writer"))
        with hold_replay(sessions.cluster):
            with orm.Session(engine) as session:
                session.add(Note(id=500, text="new"))
                session.commit()
            sessions.run(check, after=causal_token(engine))
            if not sessions.is_async:
                with pytest.raises(AssertionError):
                    sessions.run(check)
        engine.dispose()

    def test_a_token_of_another_cluster_is_refused(self, sessions):
        def check(session):
            with pytest.raises(aurora_router.CausalTokenRejected, match="another cluster"):
                on_reader(session)

        sessions.run(check, after=aurora_router.CausalToken.parse("1l.1.1.1"))

    def test_a_request_and_the_next_one_of_its_client(self, sessions):
        with hold_replay(sessions.cluster):
            cookie = request("", lambda: sessions.run(write(600), lambda session: read(session, 600)))
            assert cookie.startswith("causal_token=1")
            assert request(cookie, lambda: sessions.run(lambda session: read(session, 600))) == cookie
            request("", lambda: sessions.run(lambda session: read(session, 600, None)))

    def test_a_commit_succeeds_though_no_token_can_be_made(self, sessions, monkeypatch, caplog):
        def refuse(_):
            raise aurora_router.InvalidOption("no method works")

        def check(session):
            session.add(Note(id=700, text="new"))
            session.commit()
            for _ in range(3):
                assert there(session, 700) == "new"
                assert not on_reader(session)
                session.rollback()

        kind = aurora_router.AsyncConnection if sessions.is_async else aurora_router.Connection
        monkeypatch.setattr(kind, "causal_token", refuse)
        monkeypatch.setattr(routing_session.logger, "_logged_at", {})
        sessions.run(check)
        assert [each.levelname for each in caplog.records if "no causal token" in each.message] == ["WARNING"]

    def test_run_transaction_commits_once_and_its_session_sees_it(self, cluster):
        engines = create_engines(cluster.url("writer"))
        make = orm.sessionmaker(engines.writer, class_=RoutingSession, readers=engines.readers)

        def work(session):
            assert session.scalar(WHERE) is False, "a transaction that commits is the writer's from the beginning"
            session.merge(Note(id=800, text="new"))

        def serve():
            run_transaction(make, work)
            with make() as session:
                assert there(session, 800) == "new"

        with hold_replay(cluster):
            assert request("", serve)
        with make() as session:
            run_transaction(session, work)
            assert there(session, 800) == "new"
        for each in engines:
            each.dispose()


def write(id_):
    def check(session):
        session.add(Note(id=id_, text="new"))
        session.commit()

    return check


def read(session, id_, expected="new"):
    assert there(session, id_) == expected


def request(cookie, run):
    """Run something in a request of a client with a cookie; returns the cookie that the client has then."""
    answered = []

    def application(environ, start_response):
        run()
        start_response("200 OK", [])
        return []

    app = web.WsgiCausalMiddleware(application, keys=[KEY])
    app({"HTTP_COOKIE": cookie}, lambda status, headers: answered.extend(headers))
    return dict(answered).get("Set-Cookie", cookie).partition(";")[0]


class TestLostConnections:
    """The reader's part of a transaction, when its connection is lost."""

    @staticmethod
    def find_part(session):
        """The process of the reader's session on the server, and its instance."""
        connection = session.connection(bind_arguments={"bind": session.readers})
        pid, name = connection.execute(
            sa.select(sa.func.pg_backend_pid(), sa.func.aurora_db_instance_identifier())
        ).one()
        return pid, name

    def test_a_commit_does_not_fail_because_a_reader_is_lost(self, sessions):
        def check(session):
            assert on_reader(session)
            pid, name = self.find_part(session)
            session.add(Note(id=900, text="new"))
            session.flush()
            end_session(sessions.cluster, name, pid)
            session.commit()
            assert there(session, 900) == "new"

        sessions.run(check)

    def test_a_commit_is_refused_after_a_read_that_failed(self, sessions):
        def check(session):
            result = session.scalars(sa.select(Note))
            result.all()
            pid, name = self.find_part(session)
            session.add(Note(id=901, text="new"))
            end_session(sessions.cluster, name, pid)
            with pytest.raises(exc.DBAPIError):
                session.connection(bind_arguments={"bind": session.readers}).execute(RAW)
            with pytest.raises(exc.PendingRollbackError, match="Nothing was committed"):
                session.commit()
            session.rollback()
            assert there(session, 901) is None
            assert on_reader(session)

        sessions.run(check)


def end_session(cluster, instance, pid):
    with connect_as_superuser(cluster, instance) as conn:
        assert conn.execute("select pg_terminate_backend(%s, 5000)", [pid]).fetchone() == (True,)


# ---------------------------------------------------------------- under load, and with a failover


def write_and_read(make, client, count, seen):
    """Write a number, and read it in the next transactions; what a failover interrupts is done again."""
    done, until = 0, time.monotonic() + 90
    look = sa.select(Note.text, WHERE.scalar_subquery()).where(Note.id == client)
    while done < count:
        n = time.time_ns()
        try:
            with make() as session:
                session.merge(Note(id=client, text=str(n)))
                session.commit()
                for _ in range(4):
                    text, is_reader = session.execute(look).one()
                    seen.append((int(text) >= n, is_reader))
                    session.rollback()
                    time.sleep(0.005)
        except (exc.DBAPIError, psycopg.OperationalError):
            assert time.monotonic() < until
            continue
        done += 1


def wait_for_rows(cluster, reader, count):
    """Until a reader has replayed so many notes; it replays the table itself late, too."""
    until = time.monotonic() + 30
    with connect_as_superuser(cluster, reader) as conn:
        while not conn.execute("select to_regclass('note')").fetchone()[0] or (
            conn.execute("select count(*) from note").fetchone()[0] < count
        ):
            assert time.monotonic() < until
            time.sleep(0.01)


@pytest.mark.parametrize("has_tokens", [True, False])
def test_no_read_is_stale_through_a_failover(has_tokens, monkeypatch):
    if not has_tokens:
        monkeypatch.setattr(RoutingSession, "_commit_writes", lambda _: None)
    seen = []
    with lagging_cluster("20 ms", readers=2) as cluster:
        engines = create_engines(cluster.url("writer"))
        Base.metadata.create_all(engines.writer)
        with RoutingSession(engines.writer) as session:
            session.add_all([Note(id=client, text="0") for client in range(2)])
            session.commit()
        for reader in cluster.readers:
            wait_for_rows(cluster, reader, 2)
        make = orm.sessionmaker(engines.writer, class_=RoutingSession, readers=engines.readers)
        threads = [threading.Thread(target=write_and_read, args=(make, each, 60, seen)) for each in range(2)]
        for each in threads:
            each.start()
        if has_tokens:
            cluster.failover()
        for each in threads:
            each.join()
        for each in engines:
            each.dispose()
    stale = sum(not is_fresh for is_fresh, _ in seen)
    assert (stale == 0) is has_tokens, f"{stale} of {len(seen)}"
    assert any(is_reader for _, is_reader in seen), "readers served, too"
    assert len(seen) >= 2 * 60 * 4


# ---------------------------------------------------------------- engines, and bad input


def test_both_engines_come_from_one_url(cluster):
    url = cluster.url("writer", aurora_reader_fallback="error", aurora_max_lag="60")
    writer, readers = create_engines(url, pool_size=3, reader_options={"pool_size": 7})
    assert (writer.pool.size(), readers.pool.size()) == (3, 7)
    for engine, expected in ((writer, False), (readers, True)):
        with engine.connect() as connection:
            assert connection.scalar(WHERE) is expected
        engine.dispose()


AURORA = "postgresql+aurora://h/d"
ENGINES, ASYNC_ENGINES = create_engines(AURORA), create_async_engines(AURORA)
MISTAKES = {
    "stock_url": lambda: create_engines("postgresql+psycopg://h/d"),
    "role_in_url": lambda: create_async_engines(AURORA + "?aurora_role=reader"),
    "role_in_arguments": lambda: create_engines(AURORA, reader_options={"connect_args": {"aurora_role": "any"}}),
    "twophase": lambda: RoutingSession(ENGINES.writer, readers=ENGINES.readers, twophase=True),
    "no_role": lambda: RoutingSession(ENGINES.writer, readers=ENGINES.readers, role="primary"),
    "no_role_of_a_statement": lambda: announce(WHERE, "replica"),
    "write_announced_as_read": lambda: announce(sa.insert(Note), "reader"),
    "async_readers": lambda: RoutingSession(ENGINES.writer, readers=ASYNC_ENGINES.readers),
    "blocking_readers": lambda: AsyncRoutingSession(ASYNC_ENGINES.writer, readers=ENGINES.readers),
}
SITUATIONS = yaml.safe_load((Path(__file__).parent / "bad_sessions.yaml").read_text(encoding="utf-8"))


def announce(statement, role):
    with RoutingSession(ENGINES.writer, readers=ENGINES.readers) as session:
        session.execute(statement, execution_options={"aurora_role": role})


@pytest.mark.parametrize("case", SITUATIONS, ids=lambda case: case["situation"])
def test_bad_input(case):
    with pytest.raises(exc.SQLAlchemyError) as caught:
        MISTAKES[case["situation"]]()
    assert (type(caught.value).__name__, str(caught.value)) == (case["error"], case["output"])


def test_each_mistake_is_documented():
    assert MISTAKES.keys() == {case["situation"] for case in SITUATIONS}
