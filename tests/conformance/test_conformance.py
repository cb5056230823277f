"""What psycopg's objects do is the same on stock psycopg and on ours, but for the differences that are listed."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path

import psycopg
import pytest
import yaml

import aurora_router
from tests.conformance import connections, cursors, sessions, spy
from tests.conformance.ground import Ground, run

pytestmark = pytest.mark.cluster

CASES = {each.__name__: each for each in [*connections.CASES, *sessions.CASES, *cursors.CASES]}
LISTED = yaml.safe_load((Path(__file__).parent / "differences.yaml").read_text(encoding="utf-8"))
MODES = ("sync", "async")


def differing(stock, ours):
    """The pairs of entries that are not equal, in order."""
    return [(one, two) for one, two in zip_longest(stock, ours) if one != two]


def key(pair):
    """What a difference is listed by: the name that shows it."""
    return (pair[0] or pair[1]).name


LOGS = {}


def stock_log(cluster, name, mode):
    """What a case shows on stock psycopg; run once."""
    if (name, mode) not in LOGS:
        LOGS[name, mode] = run(CASES[name], Ground(cluster, "stock", mode))
    return LOGS[name, mode]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CASES)
def test_the_same_as_stock_psycopg(aurora_cluster, name, mode):
    stock = stock_log(aurora_cluster, name, mode)
    ours = run(CASES[name], Ground(aurora_cluster, "ours", mode))
    assert stock
    found = differing(stock, ours)
    told = "\n".join(f"stock: {one}\nours:  {two}" for one, two in found)
    assert sorted({key(pair) for pair in found}) == sorted(LISTED.get(name, {})), told


def test_every_public_name_is_tried(aurora_cluster):
    tried = {}
    for name in CASES:
        for mode in MODES:
            for entry in stock_log(aurora_cluster, name, mode):
                tried.setdefault(entry.of, set()).add(entry.name)
    assert {each.__name__ for each in spy.CLASSES} == spy.PUBLIC.keys()
    untried = {name: sorted(names - tried[name]) for name, names in spy.PUBLIC.items() if names - tried[name]}
    assert not untried, f"psycopg {psycopg.__version__} has names that no case of ours tries: {untried}"


def test_a_difference_is_noticed(aurora_cluster):
    class Forgetful(aurora_router.Connection):
        def rollback(self):
            super().commit()

    stock = stock_log(aurora_cluster, "transactions", "sync")
    ours = run(sessions.transactions, Ground(aurora_cluster, "ours", "sync", of=Forgetful))
    assert differing(stock, ours)
