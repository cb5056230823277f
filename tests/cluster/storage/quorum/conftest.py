from __future__ import annotations

import pytest

from tests.cluster.storage.quorum.support import Cluster


@pytest.fixture
async def cluster(binaries, account, template, run_directory):
    made = Cluster(binaries, account, run_directory)
    try:
        await made.start(template, readers=2)
        yield made
    finally:
        await made.close()
