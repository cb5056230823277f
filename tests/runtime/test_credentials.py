"""Credentials of a provider: asked for once, cached, renewed, never shown; by users and by the monitor alike."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints

import psycopg
import pytest

import aurora_router
from aurora_router.credentials import Credential, Login
from aurora_router.errors import CredentialsUnavailable, InvalidOption
from aurora_router.runtime import credentials, session_cache
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credentials import SKEW_SECONDS, CredentialCache, cache_of
from aurora_router.runtime.monitor import ThreadMonitorRuntime
from aurora_router_cluster import LocalCluster

LOGIN = Login("apps-1.example", 5432, "app", "app")
SECRET = "Zq7-not-to-be-seen-4x"


@pytest.fixture
def clock(monkeypatch):
    """The time, which a test may put forward."""
    now = [1_000_000.0]
    monkeypatch.setattr(credentials.time, "time", lambda: now[0])
    return now


class Provider:
    """Numbers what it gives, each for 900 s."""

    def __init__(self, clock=None, lifetime: float | None = 900.0) -> None:
        self.clock, self.lifetime, self.asked, self.failing = clock, lifetime, [], False

    def __call__(self, login: Login) -> Credential:
        self.asked.append(login)
        if self.failing:
            raise ConnectionError("the vault is closed")
        until = None if self.lifetime is None or self.clock is None else self.clock[0] + self.lifetime
        return Credential(f"token {len(self.asked)}", expires_at=until)


def until(condition):
    deadline = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def password(cache, login=LOGIN):
    return cache.get(login).credential.password


def test_a_text_is_asked_for_at_each_dial():
    asked = []
    cache = CredentialCache(lambda login: asked.append(login) or f"word {len(asked)}")
    assert [password(cache), password(cache)] == ["word 1", "word 2"]
    assert asked == [LOGIN, LOGIN]


def test_a_credential_counts_until_it_expires(clock):
    provider = Provider(clock)
    cache = CredentialCache(provider)
    assert [password(cache), password(cache)] == ["token 1", "token 1"]
    clock[0] += 900.0 - SKEW_SECONDS
    assert password(cache) == "token 2"


def test_each_login_has_its_own(clock):
    cache = CredentialCache(Provider(clock))
    other = LOGIN._replace(host="apps-2.example")
    assert [password(cache), password(cache, other), password(cache)] == ["token 1", "token 2", "token 1"]


def test_it_is_renewed_in_the_background_before_it_expires(clock):
    provider = Provider(clock)
    cache = CredentialCache(provider)
    password(cache)
    clock[0] += 721.0
    assert password(cache) == "token 1", "nobody waits for a renewal"
    until(lambda: password(cache) == "token 2")
    assert len(provider.asked) == 2


def test_it_is_renewed_while_nothing_connects(clock):
    provider = Provider(clock)
    cache = CredentialCache(provider)
    password(cache)
    cache.renew_due()
    assert len(provider.asked) == 1
    clock[0] += 721.0
    cache.renew_due()
    until(lambda: password(cache) == "token 2")


def test_a_provider_that_fails_costs_nothing_until_the_credential_expires(clock, caplog):
    provider = Provider(clock)
    cache = CredentialCache(provider)
    password(cache)
    provider.failing = True
    clock[0] += 721.0
    assert password(cache) == "token 1"
    until(lambda: "the vault is closed" in caplog.text)
    assert password(cache) == "token 1"
    clock[0] += 180.0
    with pytest.raises(
        CredentialsUnavailable, match=r"user app at apps-1.example: ConnectionError: the vault"
    ) as raised:
        password(cache)
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert isinstance(raised.value, psycopg.OperationalError)
    provider.failing = False
    assert password(cache).startswith("token")


def test_a_rejected_one_is_not_used_again(clock):
    cache = CredentialCache(Provider(clock))
    found = cache.get(LOGIN)
    cache.forget(LOGIN, found.credential)
    assert password(cache) == "token 2"
    cache.forget(LOGIN, found.credential)
    assert password(cache) == "token 2", "another caller has renewed it already"


def test_many_threads_ask_once(clock):
    entered, go, asked = threading.Event(), threading.Event(), []

    def provider(login):
        asked.append(login)
        entered.set()
        go.wait(30.0)
        return Credential("token")

    cache = CredentialCache(provider)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(password, cache)
        entered.wait(30.0)
        rest = [pool.submit(password, cache) for _ in range(7)]
        go.set()
        assert {each.result(30.0) for each in (first, *rest)} == {"token"}
    assert asked == [LOGIN]


def test_all_who_wait_hear_of_a_failure():
    entered, go = threading.Event(), threading.Event()

    def provider(login):
        entered.set()
        go.wait(30.0)
        raise KeyError("no such secret")

    cache = CredentialCache(provider)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(password, cache)]
        entered.wait(30.0)
        waiting += [pool.submit(password, cache) for _ in range(3)]
        time.sleep(0.05)
        go.set()
        assert {type(each.exception(30.0)) for each in waiting} == {CredentialsUnavailable}


@pytest.mark.parametrize("kind", ["function", "coroutine function", "object"])
def test_an_event_loop_is_not_blocked_and_asks_once(kind):
    asked, ticks = [], []

    def slowly(login):
        asked.append(threading.get_ident())
        time.sleep(0.2)
        return Credential("token")

    async def awaited(login):
        asked.append(threading.get_ident())
        await asyncio.sleep(0.2)
        return Credential("token")

    class Object:
        async def __call__(self, login):
            return await awaited(login)

    cache = CredentialCache({"function": slowly, "coroutine function": awaited, "object": Object()}[kind])

    async def tick():
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.01)

    async def main():
        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(*(cache.get_async(LOGIN) for _ in range(5)))
        ticking.cancel()
        return {each.credential.password for each in found}

    assert asyncio.run(main()) == {"token"}
    assert len(asked) == 1
    assert (asked[0] == threading.get_ident()) is (kind != "function")
    assert len(ticks) > 3


def test_who_gives_up_leaves_the_answer_to_the_others():
    go = None

    async def provider(login):
        await go.wait()
        return Credential("token")

    cache = CredentialCache(provider)

    async def main():
        nonlocal go
        go = asyncio.Event()
        first = asyncio.create_task(cache.get_async(LOGIN))
        await asyncio.sleep(0)
        second = asyncio.create_task(cache.get_async(LOGIN))
        await asyncio.sleep(0.01)
        first.cancel()
        second_too = asyncio.create_task(cache.get_async(LOGIN))
        await asyncio.sleep(0.01)
        go.set()
        return [(await each).credential.password for each in (second, second_too)]

    assert asyncio.run(main()) == ["token", "token"]


@pytest.mark.parametrize("running", [False, True])
def test_a_coroutine_function_serves_blocking_connects(running):
    async def provider(login):
        await asyncio.sleep(0)
        return Credential(f"token of {login.user}")

    cache = CredentialCache(provider)

    async def main():
        return password(cache)

    assert (asyncio.run(main()) if running else password(cache)) == "token of app"


@pytest.mark.parametrize("given", [None, 5, b"bytes", ("a", "b")])
def test_anything_else_is_refused_by_its_kind(given):
    with pytest.raises(CredentialsUnavailable, match=f"a Credential, and this one returned a {type(given).__name__}"):
        CredentialCache(lambda login: given).get(LOGIN)


def test_no_secret_is_shown():
    credential = Credential(SECRET, user="app", expires_at=5.0)
    assert SECRET not in repr(credential)
    assert SECRET not in repr(credentials.Found(credential, cached=True))
    key = session_cache.key_of({"host": "a", "password": SECRET})
    assert SECRET not in repr(key)
    assert key == session_cache.key_of({"host": "a", "password": SECRET, "connect_timeout": 2})
    assert key != session_cache.key_of({"host": "a", "password": SECRET + "."})


def test_equal_providers_share_a_cache():
    provider = Provider()
    assert cache_of(provider) is cache_of(provider)
    assert cache_of(provider) is not cache_of(Provider())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python 3.12: a process with threads forks
def test_the_child_of_a_fork_waits_for_nobody():
    entered, go = threading.Event(), threading.Event()

    def provider(login):
        entered.set()
        if os.getpid() == parent:
            go.wait(30.0)
        return Credential("token")

    parent, cache = os.getpid(), CredentialCache(provider)
    asking = threading.Thread(target=password, args=[cache])
    asking.start()
    entered.wait(30.0)
    child = os.fork()
    if child == 0:
        os._exit(0 if password(cache) == "token" else 1)
    assert os.waitpid(child, 0)[1] == 0
    go.set()
    asking.join()


# ---------------------------------------------------------------- what is given


def provider_of(*args, **kwargs):
    return read_connect_args(*args, kwargs).params.provider


def a_provider(login):
    return "word"


def test_it_is_given_as_a_callable():
    assert provider_of("host=a", credentials=a_provider) is a_provider
    assert provider_of("host=a") is None
    assert "credentials" not in read_connect_args("host=a", {"credentials": a_provider}).params


def test_it_is_given_by_name(monkeypatch):
    found = EntryPoints([EntryPoint("vault", f"{__name__}:a_provider", credentials.GROUP)])
    monkeypatch.setattr(credentials.importlib.metadata, "entry_points", lambda group: found)
    monkeypatch.setattr(EntryPoint, "load", lambda self: a_provider)
    assert provider_of("host=a aurora_credentials=vault user=one") is a_provider
    with pytest.raises(InvalidOption, match=r"aurora_credentials='safe': no provider of that name .*: vault\)"):
        provider_of("host=a aurora_credentials=safe")


@pytest.mark.parametrize(
    ("conninfo", "keywords", "told"),
    [
        ("host=a", {"credentials": "word"}, "takes a callable, not a str"),
        ("host=a password=b", {"credentials": a_provider}, "a password is given, and a provider"),
        ("host=a aurora_credentials=x", {"credentials": a_provider}, "both given"),
        ("host=a aurora_credentials=nothing-like-it", {}, "no provider of that name"),
    ],
)
def test_what_contradicts_itself_is_refused(conninfo, keywords, told):
    with pytest.raises(InvalidOption, match=told):
        provider_of(conninfo, **keywords)


# ---------------------------------------------------------------- with a real cluster


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=1) as cluster:
        run_on(cluster, f"CREATE ROLE keeper LOGIN PASSWORD '{SECRET} 1'")
        yield cluster


def run_on(cluster, sql):
    writer = cluster.instance(cluster.writer)
    with psycopg.connect(
        host=writer.socket_directory, port=writer.port, user="postgres", dbname="app", autocommit=True
    ) as conn:
        conn.execute(sql)


@pytest.fixture
def vault(cluster):
    """Gives the password that the role has; a test may change it."""
    run_on(cluster, f"ALTER ROLE keeper PASSWORD '{SECRET} 1'")
    state = {"number": 1, "asked": []}

    def provider(login: Login) -> Credential:
        state["asked"].append(login)
        return Credential(f"{SECRET} {state['number']}", user="keeper")

    def rotate():
        state["number"] += 1
        run_on(cluster, f"ALTER ROLE keeper PASSWORD '{SECRET} {state['number']}'")

    provider.rotate, provider.asked = rotate, state["asked"]
    return provider


def without_password(cluster, **options):
    given = dict(each.split("=", 1) for each in cluster.conninfo("writer").split())
    del given["password"], given["user"]
    return {**given, **options}


@pytest.mark.cluster
@pytest.mark.parametrize("awaited", [False, True])
def test_a_rotated_password_costs_one_more_dial(cluster, vault, awaited):
    options = without_password(cluster, credentials=vault)

    def who():
        if not awaited:
            with aurora_router.connect(**options) as conn:
                return conn.execute("SELECT current_user").fetchone()[0]

        async def main():
            async with await aurora_router.AsyncConnection.connect(**options) as conn:
                return (await (await conn.execute("SELECT current_user")).fetchone())[0]

        return asyncio.run(main())

    assert [who(), who()] == ["keeper", "keeper"]
    asked = list(vault.asked)
    assert len(set(asked)) == len(asked), "once for each name that was dialled"
    assert all(login.host is not None and login.database == "app" for login in asked)
    vault.rotate()
    assert who() == "keeper"
    assert len(vault.asked) > len(asked)


@pytest.mark.cluster
def test_a_wrong_one_that_was_just_given_is_psycopgs_error(cluster):
    asked = []

    def provider(login):
        asked.append(login)
        return Credential("wrong", user="keeper")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        aurora_router.connect(**without_password(cluster, credentials=provider))
    assert len(asked) == 1


@pytest.mark.cluster
def test_a_provider_that_has_none_ends_the_connect_at_once(cluster):
    def provider(login):
        raise LookupError("the secret is gone")

    began = time.monotonic()
    with pytest.raises(CredentialsUnavailable, match="LookupError: the secret is gone"):
        aurora_router.connect(**without_password(cluster, credentials=provider))
    assert time.monotonic() - began < 10.0


@pytest.mark.cluster
def test_the_monitor_asks_for_the_password_of_the_moment(cluster, vault, monkeypatch):
    """A session that it opens after a rotation is let in, though no user connected since."""
    opened, original = [], ThreadMonitorRuntime._open_one

    async def counted(runtime, *rest):
        connection = await original(runtime, *rest)
        opened.append(connection.pgconn.user)
        return connection

    monkeypatch.setattr(ThreadMonitorRuntime, "_open_one", counted)
    options = without_password(cluster, credentials=vault, aurora_hang_grace=0.2, aurora_cluster="rotated")
    with aurora_router.connect(**options) as conn:  # of its own name: no monitor that has a session already
        conn.autocommit = True
        vault.rotate()

        def suspected():
            conn.execute("SELECT pg_sleep(0.5)")
            return opened

        until(suspected)
    assert set(opened) == {b"keeper"}


@pytest.mark.cluster
def test_a_router_asks_for_it_too(cluster, vault):
    router = aurora_router.Router(**without_password(cluster, credentials=vault))
    vault.rotate()
    assert router.run_transaction(lambda conn: conn.execute("SELECT current_user").fetchone()[0]) == "keeper"
    with router.connect(role="reader") as conn:
        assert conn.execute("SELECT current_user").fetchone()[0] == "keeper"
