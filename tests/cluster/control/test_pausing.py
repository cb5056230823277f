"""Auto-pause of a real cluster: instances fall asleep without users, wake up for a client, and the driver waits."""

from __future__ import annotations

import time

import psycopg
import pytest

import aurora_router
from aurora_router.model.event import InstanceFailed, WriterChanged, WriterSuspected
from aurora_router_cluster import LocalCluster
from aurora_router_cluster.postgres import arrivals

pytestmark = pytest.mark.cluster

PAUSE = 2.0


def states(cluster):
    return [one.state for one in cluster.instances]


@pytest.mark.skipif(
    not arrivals.can_be_seen(), reason="this system does not show clients that connect to a stopped process"
)
def test_an_instance_that_needs_twelve_seconds_to_wake(eventually, events):
    """The connect succeeds once the instance is awake, and no failover is seen."""
    with LocalCluster.start(readers=1, serverless="0..8", pause_after=PAUSE, resume=12) as cluster:
        eventually(lambda: states(cluster) == ["paused"] * 2)
        assert [one.capacity for one in cluster.instances] == [0.0, 0.0]
        conninfo = cluster.conninfo(aurora_auto_pause=PAUSE, aurora_connect_timeout=3)
        began = time.monotonic()
        with aurora_router.connect(conninfo) as connection:
            took = time.monotonic() - began
            assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)
        assert 12.0 <= took <= 20.0
        eventually(lambda: states(cluster) == ["available"] * 2)
        assert all(one.capacity >= 0.5 for one in cluster.instances)
        assert not [each for each in events if isinstance(each, (InstanceFailed, WriterSuspected))]
        assert [each.new for each in events if isinstance(each, WriterChanged)] == [cluster.writer]
        assert cluster.status().epoch == 1
        eventually(lambda: states(cluster) == ["paused"] * 2)


@pytest.mark.skipif(not arrivals.can_be_seen(), reason="see above")
def test_what_sleeps_together_and_what_keeps_awake(eventually):
    with LocalCluster.start(readers=1, serverless="0..8", pause_after=PAUSE, resume=0.5) as cluster:
        first, alone = cluster.readers[0], cluster.add_reader(tier=5).name
        with aurora_router.connect(cluster.conninfo(f"instance:{alone}", aurora_auto_pause=PAUSE, aurora_refresh=1)):
            eventually(lambda: cluster.instance(first).state == cluster.instance(cluster.writer).state == "paused")
            time.sleep(2 * PAUSE)
            assert cluster.instance(alone).state == "available", "a session is open"
            assert cluster.instance(cluster.writer).state == "paused", "the monitor does not ask it"
        eventually(lambda: cluster.instance(alone).state == "paused")
        with psycopg.connect(cluster.plain_conninfo(f"instance:{first}")) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
            eventually(lambda: cluster.instance(cluster.writer).state == "available")
            assert cluster.instance(alone).state == "paused"
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            connection.execute("create table written (n int)")
            connection.execute("insert into written values (7)")
        with psycopg.connect(cluster.plain_conninfo(f"instance:{alone}")) as connection:
            eventually(lambda: connection.execute("select to_regclass('written')").fetchone() != (None,))
            assert connection.execute("select n from written").fetchone() == (7,)
        eventually(lambda: states(cluster) == ["paused"] * 3)
        assert cluster.failover(first).writer == first, "a request wakes it"
        messages = [(each["source"], each["message"]) for each in cluster._ask("events")]
        assert (alone, "DB instance paused") in messages
        assert (first, "DB instance resumed") in messages
