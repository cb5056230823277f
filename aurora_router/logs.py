"""Loggers of this library: what a user's handler or filter raises breaks nothing here.

Theory. `logging` lets an exception of a filter, or of a handler's ``emit``, out to the caller. The caller is, here, the
thread that looks for hung instances, a connect that has succeeded, or a transaction that has committed: none of them
may fail because of it. So it is printed to stderr as `logging.Handler.handleError` does, unless
`logging.raiseExceptions` is off, and what was under way goes on.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from aurora_router.forks import IMPORTING
from aurora_router.model.bounds import forget_oldest

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter

REPEATED_SECONDS = 300.0
"""For how long `Logger.log_once` logs the same subject at DEBUG, once it has logged it."""
MOST_SUBJECTS = 64
"""How many subjects a logger remembers."""


class Logger(_Adapter):
    """A logger of `logging` whose methods raise nothing.

    Args:
        name: the logger's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(logging.getLogger(name), {})
        self._logged_at: dict[str, float] = {}

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Leave a record as it is."""
        return msg, kwargs

    def log(self, level: int, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log a record; what a filter or a handler raises is printed."""
        kwargs.setdefault("stacklevel", 2)  # the record is the caller's
        try:
            super().log(level, msg, *args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever users' code raises
            if logging.raiseExceptions and sys.stderr is not None:
                with contextlib.suppress(Exception):
                    _print_error()

    def log_once(self, level: int, subject: str, msg: object, *args: Any) -> None:
        """Log a record as loud as `level` once in `REPEATED_SECONDS` for each subject, and else at DEBUG."""
        now = time.monotonic()
        logged_at = self._logged_at.get(subject)
        if logged_at is not None and now - logged_at < REPEATED_SECONDS:
            self.debug(msg, *args)
            return
        self._logged_at[subject] = now
        forget_oldest(self._logged_at, MOST_SUBJECTS)
        self.log(level, msg, *args)


def _print_error() -> None:
    with IMPORTING:
        import traceback  # noqa: PLC0415 - few handlers fail

    sys.stderr.write("--- a handler or a filter of logging failed in aurora_router ---\n")
    traceback.print_exc(file=sys.stderr)
