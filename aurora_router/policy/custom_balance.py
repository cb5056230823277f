"""A user's function in the place of a balancing strategy: what it gets, and how its answer is read.

Filters and preferences of `policy.balance` come first: the function chooses among instances that suit equally, so no
answer of it can put a connection on an instance of another role, or on one that lags too far.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from aurora_router.errors import ExtensionFailed
from aurora_router.policy.affinity import find_occupancy
from aurora_router.policy.candidate import Candidate
from aurora_router.policy.choosers import least_connections

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.model.instance import Instance
    from aurora_router.policy.context import Context
    from aurora_router.policy.options import CustomBalance


def order_by_function(custom: CustomBalance, instances: Sequence[Instance], context: Context) -> list[Instance]:
    """Order all instances: first those that the function names, the others by the connections of this process.

    Raises:
        ExtensionFailed: it raised, or returned anything but its candidates.
    """
    candidates = tuple(_describe(each, context) for each in instances)
    ids = [each.id if isinstance(each, Candidate) else each for each in _call(custom, candidates)]
    by_id = {each.id: each for each in instances}
    fault = None
    if not ids:
        fault = "no candidate: it has to return one, its id, or several in order"
    elif unknown := [each for each in ids if each not in by_id]:
        fault = f"{unknown[0]!r}, which is none of its candidates ({', '.join(by_id)})"
    elif len(set(ids)) < len(ids):
        fault = f"a candidate twice ({', '.join(map(str, ids))})"
    if fault is not None:
        raise ExtensionFailed(f"the balance function {custom.name} returned {fault}")
    others = [each for each in instances if each.id not in ids]
    return [by_id[str(id_)] for id_ in ids] + least_connections(others, context)


def _call(custom: CustomBalance, candidates: Sequence[Candidate]) -> list[object]:
    """What the function returns, as a list.

    Raises:
        ExtensionFailed: it raised, or returned neither a candidate nor several.
    """
    try:
        answer: object = custom.function(candidates)
        if isinstance(answer, (str, Candidate)):
            return [answer]
        if isinstance(answer, Iterable):
            return list(answer)
    except Exception as error:
        raise ExtensionFailed(f"the balance function {custom.name} raised {type(error).__name__}: {error}") from error
    raise ExtensionFailed(
        f"the balance function {custom.name} returned a {type(answer).__name__}: "
        "it has to return a candidate, its id, or several in order"
    )


def _describe(instance: Instance, context: Context) -> Candidate:
    load = context.load(instance)
    zone, weight = context.zone(instance), context.weight(instance)
    occupancy = find_occupancy(instance, context.now)
    clients = None if occupancy is None else occupancy.connections
    return Candidate(
        instance.id, instance.role, zone, instance.lag, instance.cpu, load.connections, load.latency, weight, clients
    )
