"""Importing late, so that a fork does not break it.

Theory. While a thread imports a module it holds the lock of that module. The child of a fork has the lock and not the
thread, so its own import of the module would wait for ever. What this library imports late (to be quick to import, and
to need little memory) it imports within `IMPORTING`; a fork waits until no other thread is within it.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any, Final

from aurora_router import native

IMPORTING: Final[Any] = native.new_rlock()
"""Held by a thread that imports late. Reentrant: a module that is imported may import late too."""

PATIENCE_SECONDS = 10.0
"""How long a fork waits for an import. An import that takes longer waits itself, maybe for the thread that forks."""


def _before_fork() -> None:
    IMPORTING.acquire(timeout=PATIENCE_SECONDS)


def _in_parent() -> None:
    with contextlib.suppress(RuntimeError):  # it could not be acquired in time
        IMPORTING.release()


def _in_child() -> None:
    try:
        IMPORTING.release()
    except RuntimeError:
        IMPORTING._at_fork_reinit()  # noqa: SLF001 - what `threading` and `logging` do; the holder does not exist here


os.register_at_fork(before=_before_fork, after_in_parent=_in_parent, after_in_child=_in_child)
