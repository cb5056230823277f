"""Waits between tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.backoff import exponential, full_jitter

attempts = st.integers(0, 10_000)
randoms = st.floats(0, 1, exclude_max=True)
bases = st.floats(0.001, 10)


def test_exponential_doubles_up_to_the_cap():
    assert [exponential(n, base=0.1, cap=1.0) for n in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_an_attempt_has_a_number():
    with pytest.raises(ValueError, match="attempt -1 is negative"):
        exponential(-1, base=0.1, cap=1.0)


def test_full_jitter_is_a_share_of_the_exponential():
    assert [full_jitter(2, share, base=1.0, cap=3.0) for share in (0.0, 0.5, 0.75)] == [0.0, 1.5, 2.25]


@given(attempts, randoms, bases, st.floats(0.001, 100))
def test_no_wait_exceeds_the_cap(attempt, random, base, cap):
    longest = exponential(attempt, base=base, cap=cap)
    assert 0.0 < longest <= cap
    assert longest <= exponential(attempt + 1, base=base, cap=cap)
    assert 0.0 <= full_jitter(attempt, random, base=base, cap=cap) <= longest
