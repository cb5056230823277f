"""`run_transaction` for Django, through a relay that cuts the connection around COMMIT."""

from __future__ import annotations

import pytest

import aurora_router
from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres.account import Account
from tests.commits.pair import Pair
from tests.commits.relay import Cut
from tests.commits.test_cut_off import rows

pytestmark = pytest.mark.cluster

CUTS = [Cut.BEFORE_SEND, Cut.AFTER_SEND, Cut.AFTER_ACK, Cut.ANSWERED_FATAL, Cut.ANSWERED_CONFLICT]


@pytest.fixture
def pair():
    account = Account.default()
    pair = Pair(binaries_module.find(account, None), account)
    pair.__enter__()
    try:
        pair.run("create table public.ledger (n int); grant all on public.ledger to app")
        yield pair
    finally:
        pair.__exit__()


@pytest.fixture
def alias(pair, configured):
    """An alias whose connections go through the relays."""
    ports = ",".join(str(pair.relays[engine].port) for engine in (pair.one, pair.two))
    place = {"HOST": "127.0.0.1,127.0.0.1", "PORT": ports, "NAME": "app", "USER": "app", "PASSWORD": "app"}
    options = {"sslmode": "disable", "gssencmode": "disable", "aurora_source": "postgresql"}
    kind = type(configured["default"])
    settings = {**configured["default"].settings_dict, **place, "OPTIONS": options, "CONN_MAX_AGE": None}
    configured["cut"] = kind(settings, "cut")
    yield "cut"
    configured["cut"].close()
    del configured["cut"]


def put(alias, n=1):
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("insert into ledger values (%s)", [n])


@pytest.mark.parametrize("cut", [None, *CUTS], ids=str)
def test_it_commits_once_and_its_hooks_run_once(pair, alias, configured, cut):
    from django.db import transaction

    from aurora_router_django.transaction import run_transaction

    ran = []

    def work():
        put(alias)
        transaction.on_commit(lambda: ran.append(rows(pair)), using=alias)
        with transaction.atomic(using=alias):
            transaction.on_commit(lambda: ran.append("undone"), using=alias)
            transaction.set_rollback(True, using=alias)  # of the savepoint
        return "done"

    for expected in (1, 2, 3):
        if cut is not None and expected == 2:
            pair.relays[pair.one].arm(cut)
        assert run_transaction(work, using=alias) == "done"
        assert ran == [*range(1, expected + 1)], "each once, when its row is there"
        assert configured[alias].get_autocommit()
    assert cut is None or pair.relays[pair.one].done.is_set()


def test_hooks_do_not_run_for_what_did_not_commit(pair, alias):
    from django.db import connections, transaction
    from django.db.transaction import TransactionManagementError

    from aurora_router_django.transaction import run_transaction

    ran = []

    def fail():
        put(alias)
        transaction.on_commit(lambda: ran.append(1), using=alias)
        raise LookupError

    def give_up():
        put(alias)
        transaction.on_commit(lambda: ran.append(1), using=alias)
        transaction.set_rollback(True, using=alias)

    with pytest.raises(LookupError):
        run_transaction(fail, using=alias)
    with pytest.raises(TransactionManagementError, match="asked for a rollback"):
        run_transaction(give_up, using=alias)
    with pytest.raises(TransactionManagementError, match="outside of atomic blocks"), transaction.atomic(using=alias):
        run_transaction(fail, using=alias)
    assert (rows(pair), ran) == (0, [])
    run_transaction(lambda: put(alias), using=alias)
    assert (rows(pair), ran, connections[alias].run_on_commit) == (1, [], [])


def test_hooks_do_not_run_where_the_outcome_is_unknown(pair, alias, configured):
    from django.db import transaction

    from aurora_router_django.transaction import run_transaction

    ran = []

    def work():
        put(alias)
        transaction.on_commit(lambda: ran.append(1), using=alias)

    configured[alias].settings_dict["OPTIONS"]["aurora_outcome"] = "off"
    run_transaction(work, using=alias)
    assert ran == [1]
    pair.relays[pair.one].arm(Cut.AFTER_ACK)
    with pytest.raises(aurora_router.CommitOutcomeUnknown):
        run_transaction(work, using=alias)
    assert (rows(pair), ran) == (2, [1])


@pytest.mark.parametrize("cut", [None, Cut.AFTER_ACK], ids=str)
def test_it_gives_the_causal_token_of_what_was_committed(pair, alias, configured, cut):
    from django.db import transaction

    from aurora_router_django.transaction import run_transaction

    told = []
    pair.run("grant pg_read_all_stats to app")

    def work():
        put(alias)
        transaction.on_commit(lambda: told.append("hook"), using=alias)

    run_transaction(work, using=alias)
    if cut is not None:
        pair.relays[pair.one].arm(cut)
    run_transaction(work, using=alias, on_causal=told.append)
    first, token, last = told
    assert (first, last, type(token)) == ("hook", "hook", aurora_router.CausalToken)
    configured[alias].ensure_connection()
    replayed = configured[alias].connection.has_replayed(token)
    assert replayed is (cut is None), "no proof where the connection was lost: the writer serves"


def test_a_failing_on_causal_is_no_error_of_the_transaction(pair, alias):
    from django.db import transaction

    from aurora_router_django.transaction import run_transaction

    ran = []

    def work():
        put(alias)
        transaction.on_commit(lambda: ran.append(rows(pair)), using=alias)

    def fail(_):
        raise LookupError("no")

    with pytest.raises(aurora_router.CommitOutcomeUnknown, match="is committed, and on_causal failed: LookupError"):
        run_transaction(work, using=alias, on_causal=fail)
    assert ran == [1]


def test_no_causal_token_of_what_was_not_committed(pair, alias):
    from aurora_router_django.transaction import run_transaction

    tokens = []

    def fail():
        put(alias)
        raise LookupError

    with pytest.raises(LookupError):
        run_transaction(fail, using=alias, on_causal=tokens.append)
    assert tokens == []
