"""Endpoints of DB clusters: their own, and custom ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import paging, shapes
from aurora_router_cluster.api.actions.table import action

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.api.account import Account

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
    rows.sort(key=_key)
    shown, marker = paging.page(paging.select(rows, params.get("Filters", ()), FILTERS), _key, params)
    return {"DBClusterEndpoints": shown, "Marker": marker}


def _key(row: Row) -> str:
    host: str = row["Endpoint"]
    return host
