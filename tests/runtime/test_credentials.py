"""Credentials of a provider: asked for once, cached, renewed, never shown; by users and by the monitor alike."""

from __future__ import annotations

import asyncio
import gc
import importlib.metadata
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import EntryPoint, EntryPoints

import psycopg
import pytest

import aurora_router
from aurora_router import CredentialsUnavailable, errors
from aurora_router.credentials import GROUP, Credential, Login
from aurora_router.errors import InvalidOption
from aurora_router.flow.runtime import Target
from aurora_router.model.event import ConnectionsCut, InstanceFailed, WriterSuspected
from aurora_router.runtime import credential_dial, credentials, session_cache
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credential_dial import login_for
from aurora_router.runtime.credentials import LONGEST_PAUSE, SKEW_SECONDS, CredentialCache, cache_of
from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime
from aurora_router_cluster import LocalCluster
from tests.superuser import run_as_superuser

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
    assert password(cache) == "token 1", "no connect waits for a renewal"
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


def test_it_is_renewed_when_the_provider_says_so(clock):
    asked = []

    def provider(login):
        asked.append(login)
        return Credential(f"token {len(asked)}", renew_at=clock[0] + 300.0)

    cache = CredentialCache(provider)
    assert password(cache) == "token 1"
    clock[0] += 299.0
    cache.renew_due()
    assert len(asked) == 1
    clock[0] += 1.0
    assert password(cache) == "token 1", "it counts meanwhile"
    until(lambda: password(cache) == "token 2")


def test_a_provider_that_fails_is_asked_ever_more_rarely(clock, monkeypatch):
    monkeypatch.setattr(credentials.native, "run_in_background", lambda function, name: function())
    provider = Provider(clock, lifetime=90_000.0)
    cache = CredentialCache(provider)
    password(cache)
    provider.failing = True
    clock[0] += 72_001.0
    times = []
    for _ in range(600):
        before = len(provider.asked)
        assert password(cache) == "token 1"
        if len(provider.asked) > before:
            times.append(clock[0])
        clock[0] += 0.5
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.5 <= pauses[0] <= 1.0
    assert 30.0 <= max(pauses) <= LONGEST_PAUSE
    assert 8 <= len(times) <= 16
    provider.failing = False
    clock[0] += LONGEST_PAUSE
    password(cache)
    assert password(cache) == f"token {len(provider.asked)}"


def test_what_matters_to_a_provider_is_asked_for_once():
    class Scoped(Provider):
        def scope(self, login):
            return login._replace(host="all", port=0, database=None, instance=None)

    provider = Scoped(lifetime=None)
    cache = CredentialCache(provider)
    others = [LOGIN, LOGIN._replace(host="b"), LOGIN._replace(port=6432, instance="b")]
    assert {password(cache, login) for login in others} == {"token 1"}
    assert provider.asked == [Login("all", 0, "app", None)]
    cache.forget(LOGIN._replace(host="c"), cache.get(LOGIN).credential)
    assert password(cache) == "token 2"
    assert password(cache, LOGIN._replace(user="other")) == "token 3"


@pytest.mark.parametrize("kind", [CredentialsUnavailable, errors.CredentialsUnavailable])
def test_an_error_that_a_provider_words_itself_is_not_worded_again(kind):
    def provider(login):
        raise kind("the safe is locked: open it") from OSError("rust")

    with pytest.raises(CredentialsUnavailable) as raised:
        CredentialCache(provider).get(LOGIN)
    said = "the provider of credentials gave none for user app at apps-1.example: the safe is locked: open it"
    assert str(raised.value) == said
    assert isinstance(raised.value.__cause__, OSError)


# ---------------------------------------------------------------- what stands in


class Refused(psycopg.OperationalError):
    sqlstate = "28P01"


