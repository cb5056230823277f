"""The credentials of a provider, cached: asked for once for all callers that wait, renewed before they expire.

Invariants: a provider is asked by one caller at a time for one login, and the other callers wait for its answer, unless
only their own thread could give it. A credential that has not expired outlives the failures of its provider, which is
then asked more and more rarely. No secret is a part of a message, a repr or a key. No lock is held while a provider is
asked.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar
from weakref import WeakSet

from aurora_router import errors, native
from aurora_router.credentials import Credential, Login
from aurora_router.frozen import frozen
from aurora_router.model.bounds import forget_oldest
from aurora_router.observe import logger
from aurora_router.psycopg_errors import CredentialsUnavailable
from aurora_router.runtime.faults import first_line
from aurora_router.runtime.provider_call import THREAD_NAME, call_provider, call_provider_async, read_credential

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from aurora_router.credentials import Provider

T = TypeVar("T")

RENEWAL = 0.8
"""The share of its time after which a credential is renewed."""
SKEW_SECONDS = 5.0
"""So long before its end a credential is not used any more: the server's clock may be ahead."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""How long a renewal that failed is not tried again, in seconds: doubled by each further failure, up to the second."""


@frozen
class _Held:
    """A credential, and when it was given, by `time.time`.

    Attributes:
        failures: how often its renewal has failed.
        retry_at: when a renewal may be tried again.
    """

    credential: Credential
    since: float
    failures: int = 0
    retry_at: float = 0.0

    def is_usable(self, now: float) -> bool:
        """Whether it has not expired."""
        expires_at = self.credential.expires_at
        return expires_at is None or now < expires_at - SKEW_SECONDS

    def is_due(self, now: float) -> bool:
        """Whether it is time to renew it."""
        expires_at, renew_at = self.credential.expires_at, self.credential.renew_at
        if renew_at is None:
            if expires_at is None:
                return False
            renew_at = self.since + RENEWAL * (expires_at - self.since)
        return now >= max(renew_at, self.retry_at)

    def after_failure(self, now: float) -> _Held:
        """The same, after its renewal failed: tried again later, and not by all processes at once."""
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**self.failures) * random.uniform(0.5, 1.0)  # noqa: S311 - no secret
        return replace(self, failures=min(self.failures + 1, 30), retry_at=now + pause)


class Found(NamedTuple):
    """A credential for one dial.

    Attributes:
        credential: what to dial with.
        cached: whether it was there already, so that a newer one may exist.
        stands_in_for: what the server rejected, if this one is tried in its place; None: it is the provider's answer.
    """

    credential: Credential
    cached: bool
    stands_in_for: Credential | None = None

    def params(self) -> dict[str, str]:
        """What it is to libpq."""
        user = {} if self.credential.user is None else {"user": self.credential.user}
        return {"password": self.credential.password, **user}


class _Question(NamedTuple):
    """What a provider is asked: for the credential of a login, or for what stands in for the one it just gave."""

    login: Login
    stand_in: bool


_Answer: TypeAlias = "Future[Credential | None]"
_Steps: TypeAlias = "Generator[tuple[_Question, Callable[..., object], tuple[object, ...]], Credential | None, T]"


class _Asking(NamedTuple):
    """A question that is asked now.

    Attributes:
        answer: what its callers wait for.
        thread: the thread that asks, or whose event loop does; None: one that nothing else runs in.
    """

    answer: _Answer
    thread: int | None


