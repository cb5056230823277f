"""What a selection is made from: loads, randomness, and all that filters, preferences and choosers look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.instance_class import size_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.model.description import CustomEndpoint
    from aurora_router.model.instance import Instance
    from aurora_router.model.view import View
    from aurora_router.policy.options import Options
    from aurora_router.policy.quarantine import Quarantine

Rank = tuple[int, ...]
"""How much an instance is preferred, by each of `balance.PREFERENCES`; the lowest is best."""


class Random(Protocol):
    """A source of randomness; a `random.Random` is one."""

    def random(self) -> float:
        """A number of [0, 1)."""
        ...


class Load(NamedTuple):
    """What this process puts on an instance.

    Attributes:
        connections: open ones, and those being opened.
        latency: of its answers to dials, in seconds; None: not measured yet.
    """

    connections: int = 0
    latency: float | None = None


NO_LOAD = Load()


class Context(NamedTuple):
    """What filters, preferences and choosers look at; see `balance.select` for the meaning of each."""

    view: View
    options: Options
    role: WantedRole
    loads: Mapping[str, Load]
    quarantine: Quarantine
    now: float
    rng: Random
    turn: int
    endpoint: CustomEndpoint | None = None

    def load(self, instance: Instance) -> Load:
        """What this process puts on an instance."""
        return self.loads.get(instance.id, NO_LOAD)

    def zone(self, instance: Instance) -> str | None:
        """An instance's zone: what the user configured comes first."""
        given = dict(self.options.zone_map).get(instance.id.lower())
        return given or self.view.attributes_of(instance.id).zone or instance.zone

    def weight(self, instance: Instance) -> int:
        """An instance's share with the balance ``weighted``; 1 for all as a writer.

        Without ``aurora_weights`` it is the size of the instance's class, if that of every instance is known.
        """
        if self.role is WantedRole.WRITER:
            return 1
        if self.options.weights:
            return dict(self.options.weights).get(instance.id.lower(), 1)
        if not self.view.attributes:
            return 1
        sizes = {id_: size_of(self.view.attributes_of(id_).instance_class) for id_ in self.view.instances}
        return 1 if None in sizes.values() else sizes.get(instance.id) or 1


class Exclusion(NamedTuple):
    """Why an instance does not suit, as the end of a sentence that begins with its name."""

    instance: Instance
    reason: str
