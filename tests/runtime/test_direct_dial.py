"""``aurora_tls_direct``, and ``sslnegotiation=direct``: what is dialled how, and what an older server makes of it.

The system's PostgreSQL has TLS and may be older than 17. One that takes direct TLS is looked for in its directories,
and in that of the variable ``AURORA_ROUTER_TLS_POSTGRES`` (docs/cluster.md says where to get one).
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import psycopg
import pytest

import aurora_router
from aurora_router.errors import InvalidOption
from aurora_router.flow.runtime import Target
from aurora_router.policy.direct_tls import FIRST_VERSION, DirectTls
from aurora_router.runtime import direct_dial
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.registry import REGISTRY

OTHERS = [Path(each) / "postgres" for each in [os.environ.get("AURORA_ROUTER_TLS_POSTGRES")] if each]
ALL = [*sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres")), *OTHERS]
HAS_LIBPQ = psycopg.pq.version() >= FIRST_VERSION
needs_libpq = pytest.mark.skipif(not HAS_LIBPQ, reason="libpq is older than 17")


def major(postgres: Path) -> int:
    return int("".join(filter(str.isdigit, postgres.parent.parent.name)) or 18)


OLD, NEW = [each for each in ALL if major(each) < 17], [each for each in ALL if major(each) >= 17]


@pytest.fixture(autouse=True)
def forget(monkeypatch):
    REGISTRY.reset()
    monkeypatch.setattr(direct_dial, "PATHS", direct_dial._Paths())


class Session:
    """What a dial opened, as far as this looks at it."""

    def __init__(self, version=180000, *, encrypted=True):
        self.pgconn = self
        self.server_version, self.ssl_in_use, self.finished = version, encrypted, False

    def finish(self):
        self.finished = True


EOF_ = "connection failed: SSL error: unexpected eof while reading"


class Server:
    """Dials that are answered as a script says: what it has for a direct one, and for a usual one."""

    def __init__(self, direct, usual):
        self.answers, self.asked, self.seconds = {True: direct, False: usual}, [], []

    def open(self, target, seconds, login):
        self.asked.append(login.get("sslnegotiation"))
        self.seconds.append(seconds)
        found = self.answers[login.get("sslnegotiation", self.default) == "direct"]
        if isinstance(found, Exception):
            raise found
        return found

    default = "postgres"


TARGET = Target("demo-1", "demo-1.example.com", 5432, ("10.0.0.1",))


def run_async(server, *, demanded):
    async def open_(*args):
        return server.open(*args)

    dial = direct_dial.make_async_dial(open_, demanded=demanded)
    return lambda target=TARGET, seconds=5.0: asyncio.run(dial(target, seconds))


def run_blocking(server, *, demanded):
    dial = direct_dial.make_dial(server.open, demanded=demanded)
    return lambda target=TARGET, seconds=5.0: dial(target, seconds)


both = pytest.mark.parametrize("make", [run_blocking, run_async], ids=["blocking", "asyncio"])


@both
def test_the_first_dial_is_a_usual_one_the_next_ones_are_direct(make):
    server = Server(Session(), Session())
    dial = make(server, demanded=False)
    for _ in range(3):
        dial()
    assert server.asked == [None, "direct", "direct"]


@both
@pytest.mark.parametrize("session", [Session(160000), Session(encrypted=False)], ids=["16", "without TLS"])
def test_where_the_server_is_older_or_has_no_tls_all_are_usual(make, session):
    server = Server(AssertionError(), session)
    dial = make(server, demanded=False)
    for _ in range(3):
        dial()
    assert server.asked == [None] * 3


@both
def test_a_refusal_is_dialled_as_usual_at_once_and_remembered(make):
    server = Server(psycopg.OperationalError(EOF_), Session())
    dial = make(server, demanded=False)
    for _ in range(4):
        assert dial() is server.answers[False]
    assert server.asked == [None, "direct", None, None, None]
    assert max(server.seconds) <= 5.0


@both
def test_a_server_that_is_down_is_no_refusal(make):
    server = Server(Session(), Session())
    dial = make(server, demanded=False)
    dial()
    server.answers = {True: psycopg.OperationalError(EOF_), False: psycopg.OperationalError("Connection refused")}
    with pytest.raises(psycopg.OperationalError, match="refused") as raised:
        dial()
    assert raised.value.__context__ is None
    server.answers = {True: Session(), False: Session()}
    dial()
    assert server.asked == [None, "direct", None, "direct"]


@both
@pytest.mark.parametrize(
    "text", ["FATAL:  password authentication failed", "Connection refused", "certificate expired"]
)
def test_what_has_nothing_to_do_with_it_is_raised_as_it_is(make, text):
    server = Server(psycopg.OperationalError(text), Session())
    dial = make(server, demanded=False)
    dial()
    with pytest.raises(psycopg.OperationalError, match=text.split(":")[-1].strip()):
        dial()
    assert server.asked == [None, "direct"]


@both
def test_after_silence_the_next_dial_is_a_usual_one(make):
    server = Server(psycopg.errors.ConnectionTimeout("timeout expired"), Session())
    dial = make(server, demanded=False)
    dial()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        dial()
    dial()
    assert server.asked == [None, "direct", None]


def test_a_unix_socket_is_dialled_as_usual():
    server = Server(AssertionError(), Session())
    dial = run_blocking(server, demanded=False)
    for _ in range(2):
        dial(Target("demo-1", "/tmp", 5432))
    assert server.asked == [None, None]


@both
def test_a_users_own_direct_against_an_older_server_says_so(make):
    server = Server(psycopg.OperationalError(EOF_), Session(150018))
    server.default = "direct"
    with pytest.raises(psycopg.OperationalError, match="is PostgreSQL 15, which takes no direct TLS") as raised:
        make(server, demanded=True)()
    assert server.asked == [None, "postgres"]
    assert server.answers[False].finished
    assert direct_dial.fault_of(raised.value).kind.name == "PROTOCOL"


@both
def test_a_users_own_direct_that_failed_for_another_reason_is_that_error(make):
    server = Server(psycopg.OperationalError(EOF_), Session())
    server.default = "direct"
    with pytest.raises(psycopg.OperationalError, match="unexpected eof"):
        make(server, demanded=True)()
    assert server.answers[False].finished


# ---------------------------------------------------------------- options


def mode(conninfo="", **keywords):
    return read_connect_args(f"host=db.example.com {conninfo}", keywords).params.direct_tls


@needs_libpq
def test_when_it_counts(monkeypatch):
    strict = {"sslmode": "require", "aurora_tls_direct": "auto"}
    assert mode(**strict) == "auto"
    assert mode(sslmode="require") is None
    assert mode(**strict, sslnegotiation="postgres") is None, "what the user gave counts"
    assert mode(**strict, sslnegotiation="direct") == "demanded"
    monkeypatch.setenv("PGSSLNEGOTIATION", "postgres")
    assert mode(**strict) is None
    monkeypatch.setenv("PGSSLNEGOTIATION", "direct")
    assert mode(sslmode="require") == "demanded"


@needs_libpq
@pytest.mark.parametrize("sslmode", ["", "sslmode=prefer", "sslmode=disable"])
def test_without_tls_for_certain_it_is_refused(sslmode):
    with pytest.raises(InvalidOption, match=r"aurora_tls_direct=auto needs TLS, and sslmode=\w+ may go without"):
        mode(sslmode, aurora_tls_direct="auto")


def test_an_older_libpq_is_named(monkeypatch):
    monkeypatch.setattr(psycopg.pq, "version", lambda: 160004)
    with pytest.raises(InvalidOption, match=r"needs libpq 17, and psycopg has 16 here: install"):
        mode(sslmode="require", application_name="older", aurora_tls_direct="auto")


# ---------------------------------------------------------------- real servers


def negotiations(info, times, **options):
    """How each of so many connects began, as libpq says."""
    for _ in range(times):
        with aurora_router.connect(info, **options) as connection:
            assert connection.pgconn.ssl_in_use
            assert connection.execute("SELECT 1").fetchone() == (1,)
            yield connection.info.get_parameters().get("sslnegotiation", "postgres")


@pytest.mark.cluster
@needs_libpq
@pytest.mark.skipif(not NEW, reason="no PostgreSQL 17 or later with TLS: set AURORA_ROUTER_TLS_POSTGRES")
def test_a_server_that_takes_it(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=0, tls=True, postgres=str(NEW[-1].parent))
    info = cluster.conninfo("writer", sslmode="require", aurora_monitor="off")
    assert list(negotiations(info, 3, aurora_tls_direct="auto")) == ["postgres", "direct", "direct"]
    assert list(negotiations(info, 1)) == ["postgres"]
    assert list(negotiations(info, 1, sslnegotiation="direct")) == ["direct"]
    assert direct_dial.PATHS.known.refused == {}


@pytest.mark.cluster
@needs_libpq
@pytest.mark.skipif(not OLD, reason="no PostgreSQL before 17 with TLS")
def test_a_server_that_does_not_take_it(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=0, tls=True, postgres=str(OLD[-1].parent))
    info = cluster.conninfo("writer", sslmode="require", aurora_monitor="off")
    began = time.monotonic()
    with pytest.raises(psycopg.OperationalError, match=r"is PostgreSQL \d+, which takes no direct TLS"):
        aurora_router.connect(info, sslnegotiation="direct", aurora_failover_timeout=20)
    assert time.monotonic() - began < 5.0, "at once, and not after the failover timeout"
    assert list(negotiations(info, 2, aurora_tls_direct="auto")) == ["postgres", "postgres"]
    known = direct_dial.PATHS.known
    assert known.refused == {}
    direct_dial.PATHS.known = DirectTls(dict.fromkeys(known.versions, 180000))  # as before a downgrade
    assert list(negotiations(info, 2, aurora_tls_direct="auto")) == ["postgres", "postgres"]
    assert direct_dial.PATHS.known.refused.keys() == known.versions.keys()
