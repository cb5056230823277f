"""Filters and pages, as all ``Describe…`` calls have them."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router_cluster.api.errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Tests = Mapping[str, Callable[["T", str], bool]]

LEAST, MOST = 20, 100
"""Bounds of ``MaxRecords``."""

T = TypeVar("T")


def select(rows: Sequence[T], filters: Sequence[Mapping[str, Any]], tests: Tests[T]) -> list[T]:
    """The rows that pass all filters; one passes a filter if any of its values fits.

    Args:
        rows: all of them.
        filters: as they were asked for: ``Name`` and ``Values``.
        tests: name of a filter -> whether a row fits a value.

    Raises:
        ApiError: there is no filter of that name.
    """
    for each in filters:
        if each["Name"] not in tests:
            known = ", ".join(tests)
            raise ApiError("InvalidParameterValue", f"Unrecognized filter name: {each['Name']} (there are: {known})")
    return [
        row for row in rows if all(any(tests[each["Name"]](row, value) for value in each["Values"]) for each in filters)
    ]


def page(rows: Sequence[T], key: Callable[[T], str], params: Mapping[str, Any]) -> tuple[list[T], str | None]:
    """The page that is asked for, in the order of the keys, and the marker of the next one; None: it is the last.

    A marker is the key of the last row that was given: rows that come or go between two pages disturb no other ones.

    Args:
        rows: all of them.
        key: of a row; no two have the same.
        params: ``MaxRecords`` and ``Marker``.

    Raises:
        ApiError: they are not valid.
    """
    most = params.get("MaxRecords", MOST)
    if not LEAST <= most <= MOST:
        raise ApiError(
            "InvalidParameterValue", f"Invalid value {most} for MaxRecords. Must be between {LEAST} and {MOST}"
        )
    after = _read_marker(params["Marker"]) if params.get("Marker") else None
    left = sorted((row for row in rows if after is None or key(row) > after), key=key)
    shown = left[:most]
    marker = base64.urlsafe_b64encode(key(shown[-1]).encode()).decode() if len(left) > most else None
    return shown, marker


def _read_marker(marker: str) -> str:
    try:
        return base64.b64decode(marker.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        raise ApiError("InvalidParameterValue", f"The specified marker is invalid: {marker}") from None
