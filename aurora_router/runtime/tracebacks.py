"""Tracebacks of the errors that leave the library: short ones."""

from __future__ import annotations

from typing import TypeVar

from aurora_router.observe import logger

ErrorT = TypeVar("ErrorT", bound=BaseException)


def shorten_traceback(error: ErrorT) -> ErrorT:
    """Remove the traceback of the inner parts from an error that leaves the library; it is logged at DEBUG.

    Its causes are kept, also without a traceback; errors that were being handled are dropped, with their frames.
    """
    logger.debug("connect failed", exc_info=error)
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        following.__traceback__ = None
        cause = following.__cause__
        following.__context__ = cause
        following.__suppress_context__ = True
        following = cause
    return error
