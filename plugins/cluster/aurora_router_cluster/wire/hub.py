"""What connects the endpoint with its connections: what a `WalSender` may ask for, and what it reports."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurora_router_cluster.wire import replication as r
    from aurora_router_cluster.wire.source import LogSource, TimelineView
    from aurora_router_cluster.wire.walsender import WalSender

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
        replied: loop time of its last message.
    """

    application_name: str
    timeline: int
    sent: int
    written: int
    flushed: int
    applied: int
    feedback: r.HotStandbyFeedback | None
    replied: float


class Hub(ABC):
    """What a `WalSender` may ask of its endpoint; `WalEndpoint` derives from it.

    Args:
        source: the log.
    """

    def __init__(self, source: LogSource) -> None:
        self.source = source
        self.sessions: set[WalSender] = set()

    def admit(self, session: WalSender) -> None:
        """Take up a connection. Of those that have not logged in yet the oldest is cut if there are too many.

        Any process that reaches the port can connect: without a bound that would use up this process's descriptors.
        """
        self.sessions.add(session)
        strangers = [each for each in self.sessions if each.starting]
        if len(strangers) > MOST_STRANGERS:
            min(strangers, key=lambda each: each.since).abort()

    @abstractmethod
    def view(self) -> TimelineView:
        """The timelines shown at this moment."""

    @abstractmethod
    def feedback_changed(self) -> None:
        """A reader reported another oldest transaction, or left."""
