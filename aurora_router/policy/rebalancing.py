"""Which connections of a pool are recycled so that the cluster's instances get their fair share of them again.

Theory. A connect chooses well, by what is known at that moment; a pool then keeps the connection while readers join,
leave and fail. So the connections that a pool gets back are compared with what the strategy would do now. The *peers*
are the instances that a connect would choose among: suitable, healthy, and of the best rank (role, lag, zone). A
connection to any other instance that is at hand is surplus. Among the peers it depends on the strategy:

- A strategy that counts connections (``least_connections``, ``fastest``) puts the next one where the fewest are. So one
  is surplus if another peer has at least two fewer: then the move makes the difference smaller, and the next look at
  the same instances finds less to do. ``fastest`` compares only the fast ones, and an unmeasured one that has none.
- A strategy with shares (``round_robin``, ``weighted``, ``random``) does not look at the counts. Here something is
  surplus only while an instance is more than a tolerance away from its share of this group's connections.
- ``two_choices`` is left as it is unless the fullest instance is also the one under the most pressure.
- A function of the user's has shares that only it knows: nothing is surplus among its peers.

Where the nearest zone is busier than the others, connects overflow to further zones (`policy.affinity`). What went
there is at hand as well, and stays: it is surplus only while the nearest zone is less busy than the others, and what is
in the nearest zone while it is much busier; of each as many as the last figures permit.

An instance that failed, and has not answered since, is no peer; the connections to it that still work stay. While the
writer is suspected nothing is surplus: what is known of the instances is about to change.

An instance that an operator drains is no peer as long as another one is there. It is about to go, so its connections
are not recycled at a rate: each as soon as its user has returned it. The others only get what it had.

How fast, is the `Pace`. Thousands of processes learn of a new reader within seconds of each other. Each begins after a
random pause, and then recycles at most `RATE` of its connections per second, one by one, so that the reader warms up,
no storm of connects arises, and a finding that was wrong costs little.

Invariants (property tests): within any time of n seconds at most 1 + n · RATE · connections are recycled, besides
those of a drained instance; nothing is
recycled when all is balanced; from any distribution the strategies that count, ``round_robin`` and ``weighted`` get
within one connection of the fair share, and then stop.
"""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.instance import Role
from aurora_router.policy.affinity import find_affinity, find_misplaced
from aurora_router.policy.balance import find_zones, make_tiers, suitable
from aurora_router.policy.choosers import are_fast, pressure
from aurora_router.policy.options import Balance

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aurora_router.model.instance import Instance
    from aurora_router.policy.context import Context

RATE = 0.1
"""The share of a process's connections that is recycled per second at most: a whole pool takes ten seconds."""
FIRST_PAUSE = (1.0, 5.0)
"""How long a process waits after it found a surplus: at least, since it may pass, and at most; in seconds."""
CALM_SECONDS = 1.0
"""Between two looks while there is no surplus."""
FRESH_SECONDS = 0.25
"""For how long a surplus that was found counts; after each recycled connection it is looked for again."""
TOLERANCE: Mapping[Balance, float] = MappingProxyType(
    {Balance.ROUND_ROBIN: 1.0, Balance.WEIGHTED: 1.0, Balance.RANDOM: 3.0, Balance.TWO_CHOICES: 3.0}
)
"""How many connections an instance may be away from its share; less than what the strategy itself scatters by."""
KEPT = frozenset({*TOLERANCE, Balance.LEAST_CONNECTIONS, Balance.FASTEST})
"""The strategies whose balance is kept when instances join and leave: others have no connections recycled for it."""

Counts = dict[str, float]


def find_surplus(
    context: Context, own: Mapping[str, int], leaving: Mapping[str, int], *, is_suspected: bool = False
) -> frozenset[str]:
    """Return the instances to which a group of connections, all made by the same options, has too many.

    Args:
        context: what a connect of the group would be made from; the loads are the whole process's.
        own: the group's connections, by instance, without those that leave.
        leaving: those that are to be recycled and still open, by instance.
        is_suspected: whether the writer is suspected.
    """
    if is_suspected:
        return frozenset()
    zones = find_peers(context)
    if not zones:
        return frozenset()
    affinity = find_affinity(zones, context, leaving) if context.options.zones else None
    peers, misplaced = zones[0], frozenset[str]()
    ids = {each.id for each in peers}
    if affinity is not None:
        ids |= {each.id for zone in zones for each in zone}
        misplaced = find_misplaced(affinity, context, own, leaving)
    failed = context.quarantine.terms
    elsewhere = frozenset(id_ for id_, count in own.items() if count and id_ not in ids and id_ not in failed)
    crowded = frozenset(id_ for id_ in _find_crowded(peers, context, own, leaving) if own.get(id_))
    return elsewhere | misplaced | crowded


def find_drained(context: Context, own: Mapping[str, int], *, is_suspected: bool = False) -> frozenset[str]:
    """Return the drained instances whose connections are to be recycled now: others are there to take their place.

    Args and result: see `find_surplus`.
    """
    known = (context.view.instances.get(id_) for id_, count in own.items() if count)
    drained = [each for each in known if each is not None and context.view.find_drain(each, context.now) is not None]
    if not drained or is_suspected:
        return frozenset()
    peers = {each.id for zone in find_peers(context) for each in zone}
    return frozenset(each.id for each in drained if peers and each.id not in peers)


