from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_router_cluster.dns.names import ZONES
from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.storage.core.errors import NodeFailed
from aurora_router_cluster.storage.nodes import NodeSet


class Failed(SimpleNamespace):
    """A node that runs and whose disk is full."""

    empty = False

    async def state(self):
        if self.failure is not None:
            raise NodeFailed(self.failure)

    async def start(self):
        pass

    async def reopen(self):
        if self.room:
            self.failure = None
        return self.room


@pytest.fixture
def nodes(tmp_path):
    came_up = []
    made = NodeSet(tmp_path, ZONES, "secret", came_up.append)
    made.came_up = came_up
    made[0] = Failed(node=0, up=True, failure="its disk is full", room=False)
    return made


async def test_a_node_whose_disk_still_fails_is_not_said_to_be_up(nodes):
    with pytest.raises(EngineError, match=r"storage node 0 runs, but its disk fails: its disk is full.*replace-node 0"):
        await nodes.up(0)
    assert nodes.came_up == []
    nodes[0].room = True
    await nodes.up(0)
    assert nodes.came_up == [0]


async def test_what_is_advised_fits_what_is_wrong(nodes):
    for number in range(1, 6):
        await nodes[number].start()
    assert nodes.advice() == "let the disks of 0 take writes again (they come back by themselves then)"
    await nodes.down(5)
    assert nodes.advice().endswith("and bring up a storage node that is down (cluster node-up): 5")
    nodes[0].failure = None
    assert nodes.advice() == "bring up a storage node that is down (cluster node-up): 5"
    nodes[0].failure = "its disk is full"
    del nodes[0]
    await nodes.close()
