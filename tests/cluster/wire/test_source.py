from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.wire.source import Timeline, TimelineView


def test_a_timeline_shows_only_with_its_history_file() -> None:
    before = TimelineView((Timeline(1, 100), Timeline(2, 500)))
    assert (before.current, before.shows(2), before.end_of(1), before.history(2)) == (1, False, None, None)
    assert before.limit(1, 900) == 500  # what follows belongs to a timeline that readers may not see yet

    after = TimelineView((Timeline(1, 100), Timeline(2, 500, b"1\t0/1F4\tx\n")))
    assert (after.current, after.shows(1), after.end_of(1), after.limit(1, 900)) == (2, True, (2, 500), 500)
    assert after.limit(2, 900) == 900


def test_a_burned_id_gets_a_history_file_and_is_never_streamed() -> None:
    view = TimelineView((Timeline(1, 0), Timeline(2, 5, b"1\t0/5\tx"), Timeline(4, 9, b"1\t0/5\tx\n2\t0/9\tx\n")))
    assert view.end_of(2) == (4, 9)
    assert view.history(3) == b"1\t0/5\tx\n2\t0/9\tpromotion that never became the writer\n"
    assert not view.shows(3)
    assert view.history(1) is None


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(0, 50), st.booleans()), min_size=1, max_size=8),
    st.integers(0, 400),
)
def test_the_limits_form_one_path_from_the_first_to_the_current_timeline(
    steps: list[tuple[int, int, bool]], durable: int
) -> None:
    timelines, number, start = list[Timeline](), 0, 0
    for gap, length, stored in steps:
        number += gap
        timelines.append(Timeline(number, start, b"h" if stored else None))
        start += length
    view = TimelineView(timelines)
    at, position = timelines[0].id, 0
    while (end := view.end_of(at)) is not None:
        assert view.shows(at)
        assert position <= end[1]
        assert view.limit(at, durable) <= min(end[1], durable)
        assert all(view.history(skipped) is not None for skipped in range(at + 1, end[0] + 1))
        at, position = end
    assert at == view.current
    assert view.limit(at, durable) <= durable
