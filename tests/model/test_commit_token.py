from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.commit_token import CommitToken, ServerIncarnation, WitnessTable

numbers = st.integers(0, 2**63)
incarnations = st.builds(ServerIncarnation, st.text("0123456789", min_size=1), numbers, numbers, st.none() | numbers)
places = st.builds(WitnessTable, st.none() | st.text("0123456789", min_size=1), numbers, numbers, st.text())
tokens = st.builds(
    CommitToken,
    numbers,
    numbers,
    numbers,
    numbers,
    st.none() | incarnations,
    st.none() | numbers,
    st.booleans(),
    st.none() | st.text(),
    st.none() | places,
)


@given(tokens)
def test_a_token_survives_being_written_and_read(token):
    assert CommitToken.parse(str(token)) == token


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", '{"xid": 1}', '{"incarnation": null}', "7", '{"incarnation": 3, "xid": 1}']
)
def test_what_is_no_token_is_refused(text):
    with pytest.raises(ValueError, match="not a commit token"):
        CommitToken.parse(text)
