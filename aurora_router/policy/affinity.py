"""Zone affinity with overflow: the nearest zone, while its instances are not much busier than the others.

Theory. Each client prefers the instances that are near, and clients are not spread over the zones as instances are. So
the load of a zone is compared with what all bear on average: the client connections of an instance, as it reported
itself (`Occupancy`), of all processes. A process learns them once a minute, and a thousand processes learn the same:
if each of them moved as soon as a bound is exceeded, all would move at once, and back again. Two things prevent that:

- *A connect* keeps to a zone with a probability that falls evenly from 1 to 0 while the zone's load rises from the
  first to the second figure of a `Band`, in multiples of the mean. The zones then meet where what they keep is what
  they bear: with n zones that have equally many instances, and all clients in one of them, at 1.22 for n = 3 and below
  1.3 for every n. Figures are late, and a late answer to a deviation can make it larger. Here it does not, where
  connections are short: the processes ask at times of their own, so what all of them do follows the mean of the
  load over one interval between two figures, and y(t) = -G · mean of y over the interval has no growing solution,
  whatever the gain G is: w + G = G · exp(-w) has none with a positive real part.
- *A pool* moves connections that it has. It compares what it had in the zone when the figure was taken with the load
  that there was: had all done alike, `TARGET` / load of that would be right. So each figure permits to move that many,
  and no more until the next; between `BACK` and `PUSH` nothing moves.

Loads are small numbers somewhere: `SLACK` connections more than the mean are no overload. What the process itself has
done since the figure counts. A figure is good for `FRESH_SECONDS`; an instance without one counts as much as those with
one do on average, and if no instance of the nearest zone has one, or none of the further zones, the nearest zone is
kept to: what this process has itself says nothing of the others.

A further zone has clients of its own: it takes overflow while it bears no more than about its share, an instance of it
in proportion to what it has left up to that.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.policy.options import Balance
from aurora_router.policy.poll_interval import LOAD_SECONDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aurora_router.model.instance import Instance, Occupancy
    from aurora_router.policy.context import Context

FRESH_SECONDS = 3.0 * LOAD_SECONDS
"""How old a figure may be."""
SLACK = 3.0
"""So many connections above the mean are no overload: they may be chance, and weigh little."""


class Band(NamedTuple):
    """Up to which load a zone keeps all connections, and from which on none; in multiples of the mean of all."""

    all: float
    none: float

    def keep(self, load: float) -> float:
        """The share of the connections that are kept at a load, 0..1."""
        return min(1.0, max(0.0, (self.none - load) / (self.none - self.all)))


NEAREST = Band(1.05, 1.25)
"""Of the nearest zone: 1.05, since with equally many clients in all zones chance alone makes differences."""
FURTHER = Band(0.9, 1.1)
"""Of a further zone: it is not loaded with more than about its share for clients of other zones."""
TRUST = 0.75
"""How much that counts which this process's own share and the figures advise; the rest is the band's."""
PUSH = 1.2
"""From this load of the nearest zone on, in multiples of the mean, pools move connections away."""
TARGET = 1.1
"""To this load."""
BACK = 1.0
"""Below this load they move connections back."""


class Affinity(NamedTuple):
    """The zones over which connections may be spread, and how busy they are.

    Attributes:
        zones: the instances that suit equally but for their zone, nearest first; two zones at least.
        loads: the client connections that each instance is taken to have now, by id; per unit of weight where weights
            count.
        mean: of all of them.
        advised: the share of its connections that this process should have in the nearest zone, by what it had when the
            figures were taken; None: it had none.
    """

    zones: Sequence[Sequence[Instance]]
    loads: Mapping[str, float]
    mean: float
    advised: float | None = None

    def load(self, zone: int) -> float:
        """The load of a zone's instances, in multiples of the mean of all; without what may be chance."""
        return self.raw_load(zone) - SLACK / self.mean

    def raw_load(self, zone: int) -> float:
        """The load of a zone's instances, in multiples of the mean of all."""
        instances = self.zones[zone]
        return sum(self.loads[each.id] for each in instances) / len(instances) / self.mean

    def keep(self, zone: int) -> float:
        """The share of the connections that a zone keeps, of those that no nearer one has kept."""
        if zone == len(self.zones) - 1:
            return 1.0
        if zone:
            return FURTHER.keep(self.load(zone))
        kept = NEAREST.keep(self.load(zone))
        return kept if self.advised is None or kept >= 1.0 else kept + TRUST * (self.advised - kept)

    @property
    def reach(self) -> int:
        """How many zones may get a connection, by chance."""
        return 1 + next(zone for zone in range(len(self.zones)) if self.keep(zone) >= 1.0)

    def draw(self, context: Context) -> int:
        """The zone for one connection."""
        for zone in range(self.reach - 1):
            if context.rng.random() < self.keep(zone):
                return zone
        return self.reach - 1

    def draw_instance(self, zone: int, context: Context) -> Instance | None:
        """The instance of a further zone for one connection; None: all of them have their share already.

        In proportion to what is left up to that.
        """
        instances = self.zones[zone]
        left = [max(0.0, FURTHER.none * self.mean - self.loads[each.id]) for each in instances]
        point = context.rng.random() * sum(left)
        for each, part in zip(instances, left, strict=True):
            if point < part:
                return each
            point -= part
        return None


