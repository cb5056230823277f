"""Selections in words, for errors and for ``aurora-router explain``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Role
from aurora_router.policy.affinity import find_occupancy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.model.instance import Instance
    from aurora_router.policy.affinity import Affinity
    from aurora_router.policy.context import Context, Exclusion, Rank


def reason(
    order: Sequence[Instance],
    ranks: Sequence[Rank],
    left_out: Sequence[Exclusion],
    context: Context,
    overflow: Affinity | None = None,
) -> str:
    """Say in one sentence why the first choice was chosen, or why there is none; see `balance.Selection`."""
    out = "; ".join(f"{each.id} left out: {why}" for each, why in left_out)
    if not order:
        return f"no {_describe_role(context.role)} suits ({out or 'no instance is known'})"
    first = order[0]
    chosen = f"{first.id}, {_describe(first, context)}"
    if first.role is Role.WRITER and context.role in {WantedRole.READER, WantedRole.PREFER_READER}:
        return f"{chosen}, in place of a reader ({out or 'no other instance is at hand'})"
    if overflow is not None and all(each.id != first.id for each in overflow.zones[0]):
        return f"{chosen}, since {_describe_overflow(overflow, context)}"
    equals = ranks.count(ranks[0])
    return f"{chosen}, by {context.options.balance.value} of {equals}" if equals > 1 else f"{chosen}, the best one"


def lines(order: Sequence[Instance], left_out: Sequence[Exclusion], context: Context) -> list[str]:
    """Every instance of the view in one line: first those in the order of preference, then those left out."""
    chosen = [f"{number}. {each.id}: {_describe(each, context)}" for number, each in enumerate(order, 1)]
    return chosen + [f"{each.id} left out: {why}" for each, why in left_out]


def _describe_overflow(affinity: Affinity, context: Context) -> str:
    """Why a further zone was chosen, as a part of a sentence."""
    nearest = "+".join(sorted({context.zone(each) or "?" for each in affinity.zones[0]}))
    return (
        f"zone {nearest} has {affinity.load(0):.2f} times as many connections as the mean, and keeps "
        f"{affinity.keep(0):.0%} of the new ones"
    )


def _describe_role(role: WantedRole) -> str:
    return "instance" if role is WantedRole.ANY else "reader" if role is WantedRole.PREFER_READER else role.value


def _describe(instance: Instance, context: Context) -> str:
    """What counts about an instance."""
    load = context.load(instance)
    facts = [_role(instance)]
    if zone := context.zone(instance):
        facts.append(f"zone {zone}")
    if instance.lag is not None and instance.role is not Role.WRITER:
        facts.append(f"lag {instance.lag:g} s")
    facts.append(f"{load.connections} connection{'' if load.connections == 1 else 's'} from here")
    if occupancy := find_occupancy(instance, context.now):
        facts.append(f"{occupancy.connections} of all clients {context.now - occupancy.at:.0f} s ago")
    if load.latency is not None:
        facts.append(f"latency {load.latency * 1000:.3g} ms")
    if (drain := context.view.find_drain(instance, context.now)) is not None:
        facts.append(f"drained{f' ({drain.reason})' if drain.reason else ''}, a last resort")
    if left := context.quarantine.remaining(instance.id, context.now):
        facts.append(f"failed lately, a last resort for {left:.3g} s more")
    return ", ".join(facts)


def _role(instance: Instance) -> str:
    if instance.role is Role.WRITER:
        return "the writer"
    return "its role has to be asked" if instance.role is Role.UNKNOWN else "a reader"
