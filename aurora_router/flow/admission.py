"""Asks a cluster's admission policy about a connect, and holds it for as long as the policy says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.flow.runtime import GLANCE_SECONDS, ConnT
from aurora_router.policy.admission import Hold, Redirect

if TYPE_CHECKING:
    from aurora_router.flow.attempt import ConnectAttempt


async def wait_until_admitted(attempt: ConnectAttempt[ConnT]) -> Redirect | None:
    """Return when a connect may go on; or where it has to go instead.

    Raises:
        NoInstanceAvailable: it is refused, or was held until its time was over.
    """
    runtime, cluster = attempt.runtime, attempt.cluster
    while True:
        news, policy, now = cluster.news, cluster.admission, runtime.now()
        decision = None if policy is None else policy(attempt.route.role, cluster.view, now)
        if decision is None or isinstance(decision, Redirect):
            return decision
        left = attempt.seconds_left()
        if isinstance(decision, Hold) and left > 0.0:
            if attempt.request.wanted is not None:  # no event ends the wait when the answer to that changes
                left = min(left, GLANCE_SECONDS)
            await runtime.wait_for_news(cluster, news, max(0.0, min(left, decision.until - now)))
            continue
        how = "held the connect until its time was over" if isinstance(decision, Hold) else "refuses connects"
        raise runtime.errors.no_instance_available(
            f"the cluster {cluster.name} {how}: {decision.reason}",
            attempts=attempt.tries,
            view=cluster.view,
            trail=cluster.state.trail,
        )
