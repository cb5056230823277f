"""What a user's balance function gets of an instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from aurora_router.model.instance import Role


@frozen
class Candidate:
    """An instance that suits, and what is known of it. Figures of the server's are as old as the topology.

    Attributes:
        id: its id.
        role: `Role.UNKNOWN` if it still has to be asked.
        zone: its availability zone, by ``aurora_zone_map``, the source of attributes or the topology; None: not known.
        lag: its replica lag in seconds, as it was reported last; 0.0 for the writer; None: not known.
        cpu: its CPU use in percent, 0..100; None: not known.
        connections: those of this process to it, open or being opened.
        latency: of its answers to dials of this process, a moving average in seconds; None: not measured yet.
        weight: by ``aurora_weights``, or else by the instances' classes; 1 if it is not known.
        clients: connections of all clients to it, as it reported at most three minutes ago; None: not known, as where
            ``aurora_zones`` is not set.
    """

    id: str
    role: Role
    zone: str | None
    lag: float | None
    cpu: float | None
    connections: int
    latency: float | None
    weight: int
    clients: int | None = None
