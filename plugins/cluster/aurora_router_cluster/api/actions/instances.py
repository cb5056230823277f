"""DB instances: what they are, and reboots."""

from __future__ import annotations

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
    rows.sort(key=_key)
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
    if one.state != "available":
        shown = shapes.STATES.get(one.state, one.state)
        raise Fault("InvalidDBInstanceStateFault", f"DBInstance {one.name} is {shown}, not available.")

    def has_begun() -> bool:
        now = found.attach().instance(one.name)
        return now.state != "available" or now.pid != one.pid

    background.start(lambda: found.attach().restart(one.name), has_begun)
    account.forget()
    return {"DBInstance": shapes.instance(*account.instance(found.arn_of("db", one.name)))}