class Rotating(Provider):
    """The server wants `wanted`; the provider gives `current`, and `pending` as what stands in."""

    def __init__(self, current="old", pending=None, wanted="old"):
        super().__init__()
        self.current, self.pending, self.wanted = current, pending, wanted
        self.dialled, self.stood_in = [], []

    def __call__(self, login):
        self.asked.append(login)
        return Credential(self.current)

    def stand_in(self, login, rejected):
        self.stood_in.append(rejected.password)
        if isinstance(self.pending, Exception):
            raise self.pending
        return self.pending

    def open(self, target, seconds, params):
        self.dialled.append(params["password"])
        if params["password"] != self.wanted:
            raise Refused("password authentication failed")
        return "connected"

    async def open_async(self, target, seconds, params):
        return self.open(target, seconds, params)


def dial_with(provider, awaited):
    target, base = Target("a", "a.example", 5432), {"user": "app", "dbname": "app"}
    if not awaited:
        return credential_dial.make_dial(provider.open, provider, base)(target, 5.0)
    return asyncio.run(credential_dial.make_async_dial(provider.open_async, provider, base)(target, 5.0))


def pending(text="new", seconds=10.0):
    return Credential(text, expires_at=time.time() + seconds)


@pytest.mark.parametrize("awaited", [False, True])
def test_what_stands_in_is_tried_once_after_a_fresh_one(awaited):
    provider = Rotating()
    assert dial_with(provider, awaited) == "connected"
    provider.wanted, provider.pending = "new", pending()
    assert dial_with(provider, awaited) == "connected"
    assert provider.dialled == ["old", "old", "new"], "the same one is not dialled with again"
    assert (len(provider.asked), provider.stood_in) == (2, ["old"])
    assert dial_with(provider, awaited) == "connected"
    assert provider.dialled[3:] == ["new"], "it is kept while it counts"
    provider.current = "new"
    assert dial_with(provider, awaited) == "connected"


@pytest.mark.parametrize("awaited", [False, True])
def test_what_stands_in_ends_with_the_next_question(awaited, clock):
    provider = Rotating(wanted="new", pending=Credential("new", expires_at=clock[0] + 10.0))
    dial_with(provider, awaited)
    clock[0] += 10.0
    provider.current = provider.wanted = "newer"
    dial_with(provider, awaited)
    assert provider.dialled == ["old", "new", "newer"]
    assert len(provider.stood_in) == 1


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("stands_in", [None, pending("wrong too"), pending("old"), PermissionError("not readable")])
def test_where_nothing_stands_in_the_servers_error_is_raised(awaited, stands_in, caplog):
    provider = Rotating(pending=stands_in, wanted="else")
    for number in (1, 2):
        with pytest.raises(Refused):
            dial_with(provider, awaited)
        assert len(provider.stood_in) == number, "once per dial"
    assert set(provider.dialled) <= {"old", "wrong too"}
    assert ("not readable" in caplog.text) is isinstance(stands_in, Exception)
    provider.wanted = "old"
    assert dial_with(provider, awaited) == "connected"


def test_what_another_caller_found_is_used_first():
    provider = Rotating(wanted="new", pending=pending())
    cache = CredentialCache(provider)
    found = cache.get(LOGIN)
    second = cache.get(LOGIN)
    following = cache.after_rejection(LOGIN, found)
    assert following.stands_in_for == found.credential
    cache.confirm(LOGIN, following)
    assert cache.after_rejection(LOGIN, second).credential.password == "new"
    assert len(provider.stood_in) == 1


def test_what_stands_in_and_is_accepted_late_replaces_nothing_newer():
    """The rotation ends, and another one after it, while a dial with the pending version is under way."""
    provider = Rotating(wanted="new", pending=pending())
    cache = CredentialCache(provider)
    late = cache.after_rejection(LOGIN, cache.get(LOGIN))
    provider.current = provider.wanted = "newer"
    assert cache.after_rejection(LOGIN, cache.get(LOGIN)).credential.password == "newer"
    cache.confirm(LOGIN, late)
    assert password(cache) == "newer"


