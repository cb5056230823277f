from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres.account import Account

from .pair import Pair


@pytest.fixture(scope="session")
def account():
    return Account.default()


@pytest.fixture(scope="session", params=["default", pytest.param("system", marks=pytest.mark.slow)])
def binaries(request, account):
    """Both kinds of binaries: the pip extra's and, in `nox -s slow`, the system's, which may be older."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if request.param == "system" and not found:
        pytest.skip("no PostgreSQL packages of the system")
    try:
        return binaries_module.find(account, found[-1].parent if request.param == "system" else None)
    except BinariesError as error:
        pytest.skip(f"no binaries: {error}")


@contextmanager
def _pairs(binaries, account):
    """A function that starts pairs; all end with the block."""
    made = []

    def make(**options):
        pair = Pair(binaries, account, **options)
        made.append(pair)
        pair.__enter__()
        pair.run("create table public.ledger (n int); grant all on public.ledger to app")
        return pair

    try:
        yield make
    finally:
        for pair in made:
            pair.__exit__()


@pytest.fixture
def make_pair(binaries, account):
    """Start pairs; all end with the test."""
    with _pairs(binaries, account) as make:
        yield make


@pytest.fixture(scope="module")
def make_module_pair(binaries, account):
    """Start pairs; all end with the module."""
    with _pairs(binaries, account) as make:
        yield make


@pytest.fixture
def pair(make_pair):
    return make_pair()
