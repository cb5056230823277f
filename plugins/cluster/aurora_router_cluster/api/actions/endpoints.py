"""Endpoints of DB clusters: their own, and custom ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import paging, shapes
from aurora_router_cluster.api.account import Account, Found, single
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import ApiError, Fault
from aurora_router_cluster.control.status import ENDPOINT_KINDS

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CUSTOM = 5
"""Custom endpoints of a cluster, as on AWS."""

Row = dict[str, Any]

FILTERS: paging.Tests[Row] = {
    "db-cluster-endpoint-type": lambda row, value: value.upper() == row["EndpointType"],
    "db-cluster-endpoint-custom-type": lambda row, value: value.upper() == row.get("CustomEndpointType"),
    "db-cluster-endpoint-id": lambda row, value: value.lower() == row.get("DBClusterEndpointIdentifier"),
    "db-cluster-endpoint-status": lambda row, value: value.lower() == row["Status"],
}


@action(
    "DescribeDBClusterEndpoints",
    "DBClusterIdentifier", "DBClusterEndpointIdentifier", "Filters", "MaxRecords", "Marker",
)  # fmt: skip
def describe_db_cluster_endpoints(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """The endpoints of all clusters or of one, or one custom endpoint; none of that name is an empty list."""
    named = params.get("DBClusterIdentifier")
    rows: list[Row] = []
    for found in [account.cluster(named)] if named else account.clusters:
        rows += shapes.own_endpoints(found)
        rows += [shapes.custom_endpoint(found, one) for one in found.status.custom_endpoints]
    if label := params.get("DBClusterEndpointIdentifier"):
        rows = [row for row in rows if row.get("DBClusterEndpointIdentifier") == label.lower()]
    shown, marker = paging.page(paging.select(rows, params.get("Filters", ()), FILTERS), _key, params)
    return {"DBClusterEndpoints": shown, "Marker": marker}


@action(
    "CreateDBClusterEndpoint",
    "DBClusterIdentifier", "DBClusterEndpointIdentifier", "EndpointType", "StaticMembers", "ExcludedMembers",
)  # fmt: skip
def create_db_cluster_endpoint(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Make a custom endpoint; the cluster's name server answers for it when this returns."""
    found, label = account.cluster(params["DBClusterIdentifier"]), params["DBClusterEndpointIdentifier"].lower()
    if any(one.label == label for each in account.clusters for one in each.status.custom_endpoints):
        raise Fault("DBClusterEndpointAlreadyExistsFault", f"DB cluster endpoint already exists: {label}")
    if len(found.status.custom_endpoints) >= MOST_CUSTOM:
        raise Fault(
            "DBClusterEndpointQuotaExceededFault", f"A cluster has at most {MOST_CUSTOM} custom endpoints; delete one"
        )
    chosen = _read_members(params) or {"members": [], "exclude": True}
    found.attach().create_custom_endpoint(label, kind=_read_kind(params), **chosen)
    return {**_describe_again(account, found, label), "Status": "creating"}


@action(
    "ModifyDBClusterEndpoint",
    "DBClusterEndpointIdentifier", "EndpointType", "StaticMembers", "ExcludedMembers",
)  # fmt: skip
def modify_db_cluster_endpoint(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Change the members or the type of a custom endpoint."""
    found, label = _find(account, params["DBClusterEndpointIdentifier"])
    chosen = _read_members(params) or {"members": None, "exclude": False}
    found.attach().modify_custom_endpoint(label, kind=_read_kind(params), **chosen)
    return {**_describe_again(account, found, label), "Status": "modifying"}


@action("DeleteDBClusterEndpoint", "DBClusterEndpointIdentifier")
def delete_db_cluster_endpoint(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Delete a custom endpoint; its name leads nowhere when this returns."""
    found, label = _find(account, params["DBClusterEndpointIdentifier"])
    shown = next(shapes.custom_endpoint(found, one) for one in found.status.custom_endpoints if one.label == label)
    found.attach().delete_custom_endpoint(label)
    return {**shown, "Status": "deleting"}


def _find(account: Account, identifier: str) -> tuple[Found, str]:
    """The cluster of a custom endpoint, and the endpoint's label.

    Raises:
        Fault: there is none.
        ApiError: there are several.
    """
    label = identifier.lower()
    matching = [found for found in account.clusters if any(one.label == label for one in found.status.custom_endpoints)]
    if not matching:
        raise Fault("DBClusterEndpointNotFoundFault", f"DB cluster endpoint {identifier} not found.")
    return single(matching, [one.arn_of("cluster-endpoint", label) for one in matching], identifier), label


def _read_members(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Members and whether they are excluded; None: neither list is given."""
    static, excluded = params.get("StaticMembers"), params.get("ExcludedMembers")
    if static and excluded:
        raise ApiError("InvalidParameterCombination", "An endpoint has static members or excluded ones, not both")
    if static:
        return {"members": [name.lower() for name in static], "exclude": False}
    if excluded is not None or static is not None:
        return {"members": [name.lower() for name in excluded or ()], "exclude": True}
    return None


def _read_kind(params: Mapping[str, Any]) -> str | None:
    kind: str | None = params.get("EndpointType")
    if kind is not None and kind.upper() not in ENDPOINT_KINDS:
        raise ApiError(
            "InvalidParameterValue", f"Invalid EndpointType {kind}; it is one of {', '.join(ENDPOINT_KINDS)}"
        )
    return kind and kind.upper()


def _describe_again(account: Account, found: Found, label: str) -> Row:
    """A custom endpoint as it is now."""
    account.forget()
    now = account.cluster(found.arn)
    return next(shapes.custom_endpoint(now, one) for one in now.status.custom_endpoints if one.label == label)


def _key(row: Row) -> str:
    host: str = row["Endpoint"]
    return host
