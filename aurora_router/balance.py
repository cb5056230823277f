"""A balance function of your own, in the place of the built-in strategies.

Pass a callable to ``connect``, `Router`, a pool's ``kwargs``, SQLAlchemy's ``connect_args`` or Django's ``OPTIONS``::

    def least_busy(candidates: Sequence[Candidate]) -> Candidate:
        return min(candidates, key=lambda each: (each.cpu or 0.0, each.connections))

    aurora_router.connect(url, aurora_role="reader", balance=least_busy)

It is called where several instances suit equally, by role, lag, zone and recent failures, and returns one of them, its
id, or several in the order in which to try them; the others follow. One connect may call it several times, from any
thread and on any event loop, so it has to return at once and to count nothing.

If it raises, or returns anything else, the connect raises `aurora_router.ExtensionFailed`.

``aurora_balance=NAME`` takes a function from the entry points of the group ``aurora_router.balance``.
"""

from __future__ import annotations

from aurora_router.policy.candidate import Candidate
from aurora_router.policy.options import BALANCE_GROUP as GROUP
from aurora_router.policy.options import BalanceFunction

__all__ = ["GROUP", "BalanceFunction", "Candidate"]
