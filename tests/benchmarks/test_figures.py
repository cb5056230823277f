from __future__ import annotations

import json
import math

import pytest

from benchmarks.figures import Figure, as_json, table, write_json


@pytest.mark.parametrize(
    ("figure", "ok"),
    [
        (Figure.at_most("a", 1.05, "x", 1.05), True),
        (Figure.at_most("a", 1.06, "x", 1.05), False),
        (Figure.at_most("a", math.nan, "x", 1.05), False),
        (Figure.at_least("a", 0.8, "x", 0.8), True),
        (Figure.at_least("a", 0.79, "x", 0.8), False),
        (Figure.at_least("a", math.nan, "x", 0.8), False),
        (Figure.unbounded("a", 7, "s"), True),
    ],
)
def test_a_figure_keeps_its_bound_or_not(figure, ok):
    assert figure.ok is ok
    assert ("NOT OK" in figure.line()) is not ok


def test_the_json_form():
    reported = json.loads(
        as_json([Figure.at_most("connect", 1.5, "x", 1.05, "noisy"), Figure.unbounded("lag", 3, "ms")])
    )
    assert reported == {
        "connect": {"value": 1.5, "unit": "x", "bound": 1.05, "ok": False},
        "lag": {"value": 3, "unit": "ms", "bound": None, "ok": True},
    }


def test_two_figures_of_one_name_are_refused():
    with pytest.raises(ValueError, match="'a'"):
        as_json([Figure.unbounded("a", 1, "s"), Figure.unbounded("a", 2, "s")])


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "figures.json"
    write_json([Figure.unbounded("a", 1, "s")], path)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json([Figure.unbounded("a", math.nan, "s")], path)
    assert json.loads(path.read_text())["a"]["value"] == 1
    assert [each.name for each in tmp_path.iterdir()] == ["figures.json"]


def test_the_table_aligns_names():
    lines = table([Figure.unbounded("short", 1, "s"), Figure.unbounded("much longer", 2, "s")]).splitlines()
    assert lines[0].index("1 s") == lines[1].index("2 s")
    assert table([]) == ""