def test_what_stands_in_is_kept_although_the_rejected_one_was_given_again():
    provider = Rotating(wanted="new", pending=pending())
    cache = CredentialCache(provider)
    following = cache.after_rejection(LOGIN, cache.get(LOGIN))
    cache.forget(LOGIN, cache.get(LOGIN).credential)
    assert password(cache) == "old"
    cache.confirm(LOGIN, following)
    assert password(cache) == "new"


def test_many_callers_ask_once_for_what_stands_in():
    go, provider = threading.Event(), Rotating(wanted="new", pending=pending())
    original = provider.stand_in
    provider.stand_in = lambda login, rejected: go.wait(30.0) and original(login, rejected)
    cache = CredentialCache(provider)
    fresh = cache.get(LOGIN)
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.after_rejection, LOGIN, fresh) for _ in range(8)]
        time.sleep(0.1)
        go.set()
        assert {each.result(30.0).credential.password for each in waiting} == {"new"}
    assert len(provider.stood_in) == 1


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
    found = EntryPoints([EntryPoint("vault", f"{__name__}:a_provider", GROUP)])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    monkeypatch.setattr(EntryPoint, "load", lambda self: a_provider)
    assert provider_of("host=a aurora_credentials=vault user=one") is a_provider
    with pytest.raises(InvalidOption, match=r"aurora_credentials='safe': no provider of that name .*: vault\)"):
        provider_of("host=a aurora_credentials=safe")


def test_it_is_made_from_options(monkeypatch):
    class Made:
        options = frozenset({"aws_region"})
        requires_tls = True

        def __init__(self, options):
            self.given = options

        def __call__(self, login):
            return "token"

        from_options = classmethod(lambda cls, options: cls(options))

    found = EntryPoints([EntryPoint("vault", f"{__name__}:Made", GROUP)])
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: found)
    monkeypatch.setattr(EntryPoint, "load", lambda self: Made)
    args = read_connect_args("host=a aurora_credentials=vault aurora_aws_region=x", {})
    assert args.params.provider.given == {"aws_region": "x"}
    assert args.params["sslmode"] == "require"
    with pytest.raises(InvalidOption, match="aurora_aws_profile has no effect with aurora_credentials=vault: remove"):
        provider_of("host=a aurora_credentials=vault aurora_aws_profile=x")
    with pytest.raises(InvalidOption, match="aurora_aws_region has no effect without aurora_credentials: remove it"):
        provider_of("host=a aurora_aws_region=x")


@pytest.mark.parametrize(
    ("given", "name", "host", "instance"),
    [
        ("host=db.example port=6432", "db.example:6432", "db.example", None),
        ("host=127.0.0.1", "127.0.0.1", "127.0.0.1", None),
        ("host=127.0.0.1", "demo-2", "127.0.0.1", "demo-2"),
        ("host=db.example", "demo-2", "demo-2.example", "demo-2"),
    ],
)
def test_the_instance_is_named_where_it_is_known(given, name, host, instance):
    base = read_connect_args(f"{given} user=app", {}).params
    assert login_for(base, Target(name, host, 6432)) == Login(host, 6432, "app", "app", instance)


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
        run_as_superuser(cluster, f"CREATE ROLE seller LOGIN PASSWORD '{SECRET} 1'")
        yield cluster


@pytest.fixture
def vault(cluster):
    """Gives the password that the role has; a test may change it."""
    run_as_superuser(cluster, f"ALTER ROLE seller PASSWORD '{SECRET} 1'")
    state = {"number": 1, "asked": []}

    def provider(login: Login) -> Credential:
        state["asked"].append(login)
        return Credential(f"{SECRET} {state['number']}", user="seller")

    def rotate():
        state["number"] += 1
        run_as_superuser(cluster, f"ALTER ROLE seller PASSWORD '{SECRET} {state['number']}'")

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

    assert [who(), who()] == ["seller", "seller"]
    asked = list(vault.asked)
    assert len(set(asked)) == len(asked), "once for each name that was dialled"
    assert all(login.host is not None and login.database == "app" for login in asked)
    vault.rotate()
    assert who() == "seller"
    assert len(vault.asked) > len(asked)


