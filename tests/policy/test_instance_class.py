"""Sizes of instance classes, and the weights that follow from them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from aurora_router.model.description import Attributes
from aurora_router.model.endpoint import WantedRole
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View
from aurora_router.policy.balance import select
from aurora_router.policy.instance_class import size_of
from aurora_router.policy.options import Balance, Options
from aurora_router.policy.quarantine import Quarantine


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("db.t4g.medium", 1),
        ("db.r6g.large", 2),
        ("db.r6g.xlarge", 4),
        ("db.r8g.2xlarge", 8),
        ("db.r6i.32xlarge", 128),
        ("db.x2g.16xlarge", 64),
        ("db.serverless", None),
        ("db.r6g.0xlarge", None),
        ("", None),
        (None, None),
    ],
)
def test_sizes(name, size):
    assert size_of(name) == size


def shares(*classes, count=600, **options):
    """How many of some selections each reader gets."""
    ids = [f"demo-{number}" for number in range(2, 2 + len(classes))]
    readers = {each: Instance(each, Role.READER) for each in ids}
    attributes = {each: Attributes(instance_class=name) for each, name in zip(ids, classes, strict=True)}
    view = View(readers, attributes=attributes, refreshed_at=0.0)
    given = {"loads": {}, "quarantine": Quarantine(), "now": 0.0, "rng": random.Random(0)}
    weighted = Options(balance=Balance.WEIGHTED, **options)
    chosen = Counter(select(view, weighted, WantedRole.READER, turn=turn, **given).order[0].id for turn in range(count))
    return [chosen[each] for each in ids]


def test_classes_are_the_weights_where_none_are_given():
    assert shares("db.r6g.large", "db.r6g.xlarge") == pytest.approx([200, 400], abs=5)
    assert shares("db.r6g.large", "db.r6g.large", "db.r6g.2xlarge") == pytest.approx([100, 100, 400], abs=5)


@pytest.mark.parametrize("other", ["db.serverless", None])
def test_a_size_that_is_not_known_makes_all_equal(other):
    assert shares("db.r6g.8xlarge", other) == pytest.approx([300, 300], abs=5)


def test_weights_that_are_given_count_alone():
    assert shares("db.r6g.large", "db.r6g.8xlarge", weights=(("demo-2", 2),)) == pytest.approx([400, 200], abs=5)
