"""Custom endpoints, readers, snapshots, backtrack and restores by botocore's client, on a real cluster."""

from __future__ import annotations

import psycopg
import pytest
from botocore.exceptions import ClientError

from aurora_router_cluster import LocalCluster
from tests.cluster.api.support import QUICK, instances_of, readers_of, wait_until_available, writer_of

pytestmark = pytest.mark.cluster


@pytest.fixture
def endpoint(rds, cluster, available):
    """Make custom endpoints; they are deleted afterwards."""

    def make(label, kind, **members):
        made = rds.create_db_cluster_endpoint(
            DBClusterIdentifier=cluster.name, DBClusterEndpointIdentifier=label, EndpointType=kind, **members
        )
        assert made["Status"] == "creating"
        return made

    yield make
    for one in cluster.status().custom_endpoints:
        rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier=one.label)


def described(rds, label):
    (found,) = rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier=label)["DBClusterEndpoints"]
    return found


def test_the_name_of_a_custom_endpoint_leads_to_its_members(rds, cluster, endpoint):
    writer, (first, second) = writer_of(rds, cluster), readers_of(rds, cluster)
    made = endpoint("Static", "ANY", StaticMembers=[writer, first])
    assert made["Endpoint"] == cluster.endpoint("custom:static")
    assert instances_of(cluster, "custom:static") == {writer, first}
    endpoint("rest", "READER", ExcludedMembers=[first])
    assert instances_of(cluster, "custom:rest") == {second}
    endpoint("all", "ANY")
    assert instances_of(cluster, "custom:all") == {writer, first, second}
    rds.modify_db_cluster_endpoint(DBClusterEndpointIdentifier="static", StaticMembers=[second])
    assert instances_of(cluster, "custom:static") == {second}
    found = described(rds, "static")
    assert (found["Status"], found["CustomEndpointType"], found["StaticMembers"]) == ("available", "ANY", [second])
    rds.modify_db_cluster_endpoint(DBClusterEndpointIdentifier="all", EndpointType="READER")
    assert instances_of(cluster, "custom:all") == {first, second}
    rds.modify_db_cluster_endpoint(DBClusterEndpointIdentifier="static", ExcludedMembers=[first, writer])
    found = described(rds, "static")
    assert (found["StaticMembers"], found["ExcludedMembers"]) == ([], [first, writer])
    assert rds.delete_db_cluster_endpoint(DBClusterEndpointIdentifier="static")["Status"] == "deleting"
    assert instances_of(cluster, "custom:static") == set()
    assert rds.describe_db_cluster_endpoints(DBClusterEndpointIdentifier="static")["DBClusterEndpoints"] == []


def test_a_promoted_member_leaves_an_endpoint_of_readers_and_stays_in_one_of_any(rds, cluster, endpoint):
    former, (first, second) = writer_of(rds, cluster), readers_of(rds, cluster)
    endpoint("readers", "READER", StaticMembers=[first, second])
    endpoint("others", "READER", ExcludedMembers=[second])
    endpoint("any", "ANY", StaticMembers=[first, second])
    rds.failover_db_cluster(DBClusterIdentifier=cluster.name, TargetDBInstanceIdentifier=first)
    wait_until_available(rds, cluster)
    assert instances_of(cluster, "custom:readers") == {second}
    assert instances_of(cluster, "custom:others") == {former}
    assert instances_of(cluster, "custom:any") == {first, second}
    assert described(rds, "readers")["StaticMembers"] == [first, second]


def test_custom_endpoints_that_cannot_be_are_refused(rds, cluster, endpoint):
    reader = readers_of(rds, cluster)[0]
    endpoint("one", "ANY")
    with pytest.raises(rds.exceptions.DBClusterEndpointAlreadyExistsFault):
        endpoint("ONE", "ANY")
    with pytest.raises(rds.exceptions.DBInstanceNotFoundFault):
        endpoint("two", "ANY", StaticMembers=["nosuch"])
    with pytest.raises(ClientError, match=r"InvalidParameterCombination.*not both"):
        endpoint("two", "ANY", StaticMembers=[reader], ExcludedMembers=[reader])
    with pytest.raises(ClientError, match="Invalid EndpointType WRITER"):
        endpoint("two", "WRITER")
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*cannot name a custom endpoint"):
        endpoint("9", "ANY")
    for call in (rds.modify_db_cluster_endpoint, rds.delete_db_cluster_endpoint):
        with pytest.raises(rds.exceptions.DBClusterEndpointNotFoundFault):
            call(DBClusterEndpointIdentifier="nosuch")
    for label in ("two", "three", "four", "five"):
        endpoint(label, "ANY")
    with pytest.raises(rds.exceptions.DBClusterEndpointQuotaExceededFault):
        endpoint("six", "ANY")


