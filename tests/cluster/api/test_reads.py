"""Describe calls, failover and reboot by botocore's client, on a real cluster."""

from __future__ import annotations

import psycopg
import pytest
from botocore.exceptions import ClientError

from tests.cluster.api.support import QUICK, instances_of, members, readers_of, wait_until_available, writer_of
from tests.docker.ledger import TABLE, InThread

pytestmark = pytest.mark.cluster


@pytest.mark.usefixtures("available")
def test_a_cluster_is_described_as_it_is(rds, cluster):
    (found,) = rds.describe_db_clusters(DBClusterIdentifier=cluster.name.upper())["DBClusters"]
    status = cluster.status()
    assert found["Endpoint"] == cluster.endpoint("writer")
    assert found["ReaderEndpoint"] == cluster.endpoint("reader")
    assert (found["Port"], found["EngineVersion"]) == (cluster.port, status.version)
    assert (found["Status"], found["Engine"], found["MultiAZ"]) == ("available", "aurora-postgresql", True)
    assert found["IAMDatabaseAuthenticationEnabled"] is False
    assert found["AvailabilityZones"] == ["eu-test-1a", "eu-test-1b", "eu-test-1c"]
    assert found["ClusterCreateTime"] <= found["LatestRestorableTime"]
    assert members(rds, cluster) == {one.name: one.name == status.writer for one in status.instances}
    assert rds.describe_db_clusters(DBClusterIdentifier=found["DBClusterArn"])["DBClusters"][0]["Port"] == cluster.port
    wanted = [{"Name": "db-cluster-resource-id", "Values": [found["DbClusterResourceId"]]}]
    (same,) = rds.describe_db_clusters(Filters=wanted)["DBClusters"]
    assert same["DBClusterArn"] == found["DBClusterArn"]


@pytest.mark.usefixtures("available")
def test_instances_are_described_as_they_are(rds, cluster):
    found = rds.describe_db_instances(Filters=[{"Name": "db-cluster-id", "Values": [cluster.name]}])["DBInstances"]
    assert {(one["DBInstanceIdentifier"], one["AvailabilityZone"], one["PromotionTier"]) for one in found} == {
        (one.name, one.zone, one.tier) for one in cluster.instances
    }
    assert {one["AvailabilityZone"] for one in found} == {"eu-test-1a", "eu-test-1b", "eu-test-1c"}
    assert {one["DBInstanceClass"] for one in found} == {"db.r7g.xlarge"}
    first = found[0]
    assert first["Endpoint"] == {"Address": cluster.endpoint(f"instance:{cluster.name}-1"), "Port": cluster.port}
    (same,) = rds.describe_db_instances(DBInstanceIdentifier=first["DBInstanceArn"])["DBInstances"]
    assert same == first
    wanted = [{"Name": "dbi-resource-id", "Values": [first["DbiResourceId"]]}]
    assert rds.describe_db_instances(Filters=wanted)["DBInstances"] == [first]


def test_endpoints_are_those_of_the_cluster_and_custom_ones(rds, cluster):
    host = cluster.create_custom_endpoint("reports", [f"{cluster.name}-2"])
    try:
        found = rds.describe_db_cluster_endpoints(DBClusterIdentifier=cluster.name)["DBClusterEndpoints"]
        own = {(one["EndpointType"], one["Endpoint"]) for one in found}
        kinds = ("WRITER", cluster.endpoint("writer")), ("READER", cluster.endpoint("reader")), ("CUSTOM", host)
        assert own == set(kinds)
        custom = [{"Name": "db-cluster-endpoint-type", "Values": ["custom"]}]
        (one,) = rds.describe_db_cluster_endpoints(DBClusterIdentifier=cluster.name, Filters=custom)[
            "DBClusterEndpoints"
        ]
        assert (one["StaticMembers"], one["ExcludedMembers"]) == ([f"{cluster.name}-2"], [])
        (same,) = rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier="Reports")["DBClusterEndpoints"]
        assert same == one
        assert rds.describe_db_clusters(DBClusterIdentifier=cluster.name)["DBClusters"][0]["CustomEndpoints"] == [host]
    finally:
        cluster.delete_custom_endpoint("reports")


