"""What all runtimes on the real clock share, whatever the driver: it asks no server and waits for nothing.

A driver family adds what knows its connections (`runtime.libpq` for psycopg).
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, ClassVar, Generic

from aurora_router import native
from aurora_router.flow.runtime import ConnT, DialFailed, ServiceQueries

if TYPE_CHECKING:
    from aurora_router.errors import ErrorFamily
    from aurora_router.policy.verdict import Fault

_RANDOM = random.SystemRandom()
"""Not the module's own: that one is its users' to seed, and a background thread must not draw from it."""


class RealRuntime(Generic[ConnT]):
    """The part of a `Runtime` that every driver family has.

    Attributes:
        driver_errors: what a dial raises that fails.
    """

    __slots__ = ()

    errors: ClassVar[ErrorFamily]
    queries: ClassVar[ServiceQueries]
    driver_errors: ClassVar[type[Exception]]

    now = staticmethod(time.monotonic)
    """The monotonic clock, in seconds."""
    random = staticmethod(_RANDOM.random)
    """A random number in [0, 1)."""

    @staticmethod
    def fault_of(error: BaseException) -> Fault:
        """What an exception of a dial says, in terms that `policy.verdict` judges."""
        raise NotImplementedError

    @staticmethod
    def rewrite(cause: BaseException, text: str) -> BaseException:
        """Return an error of the driver's like `cause`, with another text."""
        raise NotImplementedError

    @staticmethod
    def new_dial_timeout(name: str, seconds: float) -> DialFailed:
        """A dial took longer than it may."""
        raise NotImplementedError

    @staticmethod
    def drop(connection: ConnT) -> None:
        """Close a connection at once, from an event loop: nothing is sent, nothing is waited for."""
        raise NotImplementedError

    @property
    def thread(self) -> int:
        """The thread in which the procedure runs."""
        return native.get_ident()

    def can_wait_for(self, thread: int | None) -> bool:  # noqa: ARG002 - of an event loop: all of its tasks go on
        """Whether a procedure of that thread goes on while this one waits."""
        return True
