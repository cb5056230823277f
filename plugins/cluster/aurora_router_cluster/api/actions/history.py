"""The history of DB clusters: going back in place, and a new cluster as of an earlier point."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import account as accounts
from aurora_router_cluster.api import background, shapes
from aurora_router_cluster.api.account import Found
from aurora_router_cluster.api.actions.clusters import check_cluster_available
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import ApiError, Fault
from aurora_router_cluster.dns.names import Names, check_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.api.account import Account
    from aurora_router_cluster.control.status import ClusterStatus

log = logging.getLogger(__name__)


@action("BacktrackDBCluster", "DBClusterIdentifier", "BacktrackTo", "Force", "UseEarliestTimeOnPointInTimeUnavailable")
def backtrack_db_cluster(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to set a cluster back in place; there is no binary log, so nothing has to be forced."""
    found = account.cluster(params["DBClusterIdentifier"])
    check_cluster_available(found)
    window = _window(found)
    target: datetime = params["BacktrackTo"]
    if target < window[0] and params.get("UseEarliestTimeOnPointInTimeUnavailable"):
        target = window[0]
    _check_inside(target, window, "BacktrackTo", "InvalidParameterValue")
    line: int = found.ask("branches")["present"]

    def has_begun() -> bool:
        present: int = found.ask("branches")["present"]
        return present != line or found.ask_for_status().activity == "backtracking"

    background.start(lambda: found.attach().history.backtrack(target), has_begun)
    return {
        "DBClusterIdentifier": found.status.name,
        "BacktrackIdentifier": str(uuid.uuid4()),
        "BacktrackTo": target,
        "BacktrackedFrom": window[1],
        "BacktrackRequestCreationTime": datetime.now(timezone.utc),
        "Status": "APPLYING",
    }


@action(
    "RestoreDBClusterToPointInTime",
    "DBClusterIdentifier", "SourceDBClusterIdentifier", "RestoreToTime", "UseLatestRestorableTime", "RestoreType",
    "Port",
)  # fmt: skip
def restore_db_cluster_to_point_in_time(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """Begin to make a new cluster with the data that another one had at a time, or has now; it has a writer alone."""
    if "SourceDBClusterIdentifier" not in params:
        raise ApiError("MissingParameter", "The request must contain the parameter SourceDBClusterIdentifier")
    source, name = account.cluster(params["SourceDBClusterIdentifier"]), params["DBClusterIdentifier"].lower()
    check_label(name, "a cluster")
    if any(name in {one.status.name, one.status.key} for one in account.clusters):
        raise Fault("DBClusterAlreadyExistsFault", f"DB Cluster already exists: {name}")
    target, outline = _read_target(params, source), _outline(source, name, params.get("Port"))
    options: dict[str, Any] = {
        "readers": 0,
        "detach": True,
        "api": True,
        "domain": source.status.domain,
        "port": params.get("Port"),
        "tls": source.status.certificate_authority is not None,
        "iam": source.status.iam is not None,
    }

    def restore() -> None:
        history = source.attach().history
        with accounts.in_creation(outline):
            try:
                if target is None:
                    history.clone(name, **options)
                else:
                    history.restore(target, name, **options)
            except Exception:
                log.exception("the cluster %s could not be restored", name)  # clients see that it is not there
                raise

    background.start(restore, lambda: accounts.is_in_creation(name))
    return {"DBCluster": shapes.cluster(Found(outline))}


def _outline(source: Found, name: str, port: int | None) -> ClusterStatus:
    """The status of a cluster that is being restored."""
    names = Names(name, source.status.domain)
    return replace(
        source.status,
        name=name, key=name, writer_endpoint=names.writer, reader_endpoint=names.reader, writer=None, instances=(),
        custom_endpoints=(), activity="creating", created=time.time(), port=port or source.status.port,
    )  # fmt: skip


def _read_target(params: Mapping[str, Any], source: Found) -> datetime | None:
    """The point to restore; None: now.

    Raises:
        ApiError, Fault: none is given, or several, or one that is not available.
    """
    kind, latest = params.get("RestoreType", "full-copy"), params.get("UseLatestRestorableTime", False)
    if kind not in {"full-copy", "copy-on-write"}:
        raise ApiError("InvalidParameterValue", f"Invalid RestoreType {kind}; it is full-copy or copy-on-write")
    if ("RestoreToTime" in params) == bool(latest) and kind == "full-copy":
        raise ApiError("InvalidParameterCombination", "Give RestoreToTime or UseLatestRestorableTime, and not both")
    if kind == "copy-on-write" and "RestoreToTime" in params:
        raise ApiError("InvalidParameterCombination", "RestoreToTime cannot be given with RestoreType copy-on-write")
    window = _window(source)
    if "RestoreToTime" not in params:
        return None
    target: datetime = params["RestoreToTime"]
    _check_inside(target, window, "RestoreToTime", None)
    return target


def _window(found: Found) -> tuple[datetime, datetime]:
    """From when to when the cluster can be set back."""
    branches = found.ask("branches")
    return shapes.moment(branches["earliest"]), shapes.moment(branches["latest"])


def _check_inside(time_: datetime, window: tuple[datetime, datetime], name: str, code: str | None) -> None:
    first, last = window
    if first <= time_ <= last:
        return
    message = f"{name} {time_.isoformat()} is outside of the window, {first.isoformat()} to {last.isoformat()}."
    raise ApiError(code, message) if code is not None else Fault("InvalidRestoreFault", message)
