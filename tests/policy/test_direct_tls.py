"""Which paths are dialled with TLS at once, and what ends that."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.bounds import MAX_NAMES
from aurora_router.policy.direct_tls import FIRST_VERSION, DirectTls

HERE, THERE = ("10.0.0.1", 5432), ("10.0.0.2", 5432)
NONE = DirectTls()


def seen(version, path=HERE, known=NONE, *, encrypted=True):
    return known.record_session(path, version, encrypted=encrypted)


def test_a_path_is_promising_once_such_a_server_was_seen_there():
    assert not NONE.is_promising(HERE)
    known = seen(170002)
    assert known.is_promising(HERE)
    assert not known.is_promising(THERE), "a proxy may stand before one of two servers"
    assert not seen(160009).is_promising(HERE)
    assert not seen(170002, encrypted=False).is_promising(HERE)


def test_a_refusal_counts_until_the_server_is_another_one():
    known = seen(170002).record_refusal(HERE)
    assert not known.is_promising(HERE)
    assert not seen(170002, known=known).is_promising(HERE)
    assert seen(180001, known=known).is_promising(HERE)


def test_after_silence_the_path_is_learned_again():
    known = seen(170002).record_silence(HERE)
    assert not known.is_promising(HERE)
    assert seen(170002, known=known).is_promising(HERE)


def test_a_session_without_tls_ends_it():
    assert not seen(170002, known=seen(170002), encrypted=False).is_promising(HERE)


def test_what_changes_nothing_returns_the_same():
    known = seen(170002)
    assert seen(170002, known=known) is known
    assert NONE.record_silence(HERE) is NONE


def test_the_tables_are_bounded():
    known = NONE
    for number in range(MAX_NAMES + 10):
        known = seen(170000, ("10.0.0.1", number), known).record_refusal(("10.0.0.1", number))
    assert (len(known.versions), len(known.refused)) == (MAX_NAMES, MAX_NAMES)


STEPS = st.one_of(
    st.tuples(st.just("session"), st.sampled_from([150000, 170000, 180001]), st.booleans()),
    st.tuples(st.just("refusal"), st.just(0), st.just(False)),
    st.tuples(st.just("silence"), st.just(0), st.just(False)),
)


@given(st.lists(st.tuples(st.sampled_from([HERE, THERE]), STEPS), max_size=20))
def test_never_before_a_session_with_tls_nor_between_a_refusal_and_another_version(steps):
    known = NONE
    last, refused = {}, {}
    for path, (kind, version, encrypted) in steps:
        if kind == "session":
            known = known.record_session(path, version, encrypted=encrypted)
            if encrypted:
                last[path] = version
            else:
                last.pop(path, None)
        elif kind == "refusal":
            known = known.record_refusal(path)
            refused[path] = last.get(path, 0)
        else:
            known = known.record_silence(path)
            last.pop(path, None)
        for each in (HERE, THERE):
            expected = last.get(each, 0) >= FIRST_VERSION and refused.get(each) != last[each]
            assert known.is_promising(each) is expected
