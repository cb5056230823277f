"""Asking several nodes at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from aurora_router_cluster.storage.core.errors import NodeUnavailable, Refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from aurora_router_cluster.storage.protocols import NodeHandle

T = TypeVar("T")

PATIENCE = 0.02
"""Seconds that stragglers are waited for once enough nodes have answered."""


class Answers(dict[int, T]):
    """Node -> answer, of the nodes that answered.

    Attributes:
        failures: node -> why it did not.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failures: dict[int, Refused | NodeUnavailable] = {}

    @property
    def highest_refusal(self) -> int:
        """The highest epoch that a refusing node named, 0 if none refused."""
        return max((error.promised for error in self.failures.values() if isinstance(error, Refused)), default=0)

    def explain(self) -> str:
        """The nodes that answered, and why the others did not: for an error message."""
        reasons = "; ".join(str(self.failures[node]) for node in sorted(self.failures))
        return f"answers from {sorted(self)}" + (f"; {reasons}" if reasons else "")


async def ask(
    handles: Iterable[NodeHandle],
    request: Callable[[NodeHandle], Awaitable[T]],
    enough: Callable[[Answers[T]], bool],
) -> Answers[T]:
    """Send a request to all nodes at once.

    Returns as soon as all have answered or failed, or `PATIENCE` after `enough` holds: a hung node delays no call.
    """
    answers: Answers[T] = Answers()

    async def one(handle: NodeHandle) -> None:
        try:
            answers[handle.node] = await request(handle)
        except (Refused, NodeUnavailable) as error:
            answers.failures[handle.node] = error

    waiting = {asyncio.ensure_future(one(handle)) for handle in handles}
    try:
        while waiting:
            patience = PATIENCE if enough(answers) else None
            done, waiting = await asyncio.wait(waiting, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if not done:
                break
    finally:
        for task in waiting:
            task.cancel()
    return answers
