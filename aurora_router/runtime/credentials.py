"""The credentials of a provider, cached: asked for once for all callers that wait, renewed before they expire.

Invariants: a provider is asked by one caller at a time for one login, and the other callers wait for its answer. A
credential that has not expired outlives the failures of its provider. No secret is a part of a message, a repr or a
key. No lock is held while a provider is asked.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import os
import time
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakSet

import psycopg

from aurora_router import native
from aurora_router.credentials import GROUP, Credential, Login
from aurora_router.errors import CredentialsUnavailable, InvalidOption
from aurora_router.model.bounds import forget_oldest
from aurora_router.observe import logger
from aurora_router.runtime.blocking import new_event
from aurora_router.runtime.libpq import fault_of, first_line
from aurora_router.runtime.passfile import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aurora_router.credentials import Provider
    from aurora_router.flow.runtime import Target

T = TypeVar("T")

REJECTED = frozenset({"28P01", "28000"})
"""How a server rejects a password (PostgreSQL documentation, appendix A)."""
RENEWAL = 0.8
"""The share of its time after which a credential is renewed."""
SKEW_SECONDS = 5.0
"""So long before its end a credential is not used any more: the server's clock may be ahead."""
_THREAD = "aurora-router-credentials"


@dataclass(frozen=True, slots=True)
class _Held:
    """A credential, and when it was given, by `time.time`."""

    credential: Credential
    since: float

    def is_find_usable(self, now: float) -> bool:
        expires_at = self.credential.expires_at
        return expires_at is None or now < expires_at - SKEW_SECONDS

    def is_due(self, now: float) -> bool:
        """Whether it is time to renew it."""
        expires_at = self.credential.expires_at
        return expires_at is not None and now >= self.since + RENEWAL * (expires_at - self.since)


class Found(NamedTuple):
    """A credential for one dial, and whether it was there already, so that a newer one may exist."""

    credential: Credential
    cached: bool

    def params(self) -> dict[str, str]:
        """What it is to libpq."""
        user = {} if self.credential.user is None else {"user": self.credential.user}
        return {"password": self.credential.password, **user}


