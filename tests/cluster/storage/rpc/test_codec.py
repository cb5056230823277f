from __future__ import annotations

import json

from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.history import EpochStart, History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter, NodeState
from aurora_router_cluster.storage.core.scrub import Loss
from aurora_router_cluster.storage.rpc import codec

CHARTER = Charter(
    History((EpochStart(1, 100), EpochStart(3, 250))),
    Membership.of(range(6)).replacing(5, 6),
    ((0, 240), (1, 250)),
    (Timeline(3, 2, 250, b"1\t0/FA\twhy\n"),),
    {"newest": 1, "room": 2, "runs": []},
    revision=2,
    floor=120,
    collected=110,
)


def through_json(facts):
    return json.loads(json.dumps(facts))


def test_a_state_comes_back_as_it_was():
    state = NodeState(4, 5, CHARTER, {0: 240, 1: 250}, 230, 110, 2, {3: {0: 120}, 4: {}})
    assert codec.read_state(through_json(codec.state_facts(state))) == state


def test_a_charter_comes_back_as_it_was():
    assert codec.read_charter(through_json(codec.charter_facts(3, CHARTER))) == CHARTER


def test_extents_spans_and_damage_come_back():
    extents = [Extent(0, 100, 100, b"abc"), Extent(1, 100, 103, b""), Extent(0, 103, 103, b"defg")]
    facts, data = codec.extents_facts(extents)
    assert codec.read_extents(through_json(facts), data) == extents
    spans = [Span(1, 2, 3), Span(3, 3, 9)]
    assert codec.read_spans(through_json(codec.spans_facts(spans))) == spans
    losses = [Loss(1, Span(1, 2, 3))]
    assert codec.read_damage(through_json(codec.damage_facts(1, losses))) == (1, losses)
