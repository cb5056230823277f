"""How often to look."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.pace import JITTER, LONGEST, SHARE, SHORTEST, fast, varied

elapsed = st.floats(0, 1e6)
random = st.floats(0, 1, exclude_max=True)


@given(elapsed, random)
def test_a_pause_is_a_share_of_the_outage_within_bounds(passed, number):
    pause = fast(passed, number)
    assert SHORTEST * (1 - JITTER) <= pause <= LONGEST * (1 + JITTER)
    assert pause <= max(SHORTEST, SHARE * passed) * (1 + JITTER) + 1e-12


@given(st.floats(1e-6, 1e6), random)
def test_jitter_is_bounded(pause, number):
    assert pause * (1 - JITTER) <= varied(pause, number) <= pause * (1 + JITTER)


def test_the_number_of_looks_grows_slowly():
    def looks(outage: float) -> int:
        count, now = 0, 0.0
        while now < outage:
            now += fast(now, 0.5)
            count += 1
        return count

    assert looks(0.3) <= 55
    assert looks(60.0) <= 260
