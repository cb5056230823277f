"""Everything that this library raises of its own.

::

    Exception
    └── AuroraRouterError                       the root: catches all that is ours, and nothing else
        ├── InvalidOption (ValueError)          an option is unknown, malformed or contradicts another
        ├── MalformedHost (ValueError)          a host name that no name server could know
        └── RoutingError (OperationalError)     psycopg's: whoever retries on that class goes on to do so
            ├── NoInstanceAvailable             no instance fits the request, or none that fits could be reached
            ├── NameNotResolved                 a host name has no address
            └── NameNotVerifiable               sslmode=verify-full would verify a name that only DNS vouches for

Errors of the server and of libpq stay what they are: a wrong password is psycopg's `OperationalError`, a duplicate
key its `UniqueViolation`. What a `RoutingError` adds is what was tried (`attempts`) and what was known (`view`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aurora_router.model.view import View


_TOLD = 12
"""How many (groups of) attempts a message lists; the attribute has all of them."""


class AuroraRouterError(Exception):
    """The root of all errors that this library adds."""


class InvalidOption(AuroraRouterError, ValueError):
    """An option is unknown, malformed, or contradicts another one."""


class MalformedHost(AuroraRouterError, ValueError):
    """A host name that no name server could know."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One thing that was tried.

    Attributes:
        target: the instance or host, as a person would name it.
        outcome: what came of it.
        seconds: how long it took, in seconds.
    """

    target: str
    outcome: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.target}: {self.outcome} ({self.seconds:.3f} s)"


def _grouped(attempts: Sequence[Attempt]) -> Iterator[tuple[Attempt, str]]:
    """Attempts that came to the same one after the other, as one with a count."""
    for _, same in groupby(attempts, key=lambda attempt: (attempt.target, attempt.outcome)):
        group = list(same)
        yield group[-1], f", {len(group)} times" if len(group) > 1 else ""


class RoutingError(AuroraRouterError, psycopg.OperationalError):
    """A connection could not be put on the right instance.

    Attributes:
        attempts: what was tried, in order.
        view: the cluster as it was known when the error was raised; None when nothing was known.
    """

    def __init__(self, message: str, *, attempts: Sequence[Attempt] = (), view: View | None = None) -> None:
        told = [f"- {attempt}{times}" for attempt, times in _grouped(attempts)]
        if len(told) > _TOLD:
            told = [f"- ({len(told) - _TOLD} earlier ones)", *told[-_TOLD:]]
        lines = [message, *told]
        super().__init__("\n".join(lines))
        self.attempts = tuple(attempts)
        self.view = view


class NoInstanceAvailable(RoutingError):
    """No instance of the cluster fits the request, or none that fits could be reached in time."""


class NameNotResolved(RoutingError):
    """A host name has no address, or no name server answered."""


class NameNotVerifiable(RoutingError):
    """Under ``sslmode=verify-full`` the name to verify would come from DNS, which proves nothing."""
