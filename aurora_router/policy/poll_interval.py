"""How often to look while something is wrong, and while all is well. Times are in seconds.

Theory. A failover may end after 0.1 s or after 60 s, and a client that waits for it wants to know soon *in proportion*:
looking after every `SHARE` of the time that has passed finds the end late by at most that share, and costs a number of
looks that grows with the logarithm of the outage: about 50 for one of 0.3 s, about 240 for one of a minute. A thousand
clients that look drift apart by the jitter.

How long one look may take is another matter. A network, a server or this process may be slow, and a limit that is
never met finds nothing, however often it is tried: each look begins with a dial. So each look that runs out of time
allows the next one `GROWTH` times as long, up to the limit of a dial. An instance that answers within n seconds, up to
that limit, is heard after about three times n.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aurora_router.frozen import frozen

SHARE = 0.04
"""The next look comes after this part of the time that has passed since the writer was suspected."""
SHORTEST = 0.005
"""A few times what a look takes on a local network."""
LONGEST = 0.5
"""However long the outage, the end is seen within half a second."""
LEAST_LAG = 2.0
"""The lowest bound of readers' lag for which the writer is asked more often: once a second at most."""
MISSING_READER = 5.0
"""Between two looks while a reader is wanted and none is known; connects look as well, see `flow.topology`."""
LOAD_SECONDS = 60.0
"""Between two questions to an instance for its client connections, where ``aurora_zones`` is set."""
IN_USE_SECONDS = 60.0
"""For how long a wish of a connect sets the pace."""
JITTER = 0.25
"""By how much of itself a pause varies, up and down."""
GROWTH = 2.0
"""How many times as long a look may take as the one before it, which ran out of time."""


def time_limit(shortest: float, longest: float, expired: int) -> float:
    """How long a look at an instance may take, in seconds.

    Args:
        shortest: the limit of the first look: ``aurora_ping_timeout``.
        longest: the limit of a dial: ``aurora_connect_timeout``.
        expired: how many looks in a row ran out of time.
    """
    limit = shortest
    for _ in range(expired):
        if limit >= longest:
            break
        limit *= GROWTH
    return max(shortest, min(limit, longest))


def fast_pause(elapsed: float, random: float) -> float:
    """The pause before the next look, `elapsed` seconds after something went wrong; `random` of [0, 1)."""
    return add_jitter(min(LONGEST, max(SHORTEST, SHARE * elapsed)), random)


def add_jitter(pause: float, random: float) -> float:
    """A pause with its jitter; `random` of [0, 1)."""
    return pause * (1.0 + JITTER * (2.0 * random - 1.0))


@frozen
class RefreshDemand:
    """What connects want to know sooner than the next refresh; each method returns the next value.

    All times are in seconds, by the runtime's clock.

    Attributes:
        max_lag: the lowest bound of readers' lag in use, and when it was used last; None: none.
        reader_missed_at: when a reader was wanted last and none was known; None: never.
        overdue: whether the next connect has to query the topology, however young the view is.
        surveyed_at: when all instances were last asked one by one, where an answer lists only one.
        clients_at: when instances are to be asked for their client connections.
    """

    max_lag: tuple[float, float] | None = None
    reader_missed_at: float | None = None
    overdue: bool = False
    surveyed_at: float = -math.inf
    clients_at: float = -math.inf

    def bound_lag(self, bound: float, now: float) -> RefreshDemand:
        """A connect bounds the lag of readers: the lowest bound counts, until it was not used for a while."""
        known = self.max_lag
        if known is None or bound <= known[0] or now - known[1] > IN_USE_SECONDS:
            return replace(self, max_lag=(bound, now))
        return self

    def miss_reader(self, now: float) -> RefreshDemand:
        """A connect wanted a reader, and none was known."""
        return replace(self, reader_missed_at=now)

    def set_overdue(self, *, overdue: bool) -> RefreshDemand:
        """The next connect has to query the topology, or one does it now."""
        return self if overdue is self.overdue else replace(self, overdue=overdue)

    def begin_survey(self, now: float) -> RefreshDemand:
        """All instances are asked one by one, from now on."""
        return replace(self, surveyed_at=now)

    def plan_count(self, at: float) -> RefreshDemand:
        """Instances are to be asked for their client connections then."""
        return replace(self, clients_at=at)

    def pause(self, slow: float, now: float) -> float:
        """The pause between two refreshes, in seconds.

        The figures of the lag are to be at most half of its bound old, so that connects need not ask; a bound below
        `LEAST_LAG` is left to them.

        Args:
            slow: the pause if nothing is wanted sooner: ``aurora_refresh``.
            now: the time.
        """
        pause = slow
        if self.max_lag is not None and self.max_lag[0] >= LEAST_LAG and now - self.max_lag[1] <= IN_USE_SECONDS:
            pause = min(pause, self.max_lag[0] / 2.0)
        if self.reader_missed_at is not None and now - self.reader_missed_at <= IN_USE_SECONDS:
            pause = min(pause, MISSING_READER)
        return pause
