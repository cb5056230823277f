"""How long to wait before trying again: exponential, with jitter from a random number that the caller draws.

Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog (2015): of many clients that retry at once,
those that spread over the whole interval (full jitter) need the least work and nearly the least time.

All times are in seconds; `random` is a number of [0, 1).
"""

from __future__ import annotations

import math

_MAX_DOUBLINGS = 63
"""Beyond it every practical cap is reached, and a float does not overflow."""


def exponential(attempt: int, *, base: float, cap: float) -> float:
    """``base`` doubled with every attempt, at most ``cap``; the first attempt is 0."""
    if attempt < 0:
        raise ValueError(f"attempt {attempt} is negative: the first one is 0")
    return min(cap, math.ldexp(base, min(attempt, _MAX_DOUBLINGS)))


def full_jitter(attempt: int, random: float, *, base: float, cap: float) -> float:
    """Anything between nothing and the exponential wait, evenly spread."""
    return random * exponential(attempt, base=base, cap=cap)
