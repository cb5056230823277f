"""Retry policies, built on tenacity and driven by a runtime.

tenacity's own time- and random-based classes read the real clock and the real randomness; these take both from the
runtime, so that a simulation drives them on its virtual clock. A lint rule bans the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tenacity

from aurora_router.policy.backoff import full_jitter

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Runtime

FIRST_WAIT = 0.05
"""Longest first wait between two rounds of a reconnect, in seconds."""
LONGEST_WAIT = 1.0
"""Longest wait between two rounds of a reconnect, in seconds."""
LEAST_WAIT = 0.02
"""Shortest wait that news of the same writer may leave of one between two rounds, in seconds."""
FIRST_REPLAY, LONGEST_REPLAY = 0.01, 1.0
"""Longest first wait, and longest wait, between two attempts of a transaction, in seconds."""


def reconnecting(
    runtime: Runtime[Any],
    cluster: Cluster,
    left: Callable[[], float],
    *,
    retry_on: type[BaseException],
    began: float,
    may_get_writer: Callable[[], bool],
) -> tenacity.AsyncRetrying:
    """Rounds of connecting: exponential waits with full jitter, cut short by news of a writer.

    News is another writer, an instance that joined or left, or the end of a suspicion that is older than the round that
    failed: the writer answers again. A suspicion that began during that round may be its own work, and that during the
    wait the work of another connect that waits as well. If their ends were news, a writer that answers the monitor, and
    not these connects, would keep them dialling without a pause.

    Args:
        runtime: gives clock, randomness and sleep.
        cluster: whose change ends a wait early.
        left: seconds for which it makes sense to go on.
        retry_on: the exception that asks for another round; all others end it.
        began: when the first round began, by the runtime's clock.
        may_get_writer: whether the writer may serve this connect; else the end of a suspicion is no news.
    """
    round_began = began

    def wait(state: tenacity.RetryCallState) -> float:
        pause = full_jitter(state.attempt_number - 1, runtime.random(), base=FIRST_WAIT, cap=LONGEST_WAIT)
        return min(pause, left())

    async def sleep(seconds: float) -> None:
        """Wait; see above."""
        nonlocal round_began
        view, suspected_at, began = cluster.view, cluster.suspected_at, runtime.now()
        is_older = _is_older(suspected_at, round_began) and may_get_writer()
        while (pause := began + seconds - runtime.now()) > 0.0 and cluster.view.epoch == view.epoch:
            has_ended = is_older and cluster.suspected_at != suspected_at
            if has_ended or cluster.view.instances.keys() != view.instances.keys():
                pause = min(pause, began + LEAST_WAIT - runtime.now())
                if pause <= 0.0:
                    break
            await runtime.wait_for_news(cluster, cluster.news, pause)
        round_began = runtime.now()

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(retry_on),
        stop=lambda _: left() <= 0.0,
        wait=wait,
        sleep=sleep,
        reraise=True,
    )


def _is_older(suspected_at: float | None, began: float) -> bool:
    """Whether a suspicion began before a round did."""
    return suspected_at is not None and suspected_at < began


def transacting(
    runtime: Runtime[Any], tried: Callable[[], int], left: Callable[[], float], *, retry_on: type[BaseException]
) -> tenacity.AsyncRetrying:
    """Attempts of a transaction: exponential waits with full jitter, so that those in conflict part.

    Args:
        runtime: gives clock, randomness and sleep.
        tried: how many attempts counted; one that found a dead connection in a pool does not, and is not waited for.
        left: seconds for which it makes sense to go on; 0 ends it.
        retry_on: the exception that asks for another attempt; all others end it.
    """

    def wait(state: tenacity.RetryCallState) -> float:
        del state
        longest = min(LONGEST_REPLAY, left())
        return full_jitter(tried() - 1, runtime.random(), base=FIRST_REPLAY, cap=longest) if tried() else 0.0

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(retry_on),
        stop=lambda _: left() <= 0.0,
        wait=wait,
        sleep=runtime.sleep,
        reraise=True,
    )
