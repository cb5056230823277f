"""What connects the endpoint with its connections: what a `WalSender` may ask for, and what it reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.wire import replication as r
    from aurora_router_cluster.wire.source import LogSource, TimelineView

MOST_STRANGERS = 16
"""Connections that have not logged in yet."""


@dataclass(frozen=True, slots=True)
class ReaderStatus:
    """What the endpoint knows of one streaming reader; positions are 0 until the reader has reported them.

    Attributes:
        application_name: as the reader gave it, normally the instance's name.
        timeline: that it streams.
        sent: end of what was handed to its socket.
        written: as it reported.
        flushed: as it reported.
        applied: as it reported: its read point.
        feedback: oldest transactions that it needs; None if it sent none.
    """

    application_name: str
    timeline: int
    sent: int
    written: int
    flushed: int
    applied: int
    feedback: r.HotStandbyFeedback | None


class Session(Protocol):
    """What the endpoint needs of a connection: `walsender.WalSender`."""

    @property
    def starting(self) -> bool:
        """Whether it has not logged in yet."""
        ...

    @property
    def since(self) -> float:
        """Loop time of its begin."""
        ...

    @property
    def feedback(self) -> r.HotStandbyFeedback | None:
        """Oldest transactions that the reader needs; None if it sent none."""
        ...

    def pump(self) -> None:
        """Send what is new."""
        ...

    def tick(self, now: float, timeout: float, /) -> None:
        """Send a keepalive, or end the connection of a silent reader."""
        ...

    def status(self) -> ReaderStatus | None:
        """What is known of the reader; None while it does not stream."""
        ...

    def abort(self) -> None:
        """Close at once."""
        ...

    async def stop(self) -> None:
        """Close at once, and wait for the end."""
        ...


class Hub(ABC):
    """What a `WalSender` may ask of its endpoint; `WalEndpoint` derives from it.

    Args:
        source: the log.
    """

    def __init__(self, source: LogSource) -> None:
        self.source = source
        self.sessions: set[Session] = set()
        self._unsubscribe: Callable[[], None] | None = None

    def admit(self, session: Session) -> None:
        """Take up a connection. Of those that have not logged in yet the oldest is cut if there are too many.

        Any process that reaches the port can connect: without a bound that would use up this process's descriptors.
        """
        self.sessions.add(session)
        if self._unsubscribe is None:
            self._unsubscribe = self.source.subscribe(self.wake)
        strangers = [each for each in self.sessions if each.starting]
        if len(strangers) > MOST_STRANGERS:
            min(strangers, key=lambda each: each.since).abort()

    def dismiss(self, session: Session) -> None:
        """Forget a connection that has ended; without any, nothing is woken when the log grows."""
        self.sessions.discard(session)
        if not self.sessions and self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None

    def wake(self) -> None:
        """Send what has become durable; the source calls it."""
        for session in tuple(self.sessions):
            session.pump()

    @abstractmethod
    def view(self) -> TimelineView:
        """The timelines shown at this moment."""

    @abstractmethod
    def feedback_changed(self) -> None:
        """A reader reported another oldest transaction, or left."""
