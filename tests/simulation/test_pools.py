"""Forty processes with pools through some changes of the cluster; the whole simulation is `pools.main`."""

from __future__ import annotations

import pytest

from aurora_router.policy.options import Balance
from aurora_router.policy.rebalancing import RATE
from tests.simulation import pools

CONNECTIONS = 20


@pytest.mark.parametrize(("balance", "seed"), [(Balance.LEAST_CONNECTIONS, 1), (Balance.ROUND_ROBIN, 2)])
def test_no_reader_has_much_more_than_its_share(balance, seed):
    found = pools.run(40, CONNECTIONS, 250.0, seed, balance=balance)
    assert len(found.changes) >= 2
    assert found.worst <= pools.WORST
    assert found.settled <= 1.2
    assert 1 <= found.per_second <= 1.0 + RATE * CONNECTIONS
    assert found.together <= 0.4


def test_without_rebalancing_the_same_changes_leave_a_skew():
    assert pools.run(40, CONNECTIONS, 250.0, 1, rebalance=False).settled > 1.4