@pytest.mark.usefixtures("available")
def test_a_reader_is_made_changed_and_deleted(rds, cluster):
    made = rds.create_db_instance(
        DBInstanceIdentifier="Added", DBInstanceClass="db.r6g.2xlarge", Engine="aurora-postgresql",
        DBClusterIdentifier=cluster.name, AvailabilityZone="eu-test-1b", PromotionTier=9,
    )["DBInstance"]  # fmt: skip
    assert made["DBInstanceStatus"] in {"creating", "available"}
    with pytest.raises(rds.exceptions.DBInstanceAlreadyExistsFault):
        rds.create_db_instance(
            DBInstanceIdentifier="added", DBInstanceClass="db.r6g.large", Engine="aurora-postgresql",
            DBClusterIdentifier=cluster.name,
        )  # fmt: skip
    rds.get_waiter("db_instance_available").wait(DBInstanceIdentifier="added", WaiterConfig=QUICK)
    (found,) = rds.describe_db_instances(DBInstanceIdentifier="added")["DBInstances"]
    assert (found["AvailabilityZone"], found["DBInstanceClass"], found["PromotionTier"]) == (
        "eu-test-1b", "db.r6g.2xlarge", 9,
    )  # fmt: skip
    with psycopg.connect(cluster.plain_conninfo("instance:added")) as connection:
        assert connection.execute("select pg_is_in_recovery()").fetchone() == (True,)
    changed = rds.modify_db_instance(DBInstanceIdentifier="added", PromotionTier=0, ApplyImmediately=True)
    assert changed["DBInstance"]["PromotionTier"] == 0
    former = writer_of(rds, cluster)
    rds.failover_db_cluster(DBClusterIdentifier=cluster.name)
    wait_until_available(rds, cluster)
    assert writer_of(rds, cluster) == "added"
    with pytest.raises(rds.exceptions.InvalidDBInstanceStateFault, match="is the writer"):
        rds.delete_db_instance(DBInstanceIdentifier="added", SkipFinalSnapshot=True)
    rds.failover_db_cluster(DBClusterIdentifier=cluster.name, TargetDBInstanceIdentifier=former)
    wait_until_available(rds, cluster)
    deleted = rds.delete_db_instance(DBInstanceIdentifier="added", SkipFinalSnapshot=True)["DBInstance"]
    assert deleted["DBInstanceStatus"] == "deleting"
    rds.get_waiter("db_instance_deleted").wait(DBInstanceIdentifier="added", WaiterConfig=QUICK)
    assert "added" not in {one.name for one in cluster.instances}
    source = {"SourceType": "db-instance", "SourceIdentifier": "added"}
    messages = [event["Message"] for event in rds.describe_events(**source)["Events"]]
    assert (messages[0], messages[-1]) == ("DB instance created", "DB instance deleted")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"DBInstanceClass": "large"}, "InvalidParameterValue.*no class of instances"),
        ({"Engine": "postgres"}, "InvalidParameterCombination.*aurora-postgresql"),
        ({"AvailabilityZone": "eu-test-1z"}, "InvalidParameterValue.*unknown zone"),
        ({"PromotionTier": 16}, "InvalidParameterValue.*tier 16"),
        ({"DBInstanceIdentifier": "9"}, "InvalidParameterValue.*cannot name an instance"),
        ({"DBClusterIdentifier": "nosuch"}, "DBClusterNotFoundFault"),
        ({"AllocatedStorage": 100}, "InvalidParameterCombination.*AllocatedStorage cannot be set"),
    ],
)
def test_an_instance_that_cannot_be_is_refused(rds, cluster, change, complaint):
    asked = {
        "DBInstanceIdentifier": "bad", "DBInstanceClass": "db.r6g.large", "Engine": "aurora-postgresql",
        "DBClusterIdentifier": cluster.name, **change,
    }  # fmt: skip
    with pytest.raises(ClientError, match=complaint):
        rds.create_db_instance(**asked)
    assert "bad" not in {one.name for one in cluster.instances}


