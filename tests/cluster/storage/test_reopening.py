"""A node whose disk failed reports why the disk takes nothing now, which may be another reason than at first."""

from __future__ import annotations

import pytest

from aurora_router_cluster.storage.reopening import open_node, reopen


@pytest.mark.asyncio
async def test_the_reason_is_that_of_the_last_attempt(tmp_path):
    directory = tmp_path / "node-0"
    directory.mkdir()
    node = await open_node(0, directory, sync=False)
    node.fail("[Errno 28] No space left on device")
    assert "No space left" in node.failure
    trial = directory / "trial"
    trial.mkdir()  # where the trial file would be
    assert await reopen(node, directory, sync=False) is None
    assert node.failure.startswith("node 0 cannot write its journal: [Errno 21] Is a directory")
    trial.rmdir()
    again = await reopen(node, directory, sync=False)
    assert again.failure is None
    await again.close()
