"""DB clusters: what they are, and failovers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import background, paging, shapes
from aurora_router_cluster.api.account import Account, Found, is_called
from aurora_router_cluster.api.actions.instances import check_available
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import Fault

if TYPE_CHECKING:
    from collections.abc import Mapping

FILTERS: paging.Tests[Found] = {
    "db-cluster-id": lambda one, value: is_called(value, one.status.name, one.arn),
    "db-cluster-resource-id": lambda one, value: value == one.resource_id("cluster", one.status.name),
    "engine": lambda _, value: value == shapes.ENGINE,
    "clone-group-id": lambda *_: False,
    "domain": lambda *_: False,
}


def describe(found: Found) -> dict[str, Any]:
    """A cluster as a ``DBCluster``, with how far it can be set back."""
    return shapes.cluster(found, found.ask_if_it_answers("branches") if found.status.flavour == "quorum" else None)


@action("DescribeDBClusters", "DBClusterIdentifier", "Filters", "MaxRecords", "Marker", "IncludeShared")
def describe_db_clusters(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """The clusters, or one."""
    named = params.get("DBClusterIdentifier")
    clusters = [account.cluster(named)] if named else account.clusters
    shown, marker = paging.page(
        paging.select(clusters, params.get("Filters", ()), FILTERS), lambda one: f"{one.status.name} {one.arn}", params
    )
    return {"DBClusters": [describe(one) for one in shown], "Marker": marker}


@action("FailoverDBCluster", "DBClusterIdentifier", "TargetDBInstanceIdentifier")
def failover_db_cluster(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin a failover, to the target or to the reader of the lowest tier."""
    found = account.cluster(params["DBClusterIdentifier"])
    target = _find_target(account, found, params.get("TargetDBInstanceIdentifier"))
    status = found.status
    check_cluster_available(found)
    if len(status.instances) < 2:
        raise Fault("InvalidDBClusterStateFault", f"DBCluster {status.name} has no reader to fail over to.")

    def has_begun() -> bool:
        now = found.ask_for_status()
        return (now.activity, now.epoch) != ("available", status.epoch)

    background.start(lambda: found.attach().failover(target), has_begun)
    account.forget()
    return {"DBCluster": describe(account.cluster(found.arn))}


def check_cluster_available(found: Found) -> None:
    """Make sure that nothing else is being done to a cluster.

    Raises:
        Fault: something is.
    """
    if found.status.activity != "available":
        raise Fault(
            "InvalidDBClusterStateFault", f"DBCluster {found.status.name} is {found.status.activity}, not available."
        )


def _find_target(account: Account, found: Found, identifier: str | None) -> str | None:
    """The name of the instance to promote.

    Raises:
        Fault: there is none of that identifier in the cluster, or it cannot be promoted.
    """
    if identifier is None:
        return None
    name, status = identifier.lower(), found.status
    target = next((one for one in status.instances if one.name == name), None)
    if target is None:
        account.instance(identifier)  # another cluster's is one answer, none at all another
        raise Fault("InvalidDBInstanceStateFault", f"DBInstance {identifier} is not a member of {status.name}.")
    if name == status.writer:
        raise Fault("InvalidDBInstanceStateFault", f"DBInstance {name} is the writer already; name a reader.")
    check_available(target)
    return name
