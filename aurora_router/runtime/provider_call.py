"""A call of a provider of credentials: a function or a coroutine function, from a thread or from an event loop.

A coroutine runs in an event loop of its own where it is wanted by a thread; a function that may block runs in a thread
of its own where it is wanted by an event loop.
"""

from __future__ import annotations

import asyncio
import inspect
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router import native
from aurora_router.credentials import Credential
from aurora_router.runtime.blocking import new_event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

T = TypeVar("T")

THREAD_NAME = "aurora-router-credentials"
"""The name of the threads in which providers are asked."""


def call_provider(ask: Callable[..., object], about: Sequence[object]) -> object:
    """Return what a provider gives; raises what it raises. Blocks the calling thread."""
    given = ask(*about)
    return _run(given) if inspect.isawaitable(given) else given


async def call_provider_async(ask: Callable[..., Any], about: Sequence[object]) -> object:
    """Return what a provider gives, without blocking the event loop; raises what it raises."""
    if _is_coroutine_function(ask):
        given: Any = ask(*about)
    else:
        given = await asyncio.wrap_future(_in_background(lambda: ask(*about)))
    return await given if inspect.isawaitable(given) else given


def read_credential(given: object) -> Credential:
    """Read what a provider gave: a password as text, or a `Credential`; raises a `TypeError` for anything else."""
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

    native.run_in_background(run, THREAD_NAME)
    return answer
