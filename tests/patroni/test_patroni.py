"""A real Patroni cluster: members by REST, roles by SQL; skipped, with how to install it, where it is missing."""

from __future__ import annotations

import asyncio
import time

import psycopg
import pytest

import aurora_router
from aurora_router.runtime.registry import REGISTRY
from tests.patroni.managed import NotInstalled, PatroniCluster, programs

pytestmark = [pytest.mark.cluster, pytest.mark.one_python, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster():
    try:
        programs()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    with PatroniCluster(tags={"n3": {"noloadbalance": True}}) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nothing_known():
    REGISTRY.reset()


@pytest.fixture
def settled(cluster):
    cluster.eventually(cluster.is_settled, "three members run")


def by_rest(cluster, *names, **options):
    return cluster.conninfo(*names, aurora_source="patroni", aurora_patroni=cluster.urls(), **options)


def id_of(cluster, name):
    return f"127.0.0.1:{cluster.nodes[name].port}"


def standbys(cluster):
    return [name for name in cluster.nodes if name != cluster.leader]


def test_one_member_that_is_a_standby_leads_to_the_writer(cluster, settled):
    conninfo = by_rest(cluster, standbys(cluster)[0])
    with aurora_router.connect(conninfo) as conn:
        assert conn.placement.instance == id_of(cluster, cluster.leader)
        assert conn.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)


def test_without_the_rest_api_one_standby_does_not(cluster, settled):
    """SQL alone knows the hosts that are given."""
    with pytest.raises(aurora_router.NoInstanceAvailable):
        aurora_router.connect(cluster.conninfo(standbys(cluster)[0], aurora_role="writer", aurora_failover_timeout=1))


def test_by_sql_alone_with_all_members(cluster, settled):
    with aurora_router.connect(cluster.conninfo(aurora_role="writer")) as conn:
        assert conn.placement.instance == id_of(cluster, cluster.leader)


def test_asyncio(cluster, settled):
    async def client():
        async with await aurora_router.AsyncConnection.connect(by_rest(cluster, standbys(cluster)[0])) as conn:
            return conn.placement.instance

    assert asyncio.run(client()) == id_of(cluster, cluster.leader)


def test_reads_avoid_members_that_are_not_for_them(cluster, settled):
    conninfo = by_rest(cluster, aurora_role="reader", aurora_reader_fallback="error")
    if cluster.leader == "n3":
        cluster.switch()
        cluster.eventually(lambda: cluster.leader not in {None, "n3"} and cluster.is_settled(), "another one leads")
    leader = cluster.leader
    with aurora_router.connect(conninfo):
        time.sleep(1.5)  # the monitor asks for the members
        for _ in range(6):
            with aurora_router.connect(conninfo) as conn:
                assert conn.placement.instance == id_of(cluster, ({"n1", "n2"} - {leader}).pop())


def test_zones_are_those_of_the_tags(cluster, settled):
    router = aurora_router.Router(by_rest(cluster))
    with router.connect() as conn:
        assert conn is not None
        cluster.eventually(
            lambda: any(each.zone for each in router.topology().instances.values()), "zones are known", 20
        )
        zones = {id_: each.zone for id_, each in router.topology().instances.items()}
    assert zones == {id_of(cluster, name): zone for name, zone in zip(cluster.nodes, "abc", strict=True)}


@pytest.mark.parametrize("round_", range(2))
def test_a_switchover_is_followed(cluster, settled, round_):
    conninfo = by_rest(cluster)
    conn = aurora_router.connect(conninfo, autocommit=True)
    before = conn.placement.instance
    cluster.switch()
    with aurora_router.connect(conninfo) as after:
        assert after.placement.instance not in {None, before}
        assert after.execute("SELECT pg_is_in_recovery()").fetchone() == (False,)
    conn.close()


def test_a_lost_leader_is_replaced(cluster, settled):
    conninfo = by_rest(cluster)
    held = aurora_router.connect(conninfo, autocommit=True)
    before = cluster.leader
    cluster.kill(before)
    try:
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
        with aurora_router.connect(conninfo, aurora_failover_timeout=90) as conn:
            assert conn.placement.instance != id_of(cluster, before)
            conn.execute("CREATE TABLE IF NOT EXISTS after_loss (n int)")
    finally:
        held.close()
        cluster.start(before)
    cluster.eventually(cluster.is_settled, "the former leader is back")


def test_another_clusters_rest_api_is_not_believed(cluster, settled):
    heard = []
    end = aurora_router.subscribe(lambda _, event: heard.append(str(event)))
    from tests.patroni.test_rest import serving

    with serving(system="1") as url:
        try:
            conninfo = cluster.conninfo(standbys(cluster)[0], aurora_source="patroni", aurora_patroni=url)
            with pytest.raises(aurora_router.NoInstanceAvailable):
                aurora_router.connect(conninfo, aurora_role="writer", aurora_failover_timeout=3)
        finally:
            end()
    assert any("asks the manager of another cluster" in each for each in heard)