class CredentialCache:
    """The credentials that one provider gave. Safe for threads and event loops."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._lock = native.new_lock()
        self._held: dict[Login, _Held] = {}
        self._asking: dict[Login, Future[Credential]] = {}
        self._tasks: set[asyncio.Future[Credential]] = set()  # an event loop holds its tasks weakly
        _caches.add(self)

    def get(self, login: Login) -> Found:
        """The credential for a login, waiting for it where there is none.

        Raises:
            CredentialsUnavailable: the provider gives none.
        """
        held = self._find_usable(login)
        if held is not None:
            return Found(held.credential, cached=True)
        answer, mine = self._begin(login)
        return Found(self._ask(login, answer) if mine else answer.result(), cached=False)

    async def get_async(self, login: Login) -> Found:
        """The same on an event loop, which is not blocked meanwhile."""
        held = self._find_usable(login)
        if held is not None:
            return Found(held.credential, cached=True)
        answer, mine = self._begin(login)
        if mine:
            asking = asyncio.ensure_future(self._ask_async(login, answer))
            self._tasks.add(asking)
            asking.add_done_callback(self._on_asked)
            return Found(await asyncio.shield(asking), cached=False)
        return Found(await asyncio.shield(asyncio.wrap_future(answer)), cached=False)

    def _on_asked(self, asking: asyncio.Future[Credential]) -> None:
        """Let go of a task; its failure counts as retrieved, also if its caller was cancelled meanwhile."""
        self._tasks.discard(asking)
        if not asking.cancelled():
            asking.exception()

    def forget(self, login: Login, rejected: Credential) -> None:
        """Use a credential no more that the server rejected."""
        with self._lock:
            held = self._held.get(login)
            if held is not None and held.credential is rejected:
                del self._held[login]

    def renew_due(self) -> None:
        """Renew what is to be renewed, each in a thread of its own that is gone as soon as it has the answer."""
        now = time.time()
        with self._lock:
            due = [login for login, held in self._held.items() if held.is_due(now) and login not in self._asking]
        for login in due:
            self._renew(login)

    def reset(self) -> None:
        """In the child of a fork: the callers that were asking are the parent's, and the lock may be held."""
        self._lock = native.new_lock()
        self._asking = {}

    def _find_usable(self, login: Login) -> _Held | None:
        now = time.time()
        with self._lock:
            held = self._held.get(login)
            if held is None or not held.is_find_usable(now):
                return None
            renewing = held.is_due(now) and login not in self._asking
        if renewing:
            self._renew(login)
        return held

    def _begin(self, login: Login) -> tuple[Future[Credential], bool]:
        """The answer that is waited for, and whether the caller has to ask for it."""
        with self._lock:
            answer = self._asking.get(login)
            # A greenlet can't wait for a thread of the system, nor that for a greenlet: in a patched process each asks.
            if answer is not None and not native.is_patched():
                return answer, False
            self._asking[login] = answer = Future()
            return answer, True

    def _renew(self, login: Login) -> None:
        answer, mine = self._begin(login)
        if not mine:
            return
        native.run_in_background(lambda: self._renew_now(login, answer), _THREAD)

    def _renew_now(self, login: Login, answer: Future[Credential]) -> None:
        try:
            self._ask(login, answer)
        except CredentialsUnavailable as error:
            logger.warning("%s; the credential that it gave before is used until it expires", error)

    def _ask(self, login: Login, answer: Future[Credential]) -> Credential:
        try:
            given = self._provider(login)
            if inspect.isawaitable(given):
                given = _run(given)
            credential = _read(given)
        except BaseException as error:  # noqa: BLE001 - callers that wait for the same answer have to hear of it
            raise self._fail(login, answer, error) from (error if isinstance(error, Exception) else None)
        return self._keep(login, answer, credential, given)

    async def _ask_async(self, login: Login, answer: Future[Credential]) -> Credential:
        try:
            if _is_coroutine_function(self._provider):
                given: Any = self._provider(login)
            else:
                given = await asyncio.wrap_future(_in_background(lambda: self._provider(login)))
            if inspect.isawaitable(given):
                given = await given
            credential = _read(given)
        except BaseException as error:  # noqa: BLE001 - callers that wait for the same answer have to hear of it
            raise self._fail(login, answer, error) from (error if isinstance(error, Exception) else None)
        return self._keep(login, answer, credential, given)

    def _keep(self, login: Login, answer: Future[Credential], credential: Credential, given: object) -> Credential:
        with self._lock:
            if self._asking.get(login) is answer:
                del self._asking[login]
            if isinstance(given, Credential):
                self._held[login] = _Held(credential, time.time())
                forget_oldest(self._held)
        answer.set_result(credential)
        return credential

    def _fail(self, login: Login, answer: Future[Credential], error: BaseException) -> BaseException:
        """What to raise where the provider gave nothing; callers that wait for the answer get an error of their own."""
        with self._lock:
            if self._asking.get(login) is answer:
                del self._asking[login]
        who = f"user {login.user} at {login.host or 'the local socket'}"
        told = f"the provider of credentials gave none for {who}: {type(error).__name__}: {first_line(error)}"
        failed = CredentialsUnavailable(told)
        answer.set_exception(failed)
        answer.exception()  # it counts as retrieved, also where no caller waits
        return CredentialsUnavailable(told) if isinstance(error, Exception) else error


def _read(given: object) -> Credential:
    if isinstance(given, str):
        return Credential(given)
    if isinstance(given, Credential):
        return given
    raise TypeError(f"a provider returns a text or a Credential, and this one returned a {type(given).__name__}")


def _is_coroutine_function(provider: object) -> bool:
    return inspect.iscoroutinefunction(provider) or inspect.iscoroutinefunction(getattr(provider, "__call__", None))  # noqa: B004 - of an object


