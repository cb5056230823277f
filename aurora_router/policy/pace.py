"""How often to look while something is wrong, and while all is well. Times are in seconds.

Theory. A failover may end after 0.1 s or after 60 s, and who waits for it wants to know soon *in proportion*: looking
after every `SHARE` of the time that has passed finds the end late by at most that share, and costs a number of looks
that grows with the logarithm of the outage: about 50 for one of 0.3 s, about 240 for one of a minute. A thousand
clients that look drift apart by the jitter.
"""

from __future__ import annotations

SHARE = 0.04
"""The next look comes after this part of the time that has passed since the doubt began."""
SHORTEST = 0.005
"""A few times what a look takes on a local network."""
LONGEST = 0.5
"""However long the outage, the end is seen within half a second."""
JITTER = 0.25
"""By how much of itself a pause varies, up and down."""


def fast(elapsed: float, random: float) -> float:
    """The pause before the next look, `elapsed` seconds after something went wrong; `random` of [0, 1)."""
    return varied(min(LONGEST, max(SHORTEST, SHARE * elapsed)), random)


def varied(pause: float, random: float) -> float:
    """A pause with its jitter; `random` of [0, 1)."""
    return pause * (1.0 + JITTER * (2.0 * random - 1.0))
