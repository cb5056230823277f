"""Zone affinity on real instances: what they say of their clients, and where connects and pools go by that."""

from __future__ import annotations

import time
import uuid
from contextlib import ExitStack

import psycopg
import pytest

import aurora_router
from aurora_router.runtime.monitor_runtime import SESSION_NAME
from aurora_router_cluster import LocalCluster

pytestmark = [pytest.mark.cluster, pytest.mark.case]

PATIENCE = 30.0
CROWD = 12


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=2, auto=False) as cluster:
        yield cluster


def test_connects_leave_a_busy_zone(cluster):
    near, far = cluster.readers
    named = {"aurora_cluster": f"zones-{uuid.uuid4().hex}"}  # nothing is known of it yet, also in a second try
    options = {"aurora_zones": "near", "aurora_zone_map": f"{near}=near,{far}=far", **named}
    deadline = time.monotonic() + PATIENCE
    while None in [cluster.instance(each).lag_ms for each in (near, far)]:  # an unknown lag counts before the zone
        assert time.monotonic() < deadline
        time.sleep(0.05)
    with ExitStack() as stack:
        for _ in range(CROWD):  # clients that know nothing of zones
            stack.enter_context(psycopg.connect(cluster.plain_conninfo(f"instance:{near}")))
        first = stack.enter_context(aurora_router.connect(cluster.conninfo("reader"), **options))
        assert first.placement.instance == near, "nothing is known of the load yet"
        deadline = time.monotonic() + PATIENCE
        while None in (found := [each.occupancy for each in first.placement.view.readers()]):
            assert time.monotonic() < deadline, found
            time.sleep(0.05)
        clients = {each.id: each.occupancy.connections for each in first.placement.view.readers()}
        assert CROWD + 1 <= clients[near] <= CROWD + 4
        assert clients[far] <= 2
        later = [stack.enter_context(aurora_router.connect(cluster.conninfo("reader"), **options)) for _ in range(12)]
        overflown = [each for each in later if each.placement.instance == far]
        assert len(overflown) >= 3, "less than half of the connects leave by chance once in 1,000 runs"
        assert "zone near has" in overflown[0].placement.reason
        rows = later[0].execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE %s", [f"{SESSION_NAME}%"]
        )
        assert rows.fetchone() == (0,), "no session of the monitor's stays at a reader for that"
