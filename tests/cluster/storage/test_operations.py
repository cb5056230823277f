from __future__ import annotations

import inspect
import json

import pytest

from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.history import EpochStart, History, Timeline
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter, NodeState
from aurora_router_cluster.storage.core.scrub import Loss
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.operations import CHARTER as CHARTERS
from aurora_router_cluster.storage.operations import DAMAGE, EXTENTS, NODE_STATE, OPERATIONS, SPANS, NodeOperations
from aurora_router_cluster.storage.protocols import NodeHandle

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


def travel(codec, value):
    facts, data = codec.encode(value)
    return codec.decode(json.loads(json.dumps(facts)), data)


def test_a_state_comes_back_as_it_was():
    state = NodeState(4, 5, CHARTER, {0: 240, 1: 250}, 230, 110, 2, {3: {0: 120}, 4: {}})
    assert travel(NODE_STATE, state) == state


def test_a_charter_comes_back_as_it_was():
    assert travel(CHARTERS, CHARTER) == CHARTER


def test_extents_spans_and_damage_come_back():
    extents = [Extent(0, 100, 100, b"abc"), Extent(1, 100, 103, b""), Extent(0, 103, 103, b"defg")]
    assert travel(EXTENTS, extents) == extents
    spans = [Span(1, 2, 3), Span(3, 3, 9)]
    assert travel(SPANS, spans) == spans
    losses = [Loss(1, Span(1, 2, 3))]
    assert travel(DAMAGE, (1, losses)) == (1, losses)


@pytest.mark.parametrize("operation", list(OPERATIONS.values()), ids=list(OPERATIONS))
def test_each_operation_has_the_same_parameters_wherever_it_is_declared(operation):
    handle = NodeOperations if operation.owner else NodeHandle
    for where in (StorageNode, NodeOperations, handle):
        names = tuple(inspect.signature(getattr(where, operation.name)).parameters)
        assert names == ("self", *operation.parameters)


def test_a_handle_offers_no_operation_that_is_not_declared():
    asked = {name for name, one in vars(NodeHandle).items() if inspect.iscoroutinefunction(one)}
    assert asked == {name for name, operation in OPERATIONS.items() if not operation.owner}
