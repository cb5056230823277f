"""DB instances: what they are, and reboots."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import background, paging, shapes
from aurora_router_cluster.api.account import Account, Found, is_called
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import ApiError, Fault
from aurora_router_cluster.control.status import InstanceStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

Row = tuple[Found, InstanceStatus]

FILTERS: paging.Tests[Row] = {
    "db-cluster-id": lambda row, value: is_called(value, row[0].status.name, row[0].arn),
    "db-instance-id": lambda row, value: is_called(value, row[1].name, row[0].arn_of("db", row[1].name)),
    "dbi-resource-id": lambda row, value: value == row[0].resource_id("db", row[1].name),
    "engine": lambda _, value: value == shapes.ENGINE,
    "domain": lambda *_: False,
}


@action("DescribeDBInstances", "DBInstanceIdentifier", "Filters", "MaxRecords", "Marker")
def describe_db_instances(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """The instances, or one."""
    if named := params.get("DBInstanceIdentifier"):
        rows = [account.instance(named)]
    else:
        rows = [(found, one) for found in account.clusters for one in found.status.instances]
    shown, marker = paging.page(paging.select(rows, params.get("Filters", ()), FILTERS), _key, params)
    return {"DBInstances": [shapes.instance(*row) for row in shown], "Marker": marker}


def _key(row: Row) -> str:
    found, one = row
    return f"{one.name} {found.arn}"


@action("RebootDBInstance", "DBInstanceIdentifier", "ForceFailover")
def reboot_db_instance(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to restart an instance; it keeps its role."""
    if params.get("ForceFailover"):
        raise ApiError(
            "InvalidParameterCombination",
            "ForceFailover cannot be set for an instance of an Aurora DB cluster; call FailoverDBCluster",
        )
    found, one = account.instance(params["DBInstanceIdentifier"])
    check_available(one)

    def has_begun() -> bool:
        now = {(each.name, each.state, each.pid) for each in found.ask_for_status().instances}
        return (one.name, "available", one.pid) not in now

    background.start(lambda: found.attach().restart(one.name), has_begun)
    return {"DBInstance": _describe_again(account, found, one.name)}


@action(
    "CreateDBInstance",
    "DBInstanceIdentifier", "DBInstanceClass", "Engine", "DBClusterIdentifier", "AvailabilityZone", "PromotionTier",
)  # fmt: skip
def create_db_instance(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to add a reader to a cluster."""
    if "DBClusterIdentifier" not in params:
        raise ApiError(
            "InvalidParameterCombination",
            "Only instances of Aurora DB clusters are made here: name DBClusterIdentifier",
        )
    if params["Engine"] != shapes.ENGINE:
        raise ApiError("InvalidParameterCombination", f"The engine of the cluster is {shapes.ENGINE}")
    found, name = account.cluster(params["DBClusterIdentifier"]), params["DBInstanceIdentifier"].lower()
    if any(one.name == name for each in account.clusters for one in each.status.instances):
        raise Fault("DBInstanceAlreadyExistsFault", f"DB instance already exists: {name}")
    chosen = {
        "zone": params.get("AvailabilityZone"),
        "tier": params.get("PromotionTier", 1),
        "instance_class": params["DBInstanceClass"],
    }
    background.start(
        lambda: found.attach().add_reader(name, **chosen),
        lambda: any(one.name == name for one in found.ask_for_status().instances),
    )
    return {"DBInstance": _describe_again(account, found, name)}


@action("DeleteDBInstance", "DBInstanceIdentifier", "SkipFinalSnapshot", "DeleteAutomatedBackups")
def delete_db_instance(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to remove a reader; a cluster's data are not its own, so there is nothing to keep of it."""
    found, one = account.instance(params["DBInstanceIdentifier"])
    if one.state in {"creating", "deleting"}:
        raise Fault("InvalidDBInstanceStateFault", f"DBInstance {one.name} is {one.state}.")

    def has_begun() -> bool:
        now = found.ask_for_status().instances
        return all(each.name != one.name or each.state == "deleting" for each in now)

    background.start(lambda: found.attach().remove(one.name), has_begun)
    return {"DBInstance": shapes.instance(found, replace(one, state="deleting"))}


@action("ModifyDBInstance", "DBInstanceIdentifier", "PromotionTier", "ApplyImmediately")
def modify_db_instance(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Change the promotion tier of an instance, which takes effect at once, as on AWS."""
    found, one = account.instance(params["DBInstanceIdentifier"])
    if "PromotionTier" in params:
        found.attach().set_tier(one.name, params["PromotionTier"])
    return {"DBInstance": _describe_again(account, found, one.name)}


def check_available(one: InstanceStatus) -> None:
    """Make sure that an instance can be asked to do something.

    Raises:
        Fault: it is not available.
    """
    if one.state != "available":
        shown = shapes.STATES.get(one.state, one.state)
        raise Fault("InvalidDBInstanceStateFault", f"DBInstance {one.name} is {shown}, not available.")


def _describe_again(account: Account, found: Found, name: str) -> dict[str, Any]:
    """An instance as it is now."""
    account.forget()
    return shapes.instance(*account.instance(found.arn_of("db", name)))
