"""How the bounds of scaling are written: ``MIN..MAX``."""

from __future__ import annotations

import math

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.scaling.capacity import MOST_CAPACITY, STEP, CapacityLimits
from aurora_router_cluster.scaling.tracking import MOST_READERS


def read_readers(text: str) -> tuple[int, int]:
    """Read how many readers there may be.

    Raises:
        RequestError: it is not of that form, or out of range.
    """
    low, separator, high = text.partition("..")
    if not (separator and low.isdecimal() and high.isdecimal()):
        raise RequestError(f"auto_scale={text!r}: want MIN..MAX, the readers at least and at most, e.g. 1..5")
    least, most = int(low), int(high)
    if not (least <= most and 1 <= most <= MOST_READERS):
        raise RequestError(
            f"auto_scale={text!r}: a cluster has 0 to {MOST_READERS} readers, and the maximum is at least 1 and not "
            "below the minimum"
        )
    return least, most


def read_capacity(text: str) -> CapacityLimits:
    """Read between which capacities an instance moves.

    Raises:
        RequestError: it is not of that form, or out of range.
    """
    low, separator, high = text.partition("..")
    try:
        least, most = float(low), float(high)
    except ValueError:
        separator, least, most = "", math.nan, math.nan
    if not separator:
        raise RequestError(f"serverless={text!r}: want MIN..MAX, the capacity in ACU, e.g. 0.5..16")
    in_steps = all(math.isfinite(each) and each == round(each / STEP) * STEP for each in (least, most))
    if not (in_steps and 0.0 <= least <= most and 1.0 <= most <= MOST_CAPACITY):
        raise RequestError(
            f"serverless={text!r}: want multiples of {STEP:g} from 0 to {MOST_CAPACITY:g} ACU, and the maximum "
            "is at least 1 and not below the minimum"
        )
    return CapacityLimits(least, most)
