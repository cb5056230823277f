"""Instances that pause while no user is connected (Aurora Serverless v2 with a minimum of 0 ACU), and silence.

Theory. A paused instance accepts a connection and says nothing until it has resumed, which takes about 15 s, and longer
after a day. So does one that hangs, and their silence is the same. The difference is what this process did: an
instance cannot have paused unless no connection was there for the time after which it pauses. If this process had
one, or an answer, within that time, silence is a hang. Otherwise a dial is given `RESUME_SECONDS`, as far as the
connect has them, and until then its silence is no evidence.

A monitor that asks each instance from time to time would keep the cluster awake. So it asks only those to which this
process holds connections, which do not pause anyhow. While the writer is suspected it asks all.

None of it holds unless it is declared: by ``aurora_auto_pause``, or by the RDS API (``aurora_attributes=rds``).

Invariant: an instance of which a connection is open, or was open within the time, is never taken for paused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurora_router.model.view import View
    from aurora_router.policy.options import Options

RESUME_SECONDS = 45.0
"""How long a dial of an instance that may have paused may take: about 15 s, 30 s and more after a day, and a margin."""


def find_pause(options: Options, view: View) -> float | None:
    """Return after how many seconds without connections instances pause; None: they do not, as far as known.

    What the user says comes first; 0 there: they do not pause.
    """
    pause = view.auto_pause if options.auto_pause is None else options.auto_pause
    return pause or None


def may_have_paused(pause: float | None, used_at: float | None, now: float) -> bool:
    """Whether an instance may have paused.

    Args:
        pause: after how many seconds without connections it does; None: never.
        used_at: when this process was last known to have a connection to it, or an answer; None: never.
        now: the time, by the same clock.
    """
    return pause is not None and (used_at is None or now - used_at >= pause)
