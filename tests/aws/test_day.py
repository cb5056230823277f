"""A day in virtual time: tokens end, secrets rotate, instances fail over, AWS is away; no login fails for that."""

from __future__ import annotations

import pytest

from aurora_router.model.event import MonitorLockedOut

from .day import Secrets, Tokens, World, make_virtual


@pytest.fixture
def virtual(monkeypatch, keys):
    """Each `World` of a test."""
    return make_virtual(monkeypatch)


@pytest.mark.one_python
@pytest.mark.parametrize("kind", [Tokens, Secrets])
@pytest.mark.parametrize("hours", [3, pytest.param(24, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_no_login_fails_on_credentials(kind, hours, virtual, monkeypatch):
    world = World(1, kind, hours, monkeypatch)
    virtual.append(world)
    world.run()
    print(kind.__name__, dict(world.counts))
    assert world.errors == []
    assert [each for _, _, each in world.process.events if isinstance(each, MonitorLockedOut)] == []
    assert world.counts["connects"] > 15 * hours
    assert sum(world.counts[what] for what in ("failover", "crash the writer", "hang")) > 2 * hours
    if kind is Tokens:
        assert world.counts["rejected"] == 0
        assert world.counts["tokens"] >= 8 * hours
    else:
        assert world.server.wanted == hours + 1
        assert world.counts["AWSPENDING"] >= 1
