"""The values of the node protocol as plain facts and bytes, and back."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.replica import Metadata, NodeState
from aurora_router_cluster.storage.core.scrub import Loss

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aurora_router_cluster.storage.core.replica import Charter

_PLAIN = [each.name for each in fields(NodeState) if each.name not in {"charter", "scls", "kept"}]


def charter_facts(epoch: int, charter: Charter) -> dict[str, Any]:
    """A charter, encoded as a node writes it to its journal."""
    return {"charter": Metadata(epoch, charter).encode().decode()}


def read_charter(facts: dict[str, Any]) -> Charter:
    """The inverse of `charter_facts`."""
    return Metadata.decode(facts["charter"].encode()).charter


def state_facts(state: NodeState) -> dict[str, Any]:
    """What a node reports about itself."""
    plain = {name: getattr(state, name) for name in _PLAIN}
    kept = [[branch, list(scls.items())] for branch, scls in state.kept.items()]
    return {**plain, "scls": list(state.scls.items()), "kept": kept, **charter_facts(state.promised, state.charter)}


def read_state(facts: dict[str, Any]) -> NodeState:
    """The inverse of `state_facts`."""
    plain = {name: facts[name] for name in _PLAIN}
    kept = {branch: dict(scls) for branch, scls in facts["kept"]}
    return NodeState(**plain, scls=dict(facts["scls"]), kept=kept, charter=read_charter(facts))


def extents_facts(extents: Sequence[Extent]) -> tuple[dict[str, Any], bytes]:
    """Extents: where they lie, and their bytes end to end."""
    heads = [[each.group, each.prev, each.start, len(each.data)] for each in extents]
    return {"extents": heads}, b"".join(each.data for each in extents)


def read_extents(facts: dict[str, Any], data: bytes) -> list[Extent]:
    """The inverse of `extents_facts`."""
    found: list[Extent] = []
    at = 0
    for group, prev, start, length in facts["extents"]:
        found.append(Extent(group, prev, start, data[at : at + length]))
        at += length
    return found


def spans_facts(spans: Iterable[Span]) -> dict[str, Any]:
    """Where extents lie."""
    return {"spans": [list(span) for span in spans]}


def read_spans(facts: dict[str, Any]) -> list[Span]:
    """The inverse of `spans_facts`."""
    return [Span(*each) for each in facts["spans"]]


def damage_facts(damaged: int, losses: Iterable[Loss]) -> dict[str, Any]:
    """What a node found when it read its disk again."""
    return {"damaged": damaged, "losses": [[loss.group, *loss.span] for loss in losses]}


def read_damage(facts: dict[str, Any]) -> tuple[int, list[Loss]]:
    """The inverse of `damage_facts`."""
    return facts["damaged"], [Loss(group, Span(*span)) for group, *span in facts["losses"]]
