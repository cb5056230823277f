"""Auto-scaling of a real cluster: readers come with the load and go with it, and are what Aurora's are."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack

import psycopg
import pytest

import aurora_router
from aurora_router_cluster import LocalCluster
from aurora_router_cluster.commands import show
from aurora_router_cluster.control.autoscaling import LAST_TIER, PREFIX
from aurora_router_cluster.errors import FailoverImpossibleError, RequestError

pytestmark = pytest.mark.cluster

UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
FAST = {"scale_period": 0.1, "scale_out_cooldown": 0.5, "scale_in_cooldown": 0.5}


def autoscaled(cluster):
    return [one for one in cluster.instances if one.autoscaled]


def test_readers_come_and_go_with_the_load(eventually, capsys):
    options = {"auto_scale": "1..3", "target_connections": 4, "scale_drain": 60, "serverless": "0.5..16", **FAST}
    with LocalCluster.start(readers=1, **options) as cluster, ExitStack() as stack:
        own = cluster.readers[0]
        held = [psycopg.connect(cluster.plain_conninfo(f"instance:{own}")) for _ in range(7)]
        for each in held:
            stack.callback(each.close)
        eventually(lambda: [one.state for one in autoscaled(cluster)] == ["available"])
        (added,) = autoscaled(cluster)
        assert re.fullmatch(f"{PREFIX}-{UUID}", added.name)
        assert (added.tier, added.role, added.instance_class) == (LAST_TIER, "reader", "db.serverless")
        eventually(lambda: cluster.status().scaling["mean"] == 3.5)
        status = cluster.status()
        assert (status.scaling["least"], status.scaling["most"], status.scaling["wanted"]) == (1, 3, 2)
        assert status.serverless == {"least": 0.5, "most": 16.0, "pause_after": None}
        assert all(0.5 <= one.capacity <= 16.0 for one in status.instances)
        show.status(status)
        shown = capsys.readouterr().out
        assert "scaling  2 of 1 to 3 readers; RDSReaderAverageDatabaseConnections is 3.5, the target 4" in shown
        assert "ACU      0.5 to 16 for each instance" in shown
        with aurora_router.connect(cluster.conninfo(f"instance:{added.name}")) as late:
            for each in held:
                each.close()
            eventually(lambda: autoscaled(cluster)[0].state == "deleting")
            assert late.execute("select 1").fetchone() == (1,), "its sessions may go on"
            with psycopg.connect(cluster.plain_conninfo()) as connection:
                rows = connection.execute("select server_id from aurora_replica_status()").fetchall()
            assert {id_ for (id_,) in rows} == {own, status.writer}
            began = time.monotonic()
            assert cluster.failover(own).writer == own, "a drain holds nothing up"
            assert time.monotonic() - began < 30
            assert late.execute("select 1").fetchone() == (1,)
        eventually(lambda: not autoscaled(cluster))
        events = [(each["source"], each["message"]) for each in cluster._ask("events")]
        assert events.index((added.name, "DB instance created")) < events.index((added.name, "DB instance deleted"))


def test_readers_of_the_user_are_never_removed(eventually):
    with LocalCluster.start(readers=0, auto_scale="1..3", target_cpu=90, **FAST) as cluster:
        eventually(lambda: len(cluster.readers) == 1)
        (first,) = autoscaled(cluster)
        mine = [cluster.add_reader().name for _ in range(2)]
        eventually(lambda: set(cluster.readers) == set(mine))
        assert first.name not in cluster.readers
        time.sleep(3.0)
        assert set(cluster.readers) == set(mine), "idle, above the minimum, and the user's own"


def test_a_reader_that_is_being_removed_is_neither_promoted_nor_started_again(eventually):
    with LocalCluster.start(readers=1, auto=False) as cluster:
        leaving = cluster.readers[0]
        removal = threading.Thread(target=lambda: cluster.remove(leaving, drain=20))
        with psycopg.connect(cluster.plain_conninfo(f"instance:{leaving}")):
            removal.start()
            eventually(lambda: cluster.instance(leaving).state == "deleting")
            for act in (cluster.restart, cluster.start_instance, cluster.remove):
                with pytest.raises(RequestError, match="being removed"):
                    act(leaving)
            with pytest.raises(FailoverImpossibleError):
                cluster.failover()
        removal.join()
        assert cluster.readers == ()
