from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router.model.ticket import Life, Place, Ticket

numbers = st.integers(0, 2**63)
lives = st.builds(Life, st.text("0123456789", min_size=1), numbers, numbers, st.none() | numbers)
places = st.builds(Place, st.none() | st.text("0123456789", min_size=1), numbers, numbers, st.text())
tickets = st.builds(
    Ticket,
    numbers,
    numbers,
    numbers,
    numbers,
    st.none() | lives,
    st.none() | numbers,
    st.booleans(),
    st.none() | st.text(),
    st.none() | places,
)


@given(tickets)
def test_a_ticket_survives_being_written_and_read(ticket):
    assert Ticket.parse(str(ticket)) == ticket


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"xid": 1}', '{"life": null}', "7", '{"life": 3, "xid": 1}'])
def test_what_is_no_ticket_is_refused(text):
    with pytest.raises(ValueError, match="not a ticket"):
        Ticket.parse(text)
