"""What happens to clusters, for logging and metrics.

Events are the values of `aurora_router.model.event`. Each is logged (logger ``aurora_router``) and handed to every
subscriber. A subscriber runs in the thread that made the observation, must not block, and never breaks it: what it
raises is logged.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aurora_router.model.event import (
    Advice,
    Blinded,
    ConnectionsCut,
    Doubted,
    Event,
    InstanceFailed,
    Settled,
    WriterChanged,
    WriterLost,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Subscriber = Callable[[str, Event], None]

logger = logging.getLogger("aurora_router")
_WARNINGS = (Advice, Blinded, ConnectionsCut, InstanceFailed, WriterLost)
_NEWS = (Doubted, Settled)
_subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call ``subscriber(cluster, event)`` for everything that happens; returns the function that ends it."""
    global _subscribers  # noqa: PLW0603 - a tuple that is replaced needs no lock to be read
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603
        _subscribers = tuple(each for each in _subscribers if each is not subscriber)

    return unsubscribe


def publish(cluster: str, event: Event) -> None:
    """Log an event and tell the subscribers."""
    level = logging.WARNING if isinstance(event, _WARNINGS) else logging.DEBUG
    if isinstance(event, _NEWS):
        level = logging.INFO
    if isinstance(event, WriterChanged) and event.old is not None:
        level = logging.WARNING
    logger.log(level, "cluster %s: %s", cluster, event)
    for subscriber in _subscribers:
        try:
            subscriber(cluster, event)
        except Exception:
            logger.exception("a subscriber failed on %s", event)


def report_bug(cluster: str, error: BaseException) -> None:
    """Log what ended a part of the background work: a bug of ours."""
    logger.error("cluster %s: the background work failed: this is a bug of aurora_router", cluster, exc_info=error)
