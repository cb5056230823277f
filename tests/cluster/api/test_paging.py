from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.api import paging
from aurora_router_cluster.api.errors import ApiError


def pages(rows, most):
    """All pages, each a list."""
    marker, found = None, []
    while not found or marker is not None:
        shown, marker = paging.page(rows, str, {"MaxRecords": most, **({"Marker": marker} if marker else {})})
        found.append(shown)
    return found


@given(st.integers(0, 130), st.integers(20, 100))
def test_pages_hold_every_row_once_in_order(rows, most):
    ordered = [f"{number:03d} é" for number in range(rows)]
    found = pages(ordered, most)
    assert [row for page in found for row in page] == ordered
    assert all(len(page) == most for page in found[:-1])


def test_rows_that_come_and_go_between_two_pages_disturb_no_others():
    rows = [f"{number:02d}" for number in range(40)]
    first, marker = paging.page(rows, str, {"MaxRecords": 20})
    rows = ["000", *rows[5:], "99"]
    second, last = paging.page(rows[::-1], str, {"MaxRecords": 100, "Marker": marker})
    assert first == [f"{number:02d}" for number in range(20)]
    assert second == [*(f"{number:02d}" for number in range(20, 40)), "99"]
    assert last is None


@pytest.mark.parametrize("params", [{"MaxRecords": 19}, {"MaxRecords": 101}, {"Marker": "?"}, {"Marker": "é"}])
def test_a_page_that_cannot_be_is_refused(params):
    with pytest.raises(ApiError) as caught:
        paging.page([], str, params)
    assert caught.value.code == "InvalidParameterValue"


def test_a_row_has_to_pass_every_filter_by_one_of_its_values():
    tests = {"parity": lambda row, value: value == ("odd" if row % 2 else "even"), "is": lambda row, v: str(row) == v}
    rows = list(range(6))
    assert paging.select(rows, [], tests) == rows
    assert paging.select(rows, [{"Name": "parity", "Values": ["odd"]}], tests) == [1, 3, 5]
    both = [{"Name": "parity", "Values": ["odd"]}, {"Name": "is", "Values": ["2", "3", "5"]}]
    assert paging.select(rows, both, tests) == [3, 5]
    with pytest.raises(ApiError, match="Unrecognized filter name: colour"):
        paging.select(rows, [{"Name": "colour", "Values": []}], tests)