def find_peers(context: Context) -> list[Sequence[Instance]]:
    """The instances among which a connect would choose, and those as good but for their zone; nearest zone first.

    None where their roles are not known.
    """
    terms = context.quarantine.terms
    healthy = [each for each in suitable(context.view.instances.values(), context).kept if each.id not in terms]
    zones = find_zones(make_tiers(healthy, context))
    return [] if any(each.role is Role.UNKNOWN for zone in zones[:1] for each in zone) else zones


def _find_crowded(
    peers: Sequence[Instance], context: Context, own: Mapping[str, int], leaving: Mapping[str, int]
) -> Iterable[str]:
    """The ids of peers with too many connections, by the strategy."""
    balance = context.options.balance
    if not isinstance(balance, Balance) or balance not in KEPT or len(peers) == 1:
        return ()
    compared = are_fast(peers, context) if balance is Balance.FASTEST else peers
    counts = {each.id: context.load(each).connections - leaving.get(each.id, 0) for each in compared}
    if balance in {Balance.LEAST_CONNECTIONS, Balance.FASTEST}:
        return _find_above_lowest(_place(leaving, counts))
    if balance is Balance.TWO_CHOICES:
        pressures = pressure(peers, context)
        crowded = _find_above_share(counts, dict.fromkeys(counts, 1), leaving, TOLERANCE[balance])
        return [id_ for id_ in crowded if pressures[id_] == max(pressures.values())]
    weights = {each.id: context.weight(each) if balance is Balance.WEIGHTED else 1 for each in peers}
    return _find_above_share({id_: own.get(id_, 0) for id_ in weights}, weights, leaving, TOLERANCE[balance])


def _find_above_lowest(counts: Counts) -> Iterable[str]:
    """Those with at least two more than the lowest, and more than the mean: moves from others would not help."""
    if not counts:
        return ()
    lowest, mean = min(counts.values()), sum(counts.values()) / len(counts)
    return [id_ for id_, count in counts.items() if count >= lowest + 2.0 and count > mean]


def _find_above_share(
    counts: Mapping[str, float], weights: Mapping[str, int], leaving: Mapping[str, int], tolerance: float
) -> Iterable[str]:
    """Those with more than their share, if any is further away from its share than the tolerance."""
    total = sum(counts.values()) + sum(leaving.values())
    excess = {id_: counts[id_] - total * weight / sum(weights.values()) for id_, weight in weights.items()}
    excess = _place(leaving, excess)
    if all(abs(each) <= tolerance for each in excess.values()):
        return ()
    return [id_ for id_, each in excess.items() if each > 0.0]


def _place(leaving: Mapping[str, int], counts: Mapping[str, float]) -> Counts:
    """The counts once what replaces those that leave is there: each where the fewest are."""
    placed = dict(counts)
    for _ in range(sum(leaving.values()) if placed else 0):
        placed[min(placed, key=lambda id_: placed[id_])] += 1
    return placed


@frozen
class Pace:
    """When one process may recycle its next connection of a group; each method returns the next value.

    All times are in seconds, by the runtime's clock; `random` is of [0, 1).

    Attributes:
        surplus: the instances that had too many connections at the last look.
        look_at: when to look again.
        recycle_at: when the next connection may be recycled.
        drained: the instances whose connections are all recycled, whatever the rate; see `find_drained`.
    """

    surplus: frozenset[str] = frozenset()
    look_at: float = -math.inf
    recycle_at: float = -math.inf
    drained: frozenset[str] = frozenset()

    def is_idle(self, instance: str, now: float) -> bool:
        """Whether there is nothing to do for a connection to an instance: neither to look, nor to recycle it."""
        if now >= self.look_at or instance in self.drained:
            return False
        return now < self.recycle_at or instance not in self.surplus

    def record_look(
        self, surplus: frozenset[str], now: float, random: float, drained: frozenset[str] = frozenset()
    ) -> Pace:
        """After a look. The first surplus starts the pause."""
        if drained != self.drained:
            return replace(self, drained=drained).record_look(surplus, now, random, drained)
        if not surplus:
            return replace(self, surplus=surplus, look_at=now + CALM_SECONDS * (0.5 + random))
        if self.surplus:
            return replace(self, surplus=surplus, look_at=now + FRESH_SECONDS)
        shortest, longest = FIRST_PAUSE
        begin = max(self.recycle_at, now + shortest + (longest - shortest) * random)
        return replace(self, surplus=surplus, look_at=begin, recycle_at=begin)

    def may_recycle(self, instance: str, now: float) -> bool:
        """Whether a connection to an instance is to be recycled now."""
        return instance in self.drained or (instance in self.surplus and now >= self.recycle_at)

    def record_recycling(self, connections: int, now: float, random: float) -> Pace:
        """After a connection was recycled, of so many that the group has."""
        recycle_at = now + (1.0 + 0.5 * random) / (RATE * max(1, connections))
        return replace(self, look_at=recycle_at, recycle_at=recycle_at)
