"""Whether the writer is suspected: something went wrong, and all instances are asked which one is the writer.

Theory. A failed dial, a broken connection or a refused write proves nothing about the writer, but each is a reason to
ask at once. The *suspicion* begins with the first of them; later ones change nothing. It ends when the accepted writer,
asked after the suspicion began, reports that it is the writer: an answer to an earlier question may be from before the
trouble. A monitor that can ask no instance ends it as well, because connects wait for the end of a suspicion.

A refused write (25006) is the weakest reason, because some sessions are read-only by choice. So it counts at most once
in `REFUSED_WRITE_SECONDS`.

Invariant: a suspicion that was confirmed began before the question that confirmed it.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aurora_router.frozen import frozen

REFUSED_WRITE_SECONDS = 1.0
"""Of the statements that the writer refuses as read-only, one per so many seconds starts a check."""


@frozen
class WriterSuspicion:
    """Since when the writer is suspected; each method returns the next value.

    All times are in seconds, by the runtime's clock.

    Attributes:
        since: when the suspicion began; None: the writer is not suspected.
        reason: why, for people; empty if it is not suspected.
        refused_at: when a refused write last started a check.
    """

    since: float | None = None
    reason: str = ""
    refused_at: float = -math.inf

    def begin(self, reason: str, now: float) -> WriterSuspicion:
        """Suspect the writer, unless it is suspected already."""
        return self if self.since is not None else replace(self, since=now, reason=reason)

    def is_answered(self, asked_at: float) -> bool:
        """Whether the writer's own report ends the suspicion; it was asked at `asked_at`."""
        return self.since is not None and asked_at >= self.since

    def end(self) -> WriterSuspicion:
        """End the suspicion, if any."""
        return self if self.since is None else replace(self, since=None, reason="")

    def record_refused_write(self, now: float) -> WriterSuspicion:
        """After a write that the writer refused: the same value if another one started a check a moment ago."""
        return self if now - self.refused_at < REFUSED_WRITE_SECONDS else replace(self, refused_at=now)