def test_clusters_of_other_regions_and_keys_of_others_are_not_served(rds, cluster, connect_api):
    with pytest.raises(ClientError, match="DBClusterNotFoundFault"):
        connect_api(cluster.api, "us-east-1").describe_db_clusters(DBClusterIdentifier=cluster.name)
    with pytest.raises(ClientError, match="InvalidClientTokenId"):
        connect_api(cluster.api, cluster.region, access_key="AKIAOTHER").describe_db_clusters()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        connect_api(cluster.api, cluster.region, secret_key="other").describe_db_clusters()


def test_a_failover_without_a_target_takes_the_lowest_tier(rds, cluster):
    cluster.add_reader("first", tier=0)
    try:
        wait_until_available(rds, cluster)
        before = writer_of(rds, cluster)
        rds.failover_db_cluster(DBClusterIdentifier=cluster.name)
        wait_until_available(rds, cluster)
        assert writer_of(rds, cluster) == "first"
        rds.failover_db_cluster(DBClusterIdentifier=cluster.name, TargetDBInstanceIdentifier=before)
        wait_until_available(rds, cluster)
        assert writer_of(rds, cluster) == before
    finally:
        cluster.remove("first")


@pytest.mark.usefixtures("available")
def test_failovers_lose_nothing_and_api_dns_and_sql_agree(rds, cluster, eventually):
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.execute(TABLE)
    with InThread(cluster.conninfo(), "api") as ledger:
        for _ in range(3):
            written = len(ledger.acked)
            eventually(lambda: len(ledger.acked) > written + 3)  # noqa: B023 - called in this turn
            target = readers_of(rds, cluster)[0]
            rds.failover_db_cluster(DBClusterIdentifier=cluster.name, TargetDBInstanceIdentifier=target)
            wait_until_available(rds, cluster)
            assert writer_of(rds, cluster) == target
            assert instances_of(cluster, "writer") == {target}
            with psycopg.connect(cluster.plain_conninfo(f"instance:{target}")) as connection:
                assert connection.execute("select pg_is_in_recovery()").fetchone() == (False,)
    with psycopg.connect(cluster.plain_conninfo()) as connection:
        rows = [row[0] for row in connection.execute("select entry from ledger order by entry").fetchall()]
    assert ledger.unknown == []
    assert len(rows) == len(set(rows))
    assert set(ledger.acked) <= set(rows)
    source = {"SourceType": "db-cluster", "SourceIdentifier": cluster.name, "EventCategories": ["failover"]}
    events = [event["Message"] for event in rds.describe_events(**source)["Events"]]
    assert events[-2:] == [
        f"Started cross AZ failover to DB instance: {target}",
        f"Completed failover to DB instance: {target}",
    ]


def test_a_reboot_restarts_an_instance_which_keeps_its_role(rds, cluster):
    for name in (writer_of(rds, cluster), readers_of(rds, cluster)[0]):
        wait_until_available(rds, cluster)
        before = cluster.instance(name)
        rds.reboot_db_instance(DBInstanceIdentifier=name)
        rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier=name, WaiterConfig=QUICK)
        after = cluster.instance(name)
        assert after.pid != before.pid
        assert after.role == before.role
        source = {"SourceType": "db-instance", "SourceIdentifier": name}
        assert rds.describe_events(**source)["Events"][-1]["Message"] == "DB instance restarted"


@pytest.mark.usefixtures("available")
def test_a_target_that_cannot_be_promoted_is_refused(rds, cluster, eventually):
    name, writer = cluster.name, writer_of(rds, cluster)
    with pytest.raises(rds.exceptions.InvalidDBInstanceStateFault, match="is the writer already"):
        rds.failover_db_cluster(DBClusterIdentifier=name, TargetDBInstanceIdentifier=writer)
    with pytest.raises(rds.exceptions.DBInstanceNotFoundFault, match="DBInstance nosuch not found"):
        rds.failover_db_cluster(DBClusterIdentifier=name, TargetDBInstanceIdentifier="nosuch")
    reader = readers_of(rds, cluster)[0]
    cluster.kill(reader, hold=True)
    try:
        eventually(lambda: cluster.instance(reader).state != "available")  # the heartbeat has seen it
        with pytest.raises(rds.exceptions.InvalidDBInstanceStateFault, match="not available"):
            rds.failover_db_cluster(DBClusterIdentifier=name, TargetDBInstanceIdentifier=reader)
        with pytest.raises(rds.exceptions.InvalidDBInstanceStateFault, match="not available"):
            rds.reboot_db_instance(DBInstanceIdentifier=reader)
    finally:
        cluster.start_instance(reader)
    assert writer_of(rds, cluster) == writer
