from __future__ import annotations

from aurora_router_cluster.faults.status_distortion import Picture

NOW = "2026-01-01T00:00:10+00:00"


def rows(*names, stamp=NOW):
    return [{"server_id": name, "last_update_timestamp": stamp} for name in names]


def test_nothing_is_distorted_without_faults():
    told = rows("demo-1", "demo-2")
    assert Picture().distort("demo-1", told) is told


def test_a_skewed_clock_shows_everywhere_in_its_own_row_alone():
    picture = Picture()
    picture.skews = {"demo-2": -3.5}
    shown = picture.distort("demo-1", rows("demo-1", "demo-2"))
    assert shown[0]["last_update_timestamp"] == NOW
    assert shown[1]["last_update_timestamp"] == "2026-01-01T00:00:06.500000+00:00"


def test_a_writer_that_was_never_asked_has_no_stamp_to_skew():
    picture = Picture()
    picture.skews = {"demo-1": 5.0}
    assert picture.distort("demo-2", [{"server_id": "demo-1"}]) == [{"server_id": "demo-1"}]


def test_a_stale_instance_keeps_the_rows_of_the_others():
    picture = Picture()
    picture.kept = {"demo-2": rows("demo-1", "demo-2", stamp="old")}
    shown = picture.distort("demo-2", rows("demo-1", "demo-2", "demo-3"))
    assert shown == [*rows("demo-1", stamp="old"), *rows("demo-2")]
    assert picture.distort("demo-1", rows("demo-1", "demo-3")) == rows("demo-1", "demo-3")
