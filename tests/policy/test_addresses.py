"""Addresses of one dial: their order and their shares of the time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aurora_router.policy.addresses import AFTER_REFUSAL, decisive, order_by_family, share
from aurora_router.policy.verdict import Fault, FaultKind

KINDS = st.sampled_from(list(FaultKind))


@given(st.floats(0, 100), st.lists(KINDS, max_size=4))
def test_shares_add_up_to_the_limit_at_most(limit, kinds):
    left, faults = limit, []
    for number, kind in enumerate(kinds):
        part = share(left, len(kinds) - number - 1, faults)
        assert 0.0 <= part <= left + 1e-9
        left -= part
        faults.append(Fault(kind, None, ""))
    assert left >= -1e-9


def test_the_only_address_has_the_whole_limit():
    assert share(5.0, 0, []) == 5.0


def test_after_a_refusal_the_others_do_not_delay_a_failover():
    assert share(5.0, 0, [Fault(FaultKind.REFUSED, None, "")]) == AFTER_REFUSAL


def test_the_family_that_led_to_a_server_comes_first():
    addresses = ["10.0.0.1", "fd00::1", "10.0.0.2"]
    assert order_by_family(addresses, v6_first=False) == ["10.0.0.1", "10.0.0.2", "fd00::1"]
    assert order_by_family(addresses, v6_first=True) == ["fd00::1", "10.0.0.1", "10.0.0.2"]


@given(st.lists(KINDS, min_size=1, max_size=4))
def test_every_kind_of_fault_can_be_decided_on(kinds):
    assert 0 <= decisive([Fault(each, None, "") for each in kinds]) < len(kinds)
