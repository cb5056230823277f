"""What happens to clusters, for logging and metrics.

Events are the values of `aurora_router.model.event`. Each is logged (logger ``aurora_router``), as a sentence and as
loud as `policy.sentences` decides, and handed to every subscriber. A subscriber runs in the thread that made the
observation, must not block, and never breaks it: what it raises is logged. So it is with handlers of `logging`, see
`aurora_router.logs`.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from aurora_router import native
from aurora_router.logs import Logger
from aurora_router.model.bounds import forget_oldest
from aurora_router.policy.sentences import Journal, report

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from aurora_router.model.event import Event

    Subscriber = Callable[[str, Event], None]

logger = Logger("aurora_router")
MOST_CLUSTERS = 256
"""For how many clusters it is remembered what was logged."""
_journals: dict[Hashable, Journal] = {}
_lock = native.new_rlock()
_subscribers: tuple[Subscriber, ...] = ()


def subscribe(subscriber: Subscriber) -> Callable[[], None]:
    """Call ``subscriber(cluster, event)`` for everything that happens; returns the function that ends it."""
    global _subscribers  # noqa: PLW0603 - a tuple that is replaced needs no lock to be read
    _subscribers = (*_subscribers, subscriber)

    def unsubscribe() -> None:
        global _subscribers  # noqa: PLW0603
        _subscribers = tuple(each for each in _subscribers if each is not subscriber)

    return unsubscribe


def publish(cluster: str, event: Event, identity: Hashable = None) -> None:
    """Log an event and call the subscribers.

    Args:
        cluster: the cluster's name.
        event: what happened.
        identity: what distinguishes it from another one of the same name.
    """
    with _lock:
        journal = _journals.pop(identity or cluster, Journal())
        journal, level, sentence = report(journal, event, time.monotonic())
        _journals[identity or cluster] = journal
        forget_oldest(_journals, MOST_CLUSTERS)
    logger.log(level, "%s: %s", cluster, sentence, extra={"aurora_cluster": cluster, "aurora_event": event})
    for subscriber in _subscribers:
        try:
            subscriber(cluster, event)
        except Exception:
            logger.exception("a subscriber failed on %s", event)


def report_bug(cluster: str, error: BaseException) -> None:
    """Log what ended a part of the background work: a bug of ours."""
    logger.error("cluster %s: the background work failed: this is a bug of aurora_router", cluster, exc_info=error)


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - the thread that held it does not exist in the child
    _lock = native.new_rlock()


os.register_at_fork(after_in_child=_after_fork)