class CredentialCache:
    """The credentials that one provider gave. Safe for threads and event loops."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._scope: Callable[[Login], Login] = getattr(provider, "scope", None) or (lambda login: login)
        self._stand_in: Callable[[Login, Credential], object] | None = getattr(provider, "stand_in", None)
        self._lock = native.new_rlock()
        self._held: dict[Login, _Held] = {}
        self._asking: dict[_Question, _Asking] = {}
        self._tasks: set[asyncio.Future[Any]] = set()  # an event loop holds its tasks weakly
        _caches.add(self)

    def get(self, login: Login) -> Found:
        """The credential for a login, waiting for it where there is none.

        Raises:
            CredentialsUnavailable: the provider gives none.
        """
        return self._run(self._find(login))

    async def get_async(self, login: Login) -> Found:
        """The same on an event loop, which is not blocked meanwhile."""
        return await self._run_async(self._find(login))

    def after_rejection(self, login: Login, rejected: Found) -> Found | None:
        """What to dial with next, after the server rejected a credential; None: there is nothing else.

        Raises:
            CredentialsUnavailable: the provider gives no other one.
        """
        return self._run(self._find_next(login, rejected))

    async def after_rejection_async(self, login: Login, rejected: Found) -> Found | None:
        """The same on an event loop."""
        return await self._run_async(self._find_next(login, rejected))

    # Both are written once, as steps: each yields what is to be asked, and gets the answer, or the error.

    def _find(self, login: Login) -> _Steps[Found]:
        login = self._scope(login)
        held = self._find_usable(login)
        if held is not None:
            return Found(held.credential, cached=True)
        given = yield _Question(login, stand_in=False), self._provider, (login,)
        assert given is not None
        return Found(given, cached=False)

    def _find_next(self, login: Login, rejected: Found) -> _Steps[Found | None]:
        if rejected.stands_in_for is not None:
            return None
        if rejected.cached:
            self.forget(login, rejected.credential)
            fresh = yield from self._find(login)
            if not _are_same(fresh.credential, rejected.credential):
                return fresh
            rejected = fresh
        if self._stand_in is None:
            return None
        login = self._scope(login)
        other = self._find_other(login, rejected.credential)
        if other is not None:
            return other
        try:
            given = yield _Question(login, stand_in=True), self._stand_in, (login, rejected.credential)
            return _as_stand_in(given, rejected)
        except CredentialsUnavailable as error:
            logger.warning("%s, which would stand in for one that the server rejected", error)
            return None

    def _run(self, steps: _Steps[T]) -> T:
        """Ask what the steps yield, and return what they return."""
        try:
            wanted = next(steps)
            while True:
                try:
                    given = self._wait(*wanted)
                except CredentialsUnavailable as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(given)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _run_async(self, steps: _Steps[T]) -> T:
        """The same on an event loop."""
        try:
            wanted = next(steps)
            while True:
                try:
                    given = await self._wait_async(*wanted)
                except CredentialsUnavailable as error:
                    wanted = steps.throw(error)
                else:
                    wanted = steps.send(given)
        except StopIteration as end:
            result: T = end.value
            return result

    def confirm(self, login: Login, found: Found) -> None:
        """Keep what stood in and was accepted, until it expires; one that does not expire is not kept.

        Nor is one that was accepted late: a credential that came meanwhile is newer.
        """
        if found.stands_in_for is None or found.credential.expires_at is None:
            return
        login, now = self._scope(login), time.time()
        with self._lock:
            held = self._held.get(login)
            if held is not None and held.is_usable(now) and not _are_same(held.credential, found.stands_in_for):
                return
            self._held[login] = _Held(found.credential, now)
            forget_oldest(self._held)

    def forget(self, login: Login, rejected: Credential) -> None:
        """Use a credential no more that the server rejected."""
        login = self._scope(login)
        with self._lock:
            held = self._held.get(login)
            if held is not None and held.credential is rejected:
                del self._held[login]

    def renew_due(self) -> None:
        """Renew what is to be renewed, each in a thread of its own that is gone as soon as it has the answer."""
        now = time.time()
        with self._lock:
            due = [login for login, held in self._held.items() if held.is_due(now) and not self._is_asking(login)]
        for login in due:
            self._renew(login)

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Return what is held, and how old it is; see `describe_caches`."""
        with self._lock:
            held = list(self._held.items())
        name = getattr(self._provider, "__qualname__", type(self._provider).__qualname__)
        return [
            {
                "provider": name,
                "host": login.host,
                "user": login.user,
                "age_seconds": round(now - each.since, 3),
                "expires_in_seconds": None
                if each.credential.expires_at is None
                else round(each.credential.expires_at - now, 3),
                "failed_renewals": each.failures,
            }
            for login, each in held
        ]

    def reset(self) -> None:
        """In the child of a fork: the callers that were asking are the parent's, and the lock may be held."""
        self._lock = native.new_rlock()
        self._asking = {}

    def _is_asking(self, login: Login) -> bool:
        return _Question(login, stand_in=False) in self._asking

    def _find_usable(self, login: Login) -> _Held | None:
        now = time.time()
        with self._lock:
            held = self._held.get(login)
            if held is None or not held.is_usable(now):
                return None
            renewing = held.is_due(now) and not self._is_asking(login)
        if renewing:
            self._renew(login)
        return held

    def _find_other(self, login: Login, rejected: Credential) -> Found | None:
        """What another caller has found since, where that is not what was rejected."""
        held = self._find_usable(login)
        return None if held is None or _are_same(held.credential, rejected) else Found(held.credential, cached=True)

    # ------------------------------------------------------------ asking

    def _wait(self, question: _Question, ask: Callable[..., object], about: Sequence[object]) -> Credential | None:
        """The answer to a question, asked here or by another caller.

        Raises:
            CredentialsUnavailable: the provider failed.
        """
        answer, mine = self._begin(question, blocks=True)
        return self._ask(question, answer, ask, about) if mine else answer.result()

    async def _wait_async(
        self, question: _Question, ask: Callable[..., object], about: Sequence[object]
    ) -> Credential | None:
        """The same on an event loop."""
        answer, mine = self._begin(question)
        if not mine:
            return await _wait_for(asyncio.wrap_future(answer))
        asking = asyncio.ensure_future(self._ask_async(question, answer, ask, about))
        self._tasks.add(asking)
        asking.add_done_callback(self._on_asked)
        return await _wait_for(asking)

    def _on_asked(self, asking: asyncio.Future[Any]) -> None:
        """Let go of a task."""
        self._tasks.discard(asking)

    def _begin(self, question: _Question, *, blocks: bool = False, here: bool = True) -> tuple[_Answer, bool]:
        """The answer that is waited for, and whether the caller has to ask for it.

        Args:
            question: what is asked.
            blocks: whether the caller blocks its thread while it waits. Then it cannot wait for that thread itself: a
                frame that a signal handler interrupted, or a task of the event loop that runs there.
            here: whether the caller would ask in its own thread.
        """
        thread = native.get_ident()
        with self._lock:
            asking = self._asking.get(question)
            # A greenlet can't wait for a thread of the system, nor that for a greenlet: in a patched process each asks.
            if asking is not None and not native.is_patched() and not (blocks and asking.thread == thread):
                return asking.answer, False
            answer: _Answer = Future()
            self._asking[question] = _Asking(answer, thread if here else None)
            return answer, True

    def _end(self, question: _Question, answer: _Answer) -> None:
        """A question was answered; the caller holds the lock."""
        asking = self._asking.get(question)
        if asking is not None and asking.answer is answer:
            self._asking.pop(question, None)

    def _renew(self, login: Login) -> None:
        question = _Question(login, stand_in=False)
        answer, mine = self._begin(question, here=False)
        if not mine:
            return
        native.run_in_background(lambda: self._renew_now(question, answer), THREAD_NAME)

    def _renew_now(self, question: _Question, answer: _Answer) -> None:
        try:
            self._ask(question, answer, self._provider, (question.login,))
        except CredentialsUnavailable as error:
            with self._lock:
                held = self._held.get(question.login)
                if held is not None:
                    self._held[question.login] = held.after_failure(time.time())
            logger.warning("%s; the credential that it gave before is used until it expires", error)

    def _ask(
        self, question: _Question, answer: _Answer, ask: Callable[..., object], about: Sequence[object]
    ) -> Credential | None:
        try:
            given = call_provider(ask, about)
            credential = None if given is None and question.stand_in else read_credential(given)
        except BaseException as error:  # noqa: BLE001 - callers that wait for the same answer have to hear of it
            raise self._fail(question, answer, error) from _cause(error)
        return self._keep(question, answer, credential, given)

    async def _ask_async(
        self, question: _Question, answer: _Answer, ask: Callable[..., Any], about: Sequence[object]
    ) -> Credential | None:
        try:
            given = await call_provider_async(ask, about)
            credential = None if given is None and question.stand_in else read_credential(given)
        except BaseException as error:  # noqa: BLE001 - callers that wait for the same answer have to hear of it
            raise self._fail(question, answer, error) from _cause(error)
        return self._keep(question, answer, credential, given)

    def _keep(
        self, question: _Question, answer: _Answer, credential: Credential | None, given: object
    ) -> Credential | None:
        with self._lock:
            self._end(question, answer)
            if isinstance(given, Credential) and not question.stand_in:
                self._held[question.login] = _Held(given, time.time())
                forget_oldest(self._held)
        answer.set_result(credential)
        return credential

    def _fail(self, question: _Question, answer: _Answer, error: BaseException) -> BaseException:
        """What to raise where the provider gave nothing; callers that wait for the answer get an error of their own."""
        with self._lock:
            self._end(question, answer)
        login = question.login
        about = "" if login.user is None and login.host is None else f" for user {login.user} at {login.host}"
        kind = "" if isinstance(error, errors.CredentialsUnavailable) else f"{type(error).__name__}: "
        text = f"the provider of credentials gave none{about}: {kind}{first_line(error)}"
        failed = CredentialsUnavailable(text)
        answer.set_exception(failed)
        answer.exception()  # it counts as retrieved, also where no caller waits
        return CredentialsUnavailable(text) if isinstance(error, Exception) else error


