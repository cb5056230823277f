"""Two clusters in one process are never mixed, also where their instances have the same ids."""

from __future__ import annotations

import psycopg
import pytest

import aurora_router

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def pair(request):
    """Two clusters, both called demo, with instances demo-1 and demo-2."""
    from aurora_router_cluster import LocalCluster

    postgres = request.config.getoption("--aurora-postgres")
    with (
        LocalCluster.start(readers=1, postgres=postgres) as one,
        LocalCluster.start(readers=1, postgres=postgres) as two,
    ):
        assert {each.name for each in one.instances} == {each.name for each in two.instances}
        for cluster in (one, two):
            with psycopg.connect(cluster.plain_conninfo("writer"), autocommit=True) as conn:
                conn.execute("CREATE TABLE whoami AS SELECT %s AS cluster", [cluster.domain])
        yield one, two


def whose(conninfo):
    with aurora_router.connect(conninfo) as conn:
        row = conn.execute("SELECT cluster, pg_is_in_recovery() FROM whoami").fetchone()
        return row[0], conn.placement.instance, row[1]


def test_by_name(pair):
    for _ in range(3):
        for cluster in pair:
            assert whose(cluster.conninfo("writer")) == (cluster.domain, "demo-1", False)
            assert whose(cluster.conninfo("reader")) == (cluster.domain, "demo-2", True)


def test_behind_tunnels_with_the_same_ids(pair):
    """Nothing but addresses is known: the map of instances distinguishes the clusters."""
    for _ in range(3):
        for cluster in pair:
            hosts = ",".join(f"{each.name}={each.host}:{each.port}" for each in cluster.instances)
            given = {"host": cluster.address("writer"), "aurora_dns": None, "aurora_instance_host": hosts}
            assert whose(cluster.conninfo("writer", **given)) == (cluster.domain, "demo-1", False)
            assert whose(cluster.conninfo("writer", aurora_role="reader", **given)) == (cluster.domain, "demo-2", True)


def test_the_endpoints_of_one_cluster_share_their_state(pair):
    placements = []
    for cluster in pair:
        for target in ("writer", "reader", "instance:demo-2"):
            with aurora_router.connect(cluster.conninfo(target)) as conn:
                placements.append(conn.placement)
    views = [placement.view for placement in placements]
    assert views[0] is views[1] is views[2]
    assert views[3] is views[4] is views[5]
    assert views[0] is not views[3]


def test_what_happens_to_one_is_not_told_of_the_other(pair):
    one, two = pair
    seen = []
    unsubscribe = aurora_router.subscribe(lambda cluster, event: seen.append((cluster, event)))
    try:
        aurora_router.Router(one.conninfo()).topology()
        before = aurora_router.Router(two.conninfo()).topology()
        one.add_reader("demo-9")
        assert "demo-9" in aurora_router.Router(one.conninfo()).topology().instances
        after = aurora_router.Router(two.conninfo()).topology()
    finally:
        unsubscribe()
        one.remove("demo-9")
    assert before.instances.keys() == after.instances.keys()
    added = [event for _, event in seen if isinstance(event, aurora_router.InstanceAdded) and event.id == "demo-9"]
    assert len(added) == 1
