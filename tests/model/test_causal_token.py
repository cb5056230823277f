from __future__ import annotations

import pickle
import re
import string
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router import CausalToken, CausalTokenRejected
from aurora_router.model.causal_token import LONGEST, DurablePosition, LogPosition, NoProof, WitnessRow
from aurora_router.model.commit_token import WitnessTable

KEY = b"k" * 32

systems = st.integers(0, 2**64 - 1).map(str)
lsns = st.integers(0, 2**64 - 1)
oids = st.integers(0, 2**32 - 1)
proofs = st.one_of(
    st.builds(LogPosition, systems, st.integers(0, 2**32 - 1), lsns),
    st.builds(
        WitnessRow,
        st.uuids(version=4).map(str),
        st.builds(WitnessTable, st.none() | systems, oids, oids),
    ),
    st.builds(DurablePosition, st.none() | systems, lsns),
    st.builds(NoProof),
)
tokens = st.builds(CausalToken, proofs)


@given(tokens)
def test_text_carries_a_token_to_another_process(token):
    text = str(token)
    assert CausalToken.parse(text) == token
    assert not CausalToken.parse(text).is_trusted, "anyone can write that"
    assert pickle.loads(pickle.dumps(token)) == token


@given(tokens)
def test_a_signed_token_is_trusted_by_who_has_the_key(token):
    text = token.sign(KEY)
    assert CausalToken.parse(text, key=KEY) == token
    assert CausalToken.parse(text, key=KEY).is_trusted
    assert CausalToken.parse(text) == token
    assert not CausalToken.parse(text).is_trusted


@given(tokens)
def test_text_fits_into_a_cookie_a_header_and_a_url(token):
    assert len(token.sign(KEY)) <= LONGEST
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token.sign(KEY))


@given(tokens, st.integers(0, LONGEST), st.sampled_from(string.printable))
def test_a_signed_token_that_was_changed_is_refused(token, place, character):
    text = token.sign(KEY)
    changed = text[: place % len(text)] + character + text[place % len(text) + 1 :]
    if changed != text:
        with pytest.raises(CausalTokenRejected):
            CausalToken.parse(changed, key=KEY)


@given(st.text() | st.text(alphabet="0123456789abcdef.wlds-1", max_size=LONGEST + 10))
def test_any_text_is_a_token_or_refused(text):
    try:
        token = CausalToken.parse(text)
    except CausalTokenRejected:
        return
    assert CausalToken.parse(str(token)) == token


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1l.1.1",
        "2l.1.1.1",
        "1l.-1.1.1",
        "1l.1.1.1\n",
        "1l.\N{ARABIC-INDIC DIGIT ONE}.1.1",
        f"1l.1.1.{'f' * 17}",
        "1l.1.1.1" + " " * LONGEST,
        "1w.not-a-uuid.1.1.1",
        f"1w.{uuid.UUID(int=1)}'; drop table pairs --.1.1.1",
        None,
        7,
        b"1l.1.1.1",
    ],
)
def test_what_is_no_token(text):
    with pytest.raises(CausalTokenRejected, match="not a causal token"):
        CausalToken.parse(text)


def test_an_unsigned_token_is_refused_where_a_signature_is_required():
    token = CausalToken(LogPosition("7", 1, 255))
    with pytest.raises(CausalTokenRejected, match="not signed"):
        CausalToken.parse(str(token), key=KEY)
    with pytest.raises(CausalTokenRejected, match="not signed"):
        CausalToken.parse(token.sign(b"another key, of 32 bytes or more"), key=KEY)


def test_a_short_key_is_refused():
    with pytest.raises(ValueError, match="at least 16"):
        CausalToken(LogPosition("7", 1, 255)).sign(b"secret")


def test_trust_is_no_part_of_a_token():
    token = CausalToken(LogPosition("7", 1, 255))
    assert token.trust() == token
    assert hash(token.trust()) == hash(token)
    assert token.trust().is_trusted
    assert str(token.trust()) == str(token) == "1l.7.1.ff"
