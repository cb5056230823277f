"""Snapshots of DB clusters: points in a cluster's history that are kept by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import paging, shapes
from aurora_router_cluster.api.account import Account, Found, is_called, single
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = dict[str, Any]

FILTERS: paging.Tests[Row] = {
    "db-cluster-id": lambda row, value: value.lower() == row["DBClusterIdentifier"],
    "db-cluster-snapshot-id": lambda row, value: value.lower() == row["DBClusterSnapshotIdentifier"],
    "snapshot-type": lambda row, value: value == row["SnapshotType"],
    "engine": lambda _, value: value == shapes.ENGINE,
}


@action(
    "DescribeDBClusterSnapshots",
    "DBClusterIdentifier", "DBClusterSnapshotIdentifier", "SnapshotType", "Filters", "MaxRecords", "Marker",
)  # fmt: skip
def describe_db_cluster_snapshots(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """The snapshots of all clusters or of one, or one snapshot."""
    named, cluster = params.get("DBClusterSnapshotIdentifier"), params.get("DBClusterIdentifier")
    clusters = [account.cluster(cluster)] if cluster else account.clusters
    rows = [shapes.snapshot(found, facts) for found in clusters for facts in _snapshots(found)]
    if named:
        rows = [
            row for row in rows if is_called(named, row["DBClusterSnapshotIdentifier"], row["DBClusterSnapshotArn"])
        ]
        if not rows:
            raise Fault("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {named} not found.")
    rows = [row for row in rows if params.get("SnapshotType", "manual") == row["SnapshotType"]]
    shown, marker = paging.page(paging.select(rows, params.get("Filters", ()), FILTERS), _key, params)
    return {"DBClusterSnapshots": shown, "Marker": marker}


@action("CreateDBClusterSnapshot", "DBClusterSnapshotIdentifier", "DBClusterIdentifier")
def create_db_cluster_snapshot(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the present point of a cluster by a name."""
    found, name = account.cluster(params["DBClusterIdentifier"]), params["DBClusterSnapshotIdentifier"].lower()
    if any(facts["name"] == name for each in account.clusters for facts in _snapshots(each)):
        raise Fault("DBClusterSnapshotAlreadyExistsFault", f"DB cluster snapshot already exists: {name}")
    made = found.attach().history.snapshot(name)
    return {"DBClusterSnapshot": shapes.snapshot(found, {"name": made.name, "taken": made.taken.timestamp()})}


@action("DeleteDBClusterSnapshot", "DBClusterSnapshotIdentifier")
def delete_db_cluster_snapshot(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Forget a snapshot."""
    identifier: str = params["DBClusterSnapshotIdentifier"]
    matching = [
        (found, facts)
        for found in account.clusters
        for facts in _snapshots(found)
        if is_called(identifier, facts["name"], found.arn_of("cluster-snapshot", facts["name"]))
    ]
    if not matching:
        raise Fault("DBClusterSnapshotNotFoundFault", f"DBClusterSnapshot {identifier} not found.")
    arns = [each.arn_of("cluster-snapshot", facts["name"]) for each, facts in matching]
    found, facts = single(matching, arns, identifier)
    found.attach().history.delete_snapshot(facts["name"])
    return {"DBClusterSnapshot": {**shapes.snapshot(found, facts), "Status": "deleted"}}


def _snapshots(found: Found) -> list[dict[str, Any]]:
    """The snapshots of a cluster, if it keeps a history."""
    kept: list[dict[str, Any]] = found.ask_if_it_answers("snapshots") or []
    return kept


def _key(row: Row) -> str:
    arn: str = row["DBClusterSnapshotArn"]
    return arn
