"""What a check finds, and what a check is."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aurora_router.doctor.facts import Facts


class Level(enum.Enum):
    """How bad a problem is."""

    WARNING = "warning"
    ERROR = "error"


@frozen
class Problem:
    """One problem, in words.

    Attributes:
        level: an error: connections fail, or do not do what was asked for. A warning: it works now, and a failover, a
            load or a date will show it.
        what: what was found, in one sentence.
        meaning: what follows from it.
        remedy: what to do: a command, an option, a statement.
    """

    level: Level
    what: str
    meaning: str
    remedy: str


@frozen
class Check:
    """One entry in the table of checks.

    Attributes:
        code: how it is called in reports, for scripts.
        about: what it looks for, for the documentation.
        find: returns the problems in the facts; pure.
    """

    code: str
    about: str
    find: Callable[[Facts], Iterable[Problem]]


@frozen
class Finding:
    """A problem, and the code of the check that found it."""

    code: str
    problem: Problem


def error(what: str, meaning: str, remedy: str) -> Problem:
    """Return a problem by which connections fail, or do not do what was asked for."""
    return Problem(Level.ERROR, what, meaning, remedy)


def warning(what: str, meaning: str, remedy: str) -> Problem:
    """Return a problem that a failover, a load or a date will show."""
    return Problem(Level.WARNING, what, meaning, remedy)


def join_short(items: Iterable[object]) -> str:
    """Return a short list for a sentence."""
    texts = list(dict.fromkeys(map(str, items)))
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
