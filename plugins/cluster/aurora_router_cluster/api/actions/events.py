"""Events: what happened to clusters and instances."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.api import paging, shapes
from aurora_router_cluster.api.actions.table import action
from aurora_router_cluster.api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.api.account import Account

DEFAULT_MINUTES = 60


@action(
    "DescribeEvents",
    "SourceIdentifier", "SourceType", "StartTime", "EndTime", "Duration", "EventCategories", "MaxRecords", "Marker",
)  # fmt: skip
def describe_events(account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
    """The events of the last hour, or of the time that is asked for, oldest first."""
    source, kind = params.get("SourceIdentifier"), params.get("SourceType")
    if source and not kind:
        raise ApiError("InvalidParameterCombination", "SourceIdentifier cannot be given without SourceType")
    start, end = _span(params)
    wanted = set(params.get("EventCategories", ()))
    rows = [
        (f"{facts['time']:.6f} {found.arn} {number:09d}", shapes.event(found, facts))
        for found in account.clusters
        for number, facts in enumerate(found.ask_if_it_answers("events") or ())
        if kind in {None, facts["kind"]}
        and (source is None or source.lower() == facts["source"])
        and start <= shapes.moment(facts["time"]) <= end
        and (not wanted or facts["category"] in wanted)
    ]
    shown, marker = paging.page(rows, lambda row: row[0], params)
    return {"Events": [event for _, event in shown], "Marker": marker}


def _span(params: Mapping[str, Any]) -> tuple[datetime, datetime]:
    """From when to when events are asked for."""
    now = datetime.now(timezone.utc)
    end: datetime = params.get("EndTime", now)
    try:
        duration = timedelta(minutes=params.get("Duration", DEFAULT_MINUTES))
        start: datetime = params["StartTime"] if "StartTime" in params else end - duration
        if "StartTime" in params and "Duration" in params and "EndTime" not in params:
            end = start + duration
    except OverflowError:
        raise ApiError("InvalidParameterValue", "The times are out of range; shorten Duration") from None
    if start > end:
        raise ApiError("InvalidParameterCombination", "The specified StartTime is later than the EndTime")
    return start, end