def find_affinity(
    zones: Sequence[Sequence[Instance]], context: Context, leaving: Mapping[str, int] | None = None
) -> Affinity | None:
    """Return how busy zones are, nearest first; None: there is one alone, or not enough is known.

    Args:
        zones: the instances that suit equally but for their zone.
        context: what a selection is made from.
        leaving: connections of this process that are about to be closed, by instance.
    """
    if len(zones) < 2:
        return None
    loads: dict[str, float] = {}
    for each in (each for zone in zones for each in zone):
        occupancy = find_occupancy(each, context.now)
        if occupancy is not None:
            since = context.load(each).connections - (leaving or {}).get(each.id, 0) - occupancy.own
            loads[each.id] = max(0.0, occupancy.connections + since) / _weight(each, context)
    is_known = [any(each.id in loads for each in zone) for zone in zones]
    if not (is_known[0] and any(is_known[1:])):
        return None
    usual = sum(loads.values()) / len(loads)
    loads = {each.id: loads.get(each.id, usual) for zone in zones for each in zone}
    mean = sum(loads.values()) / len(loads)
    return Affinity(zones, loads, mean, _advise(zones, context)) if mean > 0.0 else None


def find_occupancy(instance: Instance, now: float) -> Occupancy | None:
    """The last figure of an instance's client connections; None: there is none, or it is too old."""
    occupancy = instance.occupancy
    return None if occupancy is None or now - occupancy.at > FRESH_SECONDS else occupancy


def _weight(instance: Instance, context: Context) -> int:
    return max(1, context.weight(instance)) if context.options.balance is Balance.WEIGHTED else 1


def find_misplaced(
    affinity: Affinity, context: Context, own: Mapping[str, int], leaving: Mapping[str, int]
) -> frozenset[str]:
    """Return the instances from which a group of connections has to move to another zone, at the present loads.

    Args:
        affinity: how busy the zones are, without the connections that leave.
        context: what a connect of the group would be made from; the loads are the whole process's.
        own: the group's connections by instance, without those that leave.
        leaving: those that are to be recycled and still open, by instance.
    """
    nearest, is_crowded = affinity.zones[0], affinity.load(0) > PUSH
    if not is_crowded and affinity.raw_load(0) >= BACK:
        return frozenset()
    here = sum(context.load(each).connections - leaving.get(each.id, 0) for each in nearest)
    # What replaces a connection that leaves is taken to be where it is to go.
    coming = 0 if is_crowded else sum(leaving.get(each.id, 0) for zone in affinity.zones[1:] for each in zone)
    permitted = _find_permitted(affinity, context)
    if is_crowded:
        return frozenset(each.id for each in nearest if own.get(each.id)) if here > permitted else frozenset()
    if here + coming >= permitted:
        return frozenset()
    return frozenset(each.id for zone in affinity.zones[1:] for each in zone if own.get(each.id))


def _find_permitted(affinity: Affinity, context: Context) -> float:
    """How many connections this process may have in the nearest zone until the next figure.

    A fraction of one is decided by lot, once for each figure.
    """
    figures = _Figures.of(affinity.zones, context)
    lot = math.modf(figures.at * 1009.0)[0]
    return math.floor(max(1.0, figures.near) * TARGET / figures.load + lot) if figures.load > 0.0 else math.inf


class _Figures(NamedTuple):
    """The last figures, as they were taken.

    Attributes:
        load: of the nearest zone, in multiples of the mean of all.
        near: how many connections this process had there.
        own: how many it had in all zones.
        at: when the last one was taken.
    """

    load: float
    near: int
    own: int
    at: float

    @classmethod
    def of(cls, zones: Sequence[Sequence[Instance]], context: Context) -> _Figures:
        known = [(zone, each, find_occupancy(each, context.now)) for zone, those in enumerate(zones) for each in those]
        taken = [(zone, figure, _weight(each, context)) for zone, each, figure in known if figure is not None]
        loads = [figure.connections / weight for _, figure, weight in taken]
        near = [figure.connections / weight for zone, figure, weight in taken if not zone]
        mean = sum(loads) / len(loads)
        return cls(
            sum(near) / len(near) / mean if mean else 0.0,
            sum(figure.own for zone, figure, _ in taken if not zone),
            sum(figure.own for _, figure, _ in taken),
            max(figure.at for _, figure, _ in taken),
        )


def _advise(zones: Sequence[Sequence[Instance]], context: Context) -> float | None:
    """See `Affinity.advised`."""
    figures = _Figures.of(zones, context)
    return min(1.0, figures.near / figures.own * TARGET / figures.load) if figures.own and figures.load > 0.0 else None
