"""What a fork waits for, so that the child of it does not wait forever.

Theory. The child has the locks of its parent, and of the threads that hold them only the one that forked. Two kinds of
lock are none of this library's, and are held while it works: that of a module that is being imported, and those of
OpenSSL while libpq goes a step of a connect. What this library imports late (to be quick to import, and to need little
memory) it imports within `IMPORTING`, and the steps of its dials are done within `STEPS`. A fork waits until no other
thread is in either of them, for a bounded time: then it is as safe as a fork is without this library.

Invariant: no thread waits for another one within `STEPS`, so a fork never waits for longer than a step takes.
"""

from __future__ import annotations

import contextlib
import logging  # noqa: F401 - so that its hooks were registered before, see below
import os
import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakSet

from aurora_router import native

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

IMPORTING: Final[Any] = native.new_rlock()
"""Held by a thread that imports late. Reentrant: a module that is imported may import late too."""

UNREADABLE: Final = (ImportError, OSError, SyntaxError, EOFError, ValueError, AttributeError, NameError, TypeError)
"""What a late import raises, or what was imported so, where its files are out of reach, or of another version.

Privileges were dropped, a deployment replaced the files, no descriptor is left. What explains a failure is imported
late: such an error must not take the place of the failure.
"""

IMPORT_SECONDS = 10.0
"""How long a fork waits for an import. An import that takes longer waits itself, maybe for the thread that forks."""
STEP_SECONDS = 10.0
"""How long a fork waits for steps of dials. It takes milliseconds, but a second on a machine without a free core."""


class Steps:
    """What any number of threads may be within, and none while the process forks.

    Which thread is within is noted by objects of the dials' own, held weakly: an exception from a signal handler may
    end a dial between any two instructions, and the object goes with it. The locks are reentrant: a signal handler may
    fork where its own thread holds them.

    Attributes:
        gate: held for the moment in which a step begins, and while the process forks.
        lock: held while `dials` is changed or read.
        dials: the dials of this process.
    """

    def __init__(self) -> None:
        self.gate: Any = native.new_rlock()
        self.lock: Any = native.new_rlock()
        self.dials: WeakSet[Dial] = WeakSet()

    def stop(self) -> None:
        """Let no other step begin, and wait until those of other threads have ended."""
        deadline, pause = time.monotonic() + STEP_SECONDS, native.original("time", "sleep")
        self.gate.acquire()
        while self.is_busy() and time.monotonic() < deadline:
            pause(0.0005)

    def is_busy(self) -> bool:
        """Whether another thread is within; a signal handler may fork within a step of its own thread."""
        allowed = None, native.get_ident()
        with self.lock:
            return any(dial.thread not in allowed for dial in self.dials)

    def resume(self) -> None:
        """Undo `stop`."""
        self.gate.release()

    def reset(self) -> None:
        """In the child of a fork: no step is under way."""
        self.gate, self.lock = native.new_rlock(), native.new_rlock()
        self.dials = WeakSet()


class Dial:
    """One dial, as `STEPS` knows it.

    Attributes:
        thread: the thread that does a step of it; None: it waits between two steps.
    """

    __slots__ = ("__weakref__", "thread")

    def __init__(self) -> None:
        self.thread: int | None = None
        with STEPS.lock:
            STEPS.dials.add(self)


STEPS: Final = Steps()
"""Where a dial's steps are done."""


def step_by_step(
    dialling: Generator[Any, Any, Any], check: Callable[[object], None] | None = None
) -> Generator[Any, Any, Any]:
    """Do the same steps of a dial, each within `STEPS`: it waits while the process forks.

    Args:
        dialling: the steps, as psycopg does them.
        check: called with what each wait returned; what it raises ends the dial.
    """
    dial, thread, ready = Dial(), native.get_ident(), None
    try:
        while True:
            with STEPS.gate:
                dial.thread = thread
            wanted = dialling.send(ready)
            dial.thread = None
            ready = yield wanted
            if check is not None:
                check(ready)
    except StopIteration as done:
        return done.value
    finally:
        dial.thread = None
        dialling.close()


def _before_fork() -> None:
    IMPORTING.acquire(timeout=IMPORT_SECONDS)
    STEPS.stop()


def _in_parent() -> None:
    STEPS.resume()
    with contextlib.suppress(RuntimeError):  # it could not be acquired in time
        IMPORTING.release()


def _in_child() -> None:
    STEPS.reset()
    try:
        IMPORTING.release()
    except RuntimeError:
        IMPORTING._at_fork_reinit()  # noqa: SLF001 - what `threading` and `logging` do; the holder does not exist here


# What is registered last is called first before a fork. So a fork waits for imports before it takes the lock of
# logging, which many modules need while they are imported: the other way around both would wait for each other.
os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
