"""Some dozens of processes in three zones; the whole simulation is `zones.main`."""

from __future__ import annotations

import pytest

from tests.simulation import zones
from tests.simulation.zones import BUSIEST, EVEN, LOCAL, UNEVEN

SCENES = {
    "pools": {"processes": 45, "seconds": 480.0},
    "20 s": {"processes": 150, "lifetime": 20.0, "seconds": 420.0},
}
TWO_EACH = pytest.param(
    {"processes": 60, "readers": 2, "seconds": 480.0}, marks=pytest.mark.slow, id="pools, two readers each"
)
MOST = pytest.param((0.6, 0.3, 0.1), marks=pytest.mark.slow, id="(0.6, 0.3, 0.1)")
EACH = [*(pytest.param(scene, id=name) for name, scene in SCENES.items()), TWO_EACH]


@pytest.mark.parametrize("scene", EACH)
def test_even_clients_stay_in_their_zone(scene):
    assert zones.run(EVEN, **scene).local >= LOCAL


@pytest.mark.parametrize("scene", EACH)
@pytest.mark.parametrize("clients", [UNEVEN, MOST], ids=str)
def test_with_uneven_clients_no_reader_is_much_busier_than_the_mean(scene, clients):
    found = zones.run(clients, **scene)
    assert found.busiest <= BUSIEST
    assert found.local >= 0.65, "of the clients a third of all connections fits nearby, of 60 %"
    assert found.moves <= 1.0, "what has found its place stays there"


def test_with_all_clients_in_one_zone_each_reader_has_its_share():
    assert zones.run((1.0, 0.0, 0.0), processes=60, seconds=480.0).busiest <= BUSIEST


def test_without_figures_the_nearest_zone_has_all(monkeypatch):
    monkeypatch.setattr(zones.Process, "learn", lambda process, now: None)
    assert zones.run(UNEVEN, processes=30, seconds=300.0).busiest > 1.7