async def _wait_for(answer: asyncio.Future[T]) -> T:
    """The result of what others wait for too; a failure counts as retrieved, also if the caller is cancelled."""
    answer.add_done_callback(_retrieve)
    await asyncio.wait({answer})
    return answer.result()


def _retrieve(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled():
        answer.exception()


def _cause(error: BaseException) -> BaseException | None:
    """What an error of a provider is shown to come from."""
    if isinstance(error, errors.CredentialsUnavailable):  # of whatever driver, or of none
        return error.__cause__
    return error if isinstance(error, Exception) else None


def _are_same(one: Credential, other: Credential) -> bool:
    """Whether two credentials are the same to a server."""
    return one.password == other.password and one.user == other.user


def _as_stand_in(given: Credential | None, rejected: Found) -> Found | None:
    if given is None or _are_same(given, rejected.credential):
        return None
    return Found(given, cached=False, stands_in_for=rejected.credential)


# ---------------------------------------------------------------- one cache for each provider

_caches: WeakSet[CredentialCache] = WeakSet()
_by_provider: dict[Any, CredentialCache] = {}
_lock: Any = native.new_rlock()


def cache_of(provider: Provider) -> CredentialCache:
    """The one cache of a provider; equal providers share it."""
    with _lock:
        cache = _by_provider.get(provider)
        if cache is None:
            cache = _by_provider[provider] = CredentialCache(provider)
            forget_oldest(_by_provider)
        return cache


def describe_caches(now: float) -> list[dict[str, Any]]:
    """Return what is held for which login, and how old it is, in seconds; no user's password and no token.

    Args:
        now: in Unix time.
    """
    return [entry for cache in list(_caches) for entry in cache.describe(now)]


def _reset() -> None:
    global _lock  # noqa: PLW0603 - the parent's may be held
    _lock = native.new_rlock()
    for cache in _caches:
        cache.reset()


os.register_at_fork(after_in_child=_reset)
