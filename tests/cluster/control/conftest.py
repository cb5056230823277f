"""What the tests of the control plane share."""

from __future__ import annotations

import pytest

from aurora_router_cluster.control.instance import Instance
from aurora_router_cluster.postgres.addresses import Address


@pytest.fixture
async def instance(make_engine, template):
    """A running server of its own, as the control plane has it."""
    engine = make_engine()
    await engine.clone(template)
    engine.configure({}, standby=False)
    engine.start()
    await engine.wait()
    instance = Instance(engine, "eu-test-1a", 1, Address("127.0.0.1", engine.port))
    yield instance
    instance.forget()
