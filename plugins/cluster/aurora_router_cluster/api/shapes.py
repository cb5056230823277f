"""Clusters, instances, endpoints and events as the API's output has them: pure functions of their status."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.control import event_log
from aurora_router_cluster.postgres import settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.api.account import Found
    from aurora_router_cluster.control.status import CustomEndpoint, InstanceStatus

ENGINE = "aurora-postgresql"
SCALING_TAG = "application-autoscaling:resourceId"
STATES = {"restarting": "rebooting", "unreachable": "rebooting", "paused": "available", "resuming": "available"}
"""State of an instance -> DBInstanceStatus, where the words differ: AWS reboots an instance that does not answer, and
one that has paused is available."""


def cluster(found: Found, window: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A ``DBCluster``.

    Args:
        found: which.
        window: what ``branches`` answers: how far it can be set back; None: it keeps no history.
    """
    status = found.status
    shown = {
        "DBClusterIdentifier": status.name,
        "DBClusterArn": found.arn,
        "DbClusterResourceId": found.resource_id("cluster", status.name),
        "Status": status.activity,
        "ClusterCreateTime": moment(status.created),
        "Engine": ENGINE,
        "EngineVersion": status.version,
        "EngineMode": "provisioned",
        "DatabaseName": settings.DATABASE,
        "MasterUsername": settings.USER,
        "Endpoint": status.writer_endpoint,
        "ReaderEndpoint": status.reader_endpoint,
        "CustomEndpoints": [one.endpoint for one in status.custom_endpoints],
        "Port": status.port,
        "AvailabilityZones": zones(found),
        "MultiAZ": len({one.zone for one in status.instances}) > 1,
        "DBClusterMembers": [
            {
                "DBInstanceIdentifier": one.name,
                "IsClusterWriter": one.name == status.writer,
                "DBClusterParameterGroupStatus": "in-sync",
                "PromotionTier": one.tier,
            }
            for one in status.instances
        ],
        "IAMDatabaseAuthenticationEnabled": status.iam is not None,
        "StorageEncrypted": False,
        "DeletionProtection": False,
        "HttpEndpointEnabled": False,
        "CrossAccountClone": False,
    }
    if (limits := status.serverless) is not None:
        pause = {} if limits["pause_after"] is None else {"SecondsUntilAutoPause": round(limits["pause_after"])}
        capacity = {"MinCapacity": limits["least"], "MaxCapacity": limits["most"]}
        shown["ServerlessV2ScalingConfiguration"] = {**capacity, **pause}
    if window is not None:
        shown |= {
            "BacktrackWindow": int(window["retention"]),
            "EarliestBacktrackTime": moment(window["earliest"]),
            "EarliestRestorableTime": moment(window["earliest"]),
            "LatestRestorableTime": moment(window["latest"]),
        }
    return shown


def zones(found: Found) -> list[str]:
    """The zones of its storage, or where it has none of its own, of its instances."""
    nodes = found.status.volume.get("nodes", ())
    return sorted({node["zone"] for node in nodes} or {one.zone for one in found.status.instances})


def instance(found: Found, one: InstanceStatus) -> dict[str, Any]:
    """A ``DBInstance``."""
    status = found.status
    return {
        "DBInstanceIdentifier": one.name,
        "DBInstanceArn": found.arn_of("db", one.name),
        "DbiResourceId": found.resource_id("db", one.name),
        "DBClusterIdentifier": status.name,
        "DBInstanceClass": one.instance_class,
        "DBInstanceStatus": STATES.get(one.state, one.state),
        "InstanceCreateTime": moment(one.created),
        "Engine": ENGINE,
        "EngineVersion": status.version,
        "DBName": settings.DATABASE,
        "MasterUsername": settings.USER,
        "Endpoint": {"Address": one.endpoint, "Port": one.port},
        "AvailabilityZone": one.zone,
        "MultiAZ": False,
        "PromotionTier": one.tier,
        "IAMDatabaseAuthenticationEnabled": status.iam is not None,
        "StorageType": "aurora",
        "StorageEncrypted": False,
        "PubliclyAccessible": False,
        "DeletionProtection": False,
        "TagList": tags(found, one),
    }


def tags(found: Found, one: InstanceStatus) -> list[dict[str, str]]:
    """The tags of an instance: AWS tags those that auto-scaling has made."""
    return [{"Key": SCALING_TAG, "Value": f"cluster:{found.status.name}"}] if one.autoscaled else []


def own_endpoints(found: Found) -> list[dict[str, Any]]:
    """The cluster's two own endpoints, each a ``DBClusterEndpoint``."""
    status = found.status
    return [
        {"DBClusterIdentifier": status.name, "Endpoint": host, "Status": "available", "EndpointType": kind}
        for host, kind in ((status.writer_endpoint, "WRITER"), (status.reader_endpoint, "READER"))
    ]


def custom_endpoint(found: Found, one: CustomEndpoint) -> dict[str, Any]:
    """A custom endpoint, a ``DBClusterEndpoint``."""
    return {
        "DBClusterEndpointIdentifier": one.label,
        "DBClusterIdentifier": found.status.name,
        "DBClusterEndpointResourceIdentifier": found.resource_id("cluster-endpoint", one.label),
        "DBClusterEndpointArn": found.arn_of("cluster-endpoint", one.label),
        "Endpoint": one.endpoint,
        "Status": "available",
        "EndpointType": "CUSTOM",
        "CustomEndpointType": one.kind,
        "StaticMembers": [] if one.exclude else list(one.members),
        "ExcludedMembers": list(one.members) if one.exclude else [],
    }


def snapshot(found: Found, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A ``DBClusterSnapshot``; `facts` as `control.backtrack.Backtrack.snapshots` gives them."""
    status = found.status
    return {
        "DBClusterSnapshotIdentifier": facts["name"],
        "DBClusterSnapshotArn": found.arn_of("cluster-snapshot", facts["name"]),
        "DBClusterIdentifier": status.name,
        "DbClusterResourceId": found.resource_id("cluster", status.name),
        "SnapshotCreateTime": moment(facts["taken"]),
        "SnapshotType": "manual",
        "Status": "available",
        "PercentProgress": 100,
        "ClusterCreateTime": moment(status.created),
        "AvailabilityZones": zones(found),
        "Engine": ENGINE,
        "EngineVersion": status.version,
        "Port": status.port,
        "MasterUsername": settings.USER,
        "StorageEncrypted": False,
    }


def event(found: Found, facts: Mapping[str, Any]) -> dict[str, Any]:
    """An ``Event``; `facts` as `control.event_log.EventLog.events` gives them."""
    kinds = {event_log.CLUSTER: "cluster", event_log.INSTANCE: "db", event_log.SNAPSHOT: "cluster-snapshot"}
    return {
        "SourceIdentifier": facts["source"],
        "SourceType": facts["kind"],
        "SourceArn": found.arn_of(kinds[facts["kind"]], facts["source"]),
        "Message": facts["message"],
        "EventCategories": [facts["category"]],
        "Date": moment(facts["time"]),
    }


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(seconds, timezone.utc)
