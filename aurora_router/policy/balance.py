"""Which instance a connection goes to, and which ones after it: filters, then preferences, then a chooser.

Invariants (property tests): the order holds every instance that passes the filters exactly once; an instance never
comes before one that is preferred; every instance of the view is either in the order or left out with a reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aurora_router.forks import IMPORTING
from aurora_router.policy.candidates import Context, Exclusion, Load, Random, Rank, rank, suitable
from aurora_router.policy.choosers import CHOOSERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.model.endpoint import WantedRole
    from aurora_router.model.instance import Instance
    from aurora_router.model.view import View
    from aurora_router.policy.options import Options
    from aurora_router.policy.quarantine import Quarantine

__all__ = ["Load", "Random", "Selection", "select"]


class Selection(NamedTuple):
    """Which instances to try, in this order.

    Attributes:
        order: the first choice, then the alternatives; empty when none suits. An instance in it whose role is
            `Role.UNKNOWN` has to be asked for its role before it is used.
        ranks: how much each of `order` is preferred; equal ranks are equally good.
        left_out: the instances that do not suit, and why.
        context: what the selection was made from.
    """

    order: tuple[Instance, ...]
    ranks: tuple[Rank, ...]
    left_out: tuple[Exclusion, ...]
    context: Context

    @property
    def reason(self) -> str:
        """Say in one sentence why the first choice was chosen, or why there is none."""
        with IMPORTING:
            from aurora_router.policy.explain import reason  # noqa: PLC0415 - for errors alone

        return reason(*self)

    @property
    def lines(self) -> list[str]:
        """Every instance in one line: first those in the order of preference, then those left out."""
        with IMPORTING:
            from aurora_router.policy.explain import lines  # noqa: PLC0415 - for explanations alone

        return lines(self.order, self.left_out, self.context)

    def preferring(self, instance: str) -> Selection:
        """The same selection with one instance in front, if it is as good as the first choice; else unchanged.

        For a connection that is already there: it is not worth a worse zone or the writer in place of a reader.
        """
        for position, each in enumerate(self.order):
            if each.id == instance and self.ranks[position] == self.ranks[0]:
                return self._replace(order=(each, *self.order[:position], *self.order[position + 1 :]))
        return self


def select(
    view: View,
    options: Options,
    role: WantedRole,
    *,
    loads: Mapping[str, Load],
    quarantine: Quarantine,
    now: float,
    rng: Random,
    turn: int = 0,
) -> Selection:
    """Choose instances for one connection.

    For concurrent connects to spread, the caller counts each selection (a connection being opened in `loads`, the next
    `turn`) before it makes the next one.

    Args:
        view: the cluster as last known.
        options: balance, weights, lag, zones, fall-back.
        role: which instances may serve, by `Options.role` or the kind of endpoint.
        loads: what this process puts on each instance, by id; one that is missing counts as unused.
        quarantine: which instances failed recently.
        now: the time by the runtime's clock, in seconds.
        rng: for ties and for the strategies that draw.
        turn: a number that the caller increases by one with each selection; best started at a random one, so that many
            processes do not start with the same instance.
    """
    context = Context(view, options, role, loads, quarantine, now, rng, turn)
    candidates = suitable(view.instances.values(), context)
    tiers: dict[Rank, list[Instance]] = {}
    for each in candidates.kept:
        tiers.setdefault(rank(each, context), []).append(each)
    choose = CHOOSERS[options.balance]
    order: list[Instance] = []
    ranks: list[Rank] = []
    for number in sorted(tiers):
        tier = tiers[number]
        order += choose(tier, context) if len(tier) > 1 else tier
        ranks += [number] * len(tier)
    return Selection(tuple(order), tuple(ranks), candidates.left_out, context)
