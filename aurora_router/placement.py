"""`Placement`: where a connection is, and why."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster
    from aurora_router.model.event import Event
    from aurora_router.model.instance import Role
    from aurora_router.model.view import View
    from aurora_router.policy.balance import Selection
    from aurora_router.policy.route import Route


@frozen
class Placement:
    """Where a connection is, and why.

    Attributes:
        instance: id of its instance; None behind a proxy, which does not say it.
        generation: the instance's generation when the connection was made.
        role: the instance's role when the connection was made.
        pooled: a pooler is in between: it may serve each transaction on another connection to the server, or from
            another server.
    """

    instance: str | None
    generation: int
    role: Role
    pooled: bool
    _cluster: Cluster
    _why: Selection | Route

    def __repr__(self) -> str:
        known = self.view.instances.get(self.instance or "")
        role = "" if known is None else f" ({known.role.value})"
        return f"<Placement {self.instance}{role} of {self._cluster.name}, generation {self.generation}>"

    @property
    def reason(self) -> str:
        """Why this instance."""
        return self._why.reason

    @property
    def view(self) -> View:
        """The cluster as it is known now."""
        return self._cluster.view

    @property
    def trail(self) -> tuple[tuple[float, Event], ...]:
        """The last events of the cluster, oldest first, each with the monotonic clock's time in seconds."""
        return self._cluster.state.trail

    def publish(self, event: Event) -> None:
        """Publish an event about the cluster."""
        self._cluster.report(event, time.monotonic())

    @property
    def current(self) -> bool | None:
        """Whether the instance is still what it was when the connection was made. Costs no round trip.

        None where that is not known: behind a pooler or proxy, the server may be another one by now.
        `aurora_router.check` asks it.
        """
        if self.instance is not None and not self._cluster.view.is_current(self.instance, self.generation):
            return False
        return None if self.pooled or self.instance is None else True