@pytest.mark.cluster
def test_a_wrong_one_that_was_just_given_is_psycopgs_error(cluster):
    asked = []

    def provider(login):
        asked.append(login)
        return Credential("wrong", user="seller")

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
    """A session that it opens after a rotation is accepted, though no user connected since."""
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
    assert set(opened) == {b"seller"}


@pytest.mark.cluster
@pytest.mark.parametrize("awaited", [False, True], ids=["function", "coroutine"])
def test_a_provider_that_hangs_blames_no_instance(cluster, vault, awaited):
    """The monitor can log in nowhere: nothing is known of the instance, so a long statement goes on."""
    released, asked = threading.Event(), []

    def answer(login):
        asked.append(login)
        if len(asked) > 1:
            assert released.wait(30.0)
        return vault(login).password

    async def answer_later(login):
        asked.append(login)
        if len(asked) > 1:
            await asyncio.to_thread(released.wait, 30.0)
        return vault(login).password

    name = f"hanging-{awaited}"
    given = without_password(cluster, credentials=answer_later if awaited else answer, user="seller")
    events = []
    unsubscribe = aurora_router.subscribe(lambda _, event: events.append(event))
    try:
        with aurora_router.connect(**given, aurora_profile="aggressive", aurora_cluster=name) as conn:
            assert conn.execute("SELECT pg_sleep(3), 1").fetchone()[1] == 1
    finally:
        released.set()
        unsubscribe()
    assert len(asked) > 1, "the monitor asked, and hung"
    assert not [each for each in events if isinstance(each, (InstanceFailed, ConnectionsCut, WriterSuspected))]


@pytest.mark.cluster
def test_a_router_asks_for_it_too(cluster, vault):
    router = aurora_router.Router(**without_password(cluster, credentials=vault))
    vault.rotate()
    assert router.run_transaction(lambda conn: conn.execute("SELECT current_user").fetchone()[0]) == "seller"
    with router.connect(role="reader") as conn:
        assert conn.execute("SELECT current_user").fetchone()[0] == "seller"


# ---------------------------------------------------------------- within a thread that already asks


def test_a_signal_handler_does_not_wait_for_the_frame_that_it_interrupted():
    """What it needs, only that frame could give: it asks itself."""
    asked = []

    def provider(login):
        asked.append(login)
        return f"word {len(asked)}" if len(asked) > 1 else f"outer, after {password(cache)}"

    cache = CredentialCache(provider)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(password(cache)), daemon=True)
    thread.start()
    thread.join(20)
    assert answers == ["outer, after word 2"]


async def test_a_blocking_connect_does_not_wait_for_a_task_of_its_own_event_loop():
    asked = []

    async def provider(login):
        asked.append(login)
        await asyncio.sleep(0.1 if len(asked) == 1 else 0.0)
        return f"word {len(asked)}"

    cache = CredentialCache(provider)
    waiting = asyncio.ensure_future(cache.get_async(LOGIN))
    for _ in range(5):
        await asyncio.sleep(0)  # it begins
    assert asked
    assert password(cache) == "word 2"
    await waiting


@pytest.mark.parametrize("steps", range(8))
async def test_a_caller_that_is_cancelled_when_the_provider_fails_leaves_no_error_behind(steps):
    reported, failing = [], asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))

    async def provider(login):
        await failing.wait()
        raise asyncio.CancelledError

    cache = CredentialCache(provider)
    callers = [asyncio.ensure_future(cache.get_async(LOGIN)) for _ in range(2)]
    for _ in range(5):
        await asyncio.sleep(0)
    failing.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    for each in callers:
        each.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    await asyncio.sleep(0.05)
    del callers, each
    gc.collect()
    assert reported == []
