"""A storm of a twenty-fifth of the size, which keeps the same bounds; the whole one is `storm.main`."""

from __future__ import annotations

import pytest

from tests.simulation import storm


@pytest.fixture
def small(monkeypatch):
    """A server that takes as much less, with as much shorter a listen queue."""
    monkeypatch.setattr(storm, "BACKLOG", storm.BACKLOG // 25)
    return lambda **how: storm.Storm(400, 20, 20.0, **how).run()


@pytest.mark.parametrize("seed", [1, 2])
def test_everybody_is_back_soon_and_the_server_is_not_trampled(small, seed):
    figures = small(spread=True, seed=seed)
    for name, bound in storm.BOUNDS.items():
        if not name.startswith("dials"):  # so few processes that chance moves a single second
            assert figures[name] <= bound, name
    assert figures["dials after the first second / connections"] <= 1.2


@pytest.mark.slow
def test_without_the_spreading_the_server_is_trampled(small):
    figures = small(spread=False)
    assert figures["dials after the first second / connections"] > 2