@pytest.mark.usefixtures("available")
def test_snapshots_are_made_found_and_deleted(rds, cluster):
    made = rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="Before", DBClusterIdentifier=cluster.name)
    assert made["DBClusterSnapshot"]["Status"] == "available"
    rds.get_waiter("db_cluster_snapshot_available").wait(DBClusterSnapshotIdentifier="before", WaiterConfig=QUICK)
    assert [one.name for one in cluster.history.snapshots()] == ["before"]
    with pytest.raises(rds.exceptions.DBClusterSnapshotAlreadyExistsFault):
        rds.create_db_cluster_snapshot(DBClusterSnapshotIdentifier="before", DBClusterIdentifier=cluster.name)
    (found,) = rds.describe_db_cluster_snapshots(DBClusterIdentifier=cluster.name)["DBClusterSnapshots"]
    assert found == made["DBClusterSnapshot"]
    assert rds.describe_db_cluster_snapshots(SnapshotType="shared")["DBClusterSnapshots"] == []
    rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier=found["DBClusterSnapshotArn"])
    assert cluster.history.snapshots() == []
    rds.get_waiter("db_cluster_snapshot_deleted").wait(DBClusterSnapshotIdentifier="before", WaiterConfig=QUICK)
    with pytest.raises(rds.exceptions.DBClusterSnapshotNotFoundFault):
        rds.delete_db_cluster_snapshot(DBClusterSnapshotIdentifier="before")


def count(cluster):
    with psycopg.connect(cluster.plain_conninfo()) as connection:
        return connection.execute("select count(*) from kept").fetchone()[0]


@pytest.mark.usefixtures("available")
def test_a_cluster_is_set_back_and_restored_elsewhere(rds, cluster, eventually):
    name = cluster.name
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.execute("create table kept (i int)")
        connection.execute("insert into kept values (1)")
        point = connection.execute("select clock_timestamp()").fetchone()[0]
        connection.execute("insert into kept values (2)")
        written = connection.execute("select clock_timestamp()").fetchone()[0]
    eventually(
        lambda: rds.describe_db_clusters(DBClusterIdentifier=name)["DBClusters"][0]["LatestRestorableTime"] > written
    )
    restored = f"{name}r"
    made = rds.restore_db_cluster_to_point_in_time(
        DBClusterIdentifier=restored, SourceDBClusterIdentifier=name, RestoreToTime=point
    )["DBCluster"]
    try:
        assert (made["Status"], made["DBClusterMembers"]) == ("creating", [])
        with pytest.raises(rds.exceptions.DBClusterAlreadyExistsFault):
            rds.restore_db_cluster_to_point_in_time(
                DBClusterIdentifier=restored, SourceDBClusterIdentifier=name, UseLatestRestorableTime=True
            )
        rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=restored, WaiterConfig=QUICK)
        assert count(LocalCluster.attach(restored)) == 1
    finally:
        LocalCluster.attach(restored).down()
    assert count(cluster) == 2
    done = rds.backtrack_db_cluster(DBClusterIdentifier=name, BacktrackTo=point)
    assert (done["Status"], done["DBClusterIdentifier"]) == ("APPLYING", name)
    wait_until_available(rds, cluster)
    assert count(cluster) == 1


@pytest.mark.usefixtures("available")
def test_a_point_outside_of_the_window_is_refused(rds, cluster):
    name = cluster.name
    with pytest.raises(ClientError, match=r"InvalidParameterValue.*BacktrackTo .* is outside of the window"):
        rds.backtrack_db_cluster(DBClusterIdentifier=name, BacktrackTo="2020-01-01T00:00:00Z")
    restore = {"DBClusterIdentifier": f"{name}r", "SourceDBClusterIdentifier": name}
    with pytest.raises(rds.exceptions.InvalidRestoreFault, match="outside of the window"):
        rds.restore_db_cluster_to_point_in_time(**restore, RestoreToTime="2020-01-01T00:00:00Z")
    with pytest.raises(ClientError, match=r"InvalidParameterCombination.*and not both"):
        rds.restore_db_cluster_to_point_in_time(**restore)
    with pytest.raises(ClientError, match="Invalid RestoreType half"):
        rds.restore_db_cluster_to_point_in_time(**restore, RestoreType="half")
    with pytest.raises(ClientError, match="with RestoreType copy-on-write"):
        rds.restore_db_cluster_to_point_in_time(
            **restore, RestoreType="copy-on-write", RestoreToTime="2020-01-01T00:00:00Z"
        )