def _run(given: Awaitable[T]) -> T:
    """The result of a coroutine, for a thread whose event loop, if it has one, may not be blocked."""

    async def main() -> T:
        return await given

    answer, done = _in_background(lambda: asyncio.run(main())), new_event()
    answer.add_done_callback(lambda _: done.set())
    done.wait()  # not for the future itself: a greenlet can't wait for what a thread sets
    return answer.result()


def _in_background(ask: Callable[[], T]) -> Future[T]:
    """The result of a function that may block, from a thread of its own that an exit does not wait for."""
    answer: Future[T] = Future()

    def run() -> None:
        if not answer.set_running_or_notify_cancel():
            return
        try:
            answer.set_result(ask())
        except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is
            answer.set_exception(error)

    native.run_in_background(run, _THREAD)
    return answer


# ---------------------------------------------------------------- of calls

_caches: WeakSet[CredentialCache] = WeakSet()
_by_provider: dict[Any, CredentialCache] = {}
_lock: Any = native.new_lock()


def cache_of(provider: Provider) -> CredentialCache:
    """The one cache of a provider; equal providers share it."""
    with _lock:
        cache = _by_provider.get(provider)
        if cache is None:
            cache = _by_provider[provider] = CredentialCache(provider)
            forget_oldest(_by_provider)
        return cache


def find_named(name: str) -> Provider:
    """The provider with this name among the entry points.

    Raises:
        InvalidOption: there is none, or it can't be loaded.
    """
    known = {each.name: each for each in importlib.metadata.entry_points(group=GROUP)}
    if name not in known:
        there = ", ".join(sorted(known)) or "none is installed"
        raise InvalidOption(f"aurora_credentials={name!r}: no provider of that name (entry points {GROUP}: {there})")
    try:
        provider: Provider = known[name].load()
    except Exception as error:
        raise InvalidOption(f"aurora_credentials={name!r}: its provider can't be loaded: {error}") from error
    return provider


def login_for(base: Mapping[str, Any], target: Target) -> Login:
    """What a credential is wanted for when a target is dialled with these parameters."""
    port = target.port or os.environ.get("PGPORT") or DEFAULT_PORT
    user, database = (base.get(name) or os.environ.get(variable) for name, variable in _NAMED)
    host = target.host or (target.addresses[0] if target.addresses else None)
    return Login(host, int(port), user, database or user)


_NAMED = (("user", "PGUSER"), ("dbname", "PGDATABASE"))


def authenticated(
    open_: Callable[[Target, float, Mapping[str, str]], T], provider: Provider, base: Mapping[str, Any]
) -> Callable[[Target, float], T]:
    """A function that dials with what the provider gives; once more where the server rejects what was cached."""
    cache = cache_of(provider)

    def dial(target: Target, seconds: float) -> T:
        login = login_for(base, target)
        found = cache.get(login)
        try:
            return open_(target, seconds, found.params())
        except psycopg.OperationalError as error:
            if not _may_be_renewed(found, error):
                raise
        cache.forget(login, found.credential)
        return open_(target, seconds, cache.get(login).params())

    return dial


def authenticated_async(
    open_: Callable[[Target, float, Mapping[str, str]], Awaitable[T]], provider: Provider, base: Mapping[str, Any]
) -> Callable[[Target, float], Awaitable[T]]:
    """The same for asyncio."""
    cache = cache_of(provider)

    async def dial(target: Target, seconds: float) -> T:
        login = login_for(base, target)
        found = await cache.get_async(login)
        try:
            return await open_(target, seconds, found.params())
        except psycopg.OperationalError as error:
            if not _may_be_renewed(found, error):
                raise
        cache.forget(login, found.credential)
        return await open_(target, seconds, (await cache.get_async(login)).params())

    return dial


def _may_be_renewed(found: Found, error: psycopg.Error) -> bool:
    return found.cached and fault_of(error).sqlstate in REJECTED


def _reset() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held
    _lock = native.new_lock()
    for cache in _caches:
        cache.reset()


os.register_at_fork(after_in_child=_reset)
