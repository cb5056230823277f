from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.control import sampling
from aurora_router_cluster.control.sampling import LogClock, Member, Sample


def sample(at=0.0, applied=0, *, commit_age=None, received=None, recovering=True, streaming=True):
    received = applied if received is None else received
    return Sample(at, at + 1e9, recovering, received, applied, commit_age, 1, 0, 7, (3 << 32) + 9, streaming)


def test_a_row_is_read():
    read = Sample.from_row(("t", "4096", "4000", "0.25", "2", "1", "77", "750", "f", "4"), at=1.0, wall=2.0)
    assert read == Sample(1.0, 2.0, True, 4096, 4000, 0.25, 2, 1, 77, 750, False, 4)


def test_a_row_of_an_instance_that_knows_nothing_yet_is_read():
    read = Sample.from_row(("t", None, None, None, "0", "0", None, "3", "f", None), at=1.0, wall=2.0)
    assert (read.received, read.applied, read.commit_age, read.reads) == (0, 0, None, 0)


def test_the_log_of_a_writer_ends_where_it_has_flushed_to():
    """After a log switch the insert position is behind the next page's header: no reader can replay up to there."""
    read = Sample.from_row(("f", "16777216", "16777256", None, "0", "0", "0", "3", "t", "0"), at=1.0, wall=2.0)
    assert (read.received, read.applied) == (16777216, 16777256)
    clock = LogClock()
    clock.observe(read.at, read.received)
    assert clock.lag(sample(60.0, 16777216, commit_age=59.0)) == 0.0


def test_without_observations_lag_is_unknown():
    assert LogClock().lag(sample()) is None


def test_who_has_all_has_no_lag_however_old_the_last_commit():
    clock = LogClock()
    clock.observe(10.0, 500)
    assert clock.lag(sample(11.0, 500, commit_age=3600.0)) == 0.0


def test_lag_is_the_age_of_the_first_byte_that_is_missing():
    clock = LogClock()
    for second, position in enumerate((100, 200, 300)):
        clock.observe(float(second), position)
    assert clock.lag(sample(2.5, 150)) == pytest.approx(1.5)
    assert clock.lag(sample(2.5, 250)) == pytest.approx(0.5)


def test_the_last_commit_bounds_lag():
    clock = LogClock()
    clock.observe(0.0, 100)
    clock.observe(5.0, 900)
    assert clock.lag(sample(5.4, 800, commit_age=0.02)) == pytest.approx(0.02)


def test_a_new_writer_with_a_shorter_log_starts_the_clock_anew():
    clock = LogClock()
    clock.observe(0.0, 1000)
    clock.observe(1.0, 800)
    assert clock.lag(sample(1.0, 800)) == 0.0


@given(
    steps=st.lists(st.tuples(st.floats(0, 10), st.integers(0, 1000)), min_size=1, max_size=40),
    low=st.integers(0, 20_000), high=st.integers(0, 20_000), after=st.floats(0, 100),
)  # fmt: skip
def test_lag_is_never_negative_and_never_larger_for_who_has_more(steps, low, high, after):
    clock, at, position = LogClock(), 0.0, 0
    for seconds, length in steps:
        at, position = at + seconds, position + length
        clock.observe(at, position)
    behind, ahead = (clock.lag(sample(at + after, applied)) for applied in sorted((low, high)))
    assert behind >= ahead >= 0.0


def test_the_rows_have_what_the_sql_surface_reads():
    members = [
        Member(
            "demo-1", "s1", True, (sample(0.0, 100, recovering=False), sample(1.0, 2148, recovering=False)), None, 12.5
        ),
        Member("demo-2", "s2", False, (sample(1.0, 100, received=2148, streaming=False),), 0.0123, None),
    ]
    writer, reader = sampling.replica_status(members, 2000)
    assert (writer["writer"], reader["writer"]) == (True, False)
    assert writer["log_stream_speed_in_kib_per_second"] == pytest.approx(2.0)
    assert (reader["replica_lag_in_msec"], reader["cur_replay_latency_in_usec"]) == (12, 12300)
    assert (reader["highest_lsn_rcvd"], reader["current_read_lsn"], reader["durable_lsn"]) == (2148, 100, 2000)
    assert (reader["feedback_xmin"], reader["feedback_epoch"]) == (9, 3)
    assert reader["last_transport_error"] == 1
    assert (writer["cpu"], reader["cpu"]) == (12.5, None)
    assert reader["last_error_timestamp"] == reader["last_update_timestamp"]


def test_a_writer_shows_what_the_volume_has_however_old_its_sample_is():
    """Clients need that to distinguish a writer from what it was when it was the writer before."""
    members = [Member("demo-1", "s1", True, (sample(0.0, 100, recovering=False),), None, None)]
    (writer,) = sampling.replica_status(members, 2000)
    assert writer["durable_lsn"] == 2000


def test_an_instance_not_asked_yet_has_a_row_without_figures():
    (row,) = sampling.replica_status([Member("demo-1", "s1", True, (), None, None)], None)
    assert row == {"server_id": "demo-1", "session": "s1", "writer": True}
