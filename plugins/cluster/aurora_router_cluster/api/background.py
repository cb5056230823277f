"""Work that goes on after its request was answered, as a failover does on AWS."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK = 0.02
"""Seconds between two looks at whether work has visibly begun."""


def start(work: Callable[[], object], has_begun: Callable[[], bool]) -> None:
    """Start work; returns once it can be seen to have begun, or has ended.

    Args:
        work: blocks until it is done.
        has_begun: whether a caller that looks now sees that it was started.

    Raises:
        Exception: what `work` raised before it was seen to have begun; later it is shown by the state alone.
    """
    failure: list[Exception] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # reported to the caller, if that still waits
            failure.append(error)

    thread = threading.Thread(target=run, daemon=True, name="background")
    thread.start()
    while thread.is_alive() and not has_begun():
        thread.join(LOOK)
    if not thread.is_alive() and failure:
        raise failure[0]
