"""The interpreter's own threads and locks, also in a process that gevent or eventlet has patched.

Theory. A patched process has greenlets where others have threads: ``threading.Thread`` starts a greenlet, and a patched
lock knows greenlets alone. The monitor needs a thread of the system: an event loop that runs in a greenlet is the
running loop of every other greenlet too, so that Django and `asyncio.run` refuse to work. What that thread and the
greenlets share is therefore guarded by the interpreter's own locks.

Invariants: a thread that holds one of these locks does not wait for anything else, so no greenlet can be switched out
with it. What guards a table is reentrant: a signal handler runs between two instructions of the main thread, maybe of
one that holds the lock, and may connect. It finds the table with the change under way done or not done, and it has
ended before that change goes on. So a change is one step of a built-in type (``setdefault``, ``pop``), or it looks
again before its last step; and a loop goes over a copy.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager


def original(module: str, name: str) -> Any:
    """Return an attribute of a module of the standard library as it was before it was patched."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return gevent.get_original(module, name)
    eventlet: Any = sys.modules.get("eventlet.patcher")
    if eventlet is not None and eventlet.is_monkey_patched("thread"):
        return getattr(eventlet.original(module), name)
    return getattr(importlib.import_module(module), name)


def is_patched() -> bool:
    """Whether threads of this process are greenlets."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is not None and gevent.is_module_patched("threading"):
        return True
    eventlet: Any = sys.modules.get("eventlet.patcher")
    return eventlet is not None and bool(eventlet.is_monkey_patched("thread"))


new_lock: Callable[[], Any] = original("_thread", "allocate_lock")
"""Make a lock by which one thread of the system waits for another. Found once: the interpreter's own function stays
what it is. Not for a table: a signal handler would wait forever for the frame that it interrupted."""

new_rlock: Callable[[], AbstractContextManager[Any]] = original("_thread", "RLock")
"""Make a reentrant lock between threads of the system, for what guards a table."""

get_ident: Callable[[], int] = original("_thread", "get_ident")
"""Return the number of the system's thread that this runs in."""


def start_thread(function: Callable[[], object], name: str) -> None:
    """Start a daemon thread of the system; in a process that is not patched, one that `threading` lists.

    Raises:
        RuntimeError: the system has no thread to give, or the interpreter is shutting down.
    """
    if is_patched():
        original("_thread", "start_new_thread")(function, ())
        return
    import threading  # noqa: PLC0415 - a patched process does without

    threading.Thread(target=function, name=name, daemon=True).start()


def run_in_background(function: Callable[[], object], name: str) -> None:
    """Run a function in a thread as `start_thread` starts it, or here if there is no thread to be had."""
    try:
        start_thread(function, name)
    except RuntimeError:  # the pids limit of a container, or the interpreter shuts down
        function()
