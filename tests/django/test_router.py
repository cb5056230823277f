"""Where `ReaderRouter` sends queries, and that reads see the writes before them."""

from __future__ import annotations

import logging
import time
import unittest

import pytest

import aurora_router
from aurora_router import web
from tests.superuser import hold_replay

pytestmark = pytest.mark.cluster

KEY = b"k" * 32


@pytest.fixture
def settled(items, configured):
    """The model; nothing is owed, as at the beginning of a request, and no connection is open."""
    from django.db import close_old_connections

    items.objects.create(name="there")
    until = time.monotonic() + 30
    while items.objects.all().db != "replica":
        assert time.monotonic() < until
        time.sleep(0.01)
    assert items.objects.get().name == "there"
    close_old_connections()
    for alias in ("default", "replica"):
        configured[alias].close()
    yield items
    close_old_connections()


def place(items):
    return items.objects.all().db


def raw(configured):
    with configured["default"].cursor() as cursor:
        cursor.execute("select 1")


class TestRules:
    def test_reads_and_writes(self, settled):
        found = settled.objects.get()
        assert (found._state.db, settled.objects.select_for_update().db) == ("replica", "default")
        found.name = "changed"
        found.save()
        assert found._state.db == "default"
        assert settled.objects.get_or_create(name="changed") == (found, False)

    @pytest.mark.parametrize("how", ["write", "raw", "savepoint"])
    def test_a_block_that_used_the_writer_stays_there(self, settled, configured, how):
        from django.db import transaction

        with transaction.atomic():
            assert place(settled) == "replica", "a block alone is no write"
            assert settled.objects.count() == 1
            if how == "write":
                settled.objects.create(name="new")
            elif how == "raw":
                raw(configured)
            else:
                with transaction.atomic():
                    assert place(settled) == "default"
            assert place(settled) == "default"
            assert settled.objects.count() == (2 if how == "write" else 1)
            transaction.set_rollback(True)
        until = time.monotonic() + 30
        while place(settled) != "replica":
            assert time.monotonic() < until, "nothing was committed that a reader would lack"

    def test_what_a_test_case_does(self, settled, configured):
        """Transactions on both aliases, and what the test wrote is not committed."""
        from django.test import TestCase

        class Case(TestCase):
            databases = ("default", "replica")

            @classmethod
            def setUpTestData(cls):
                assert place(settled) == "replica"
                settled.objects.create(name="new")

            def test(self):
                assert settled.objects.count() == 2

        result = unittest.TestResult()
        unittest.TestSuite([Case("test")]).run(result)
        assert (result.testsRun, result.errors, result.failures) == (1, [], [])
        assert settled.objects.using("default").count() == 1

    def test_relations_and_migrations(self, settled):
        from django.db import router

        here, there = settled.objects.using("default").get(), settled.objects.using("replica").get()
        assert router.allow_relation(here, there)
        (ours,) = router.routers
        here._state.db = "another"
        assert ours.allow_relation(here, there) is None
        migrates = [ours.allow_migrate(alias, "shop") for alias in ("default", "replica", "another")]
        assert migrates == [None, False, None]

    def test_without_readers_everything_is_the_writers(self, settled):
        from aurora_router_django.routers import ReaderRouter

        assert ReaderRouter(reader="missing").db_for_read(settled) == "default"

    def test_another_engine_is_refused(self, settled, configured, monkeypatch):
        from django.core.exceptions import ImproperlyConfigured
        from django.db.backends.postgresql.base import DatabaseWrapper

        from aurora_router_django.routers import ReaderRouter

        configured["stock"] = DatabaseWrapper(configured["replica"].settings_dict, "stock")
        monkeypatch.setitem(configured.settings, "stock", configured["replica"].settings_dict)
        with pytest.raises(ImproperlyConfigured, match="ENGINE of DATABASES\\['stock'\\] has to be"):
            ReaderRouter(reader="stock").db_for_read(settled)
        del configured["stock"]


class TestOwnWrites:
    @pytest.mark.parametrize("how", ["autocommit", "atomic", "using", "raw"])
    def test_a_read_sees_the_write_though_no_reader_has_it(self, settled, configured, cluster, how):
        from django.db import transaction

        with hold_replay(cluster):
            if how == "autocommit":
                settled.objects.create(name="new")
            elif how == "atomic":
                with transaction.atomic():
                    settled.objects.create(name="new")
            elif how == "using":
                settled.objects.using("default").bulk_create([settled(name="new")])
            else:
                with configured["default"].cursor() as cursor:
                    cursor.execute("insert into shop_item (name, price, details) values ('new', 0, '{}')")
            for _ in range(3):
                assert settled.objects.filter(name="new").exists()
                assert place(settled) == "default"
        until = time.monotonic() + 30
        while place(settled) != "replica":
            assert time.monotonic() < until
        assert settled.objects.filter(name="new").exists()

    def test_without_that_the_read_is_stale(self, settled, cluster, monkeypatch):
        """So that the test above is known to find what it is there for."""
        monkeypatch.setattr("aurora_router_django.routers.is_proven", lambda *_: True)
        with hold_replay(cluster):
            settled.objects.create(name="new")
            assert not settled.objects.filter(name="new").exists()

    def test_a_connection_is_asked_once(self, settled, monkeypatch):
        settled.objects.create(name="new")
        until = time.monotonic() + 30
        while place(settled) != "replica":
            assert time.monotonic() < until
        monkeypatch.setattr(aurora_router.Connection, "has_replayed", lambda *_, **__: pytest.fail("asked"))
        monkeypatch.setattr(aurora_router.Connection, "causal_token", lambda *_: pytest.fail("a token was made"))
        for _ in range(3):
            assert settled.objects.filter(name="new").exists()

    def test_the_end_of_a_request_forgets_it(self, settled, cluster):
        from django.db import close_old_connections

        with hold_replay(cluster):
            settled.objects.create(name="new")
            assert place(settled) == "default"
            close_old_connections()
            assert place(settled) == "replica"

    def test_a_token_goes_to_a_task(self, settled, cluster):
        from django.db import close_old_connections, transaction

        from aurora_router_django.causal import causal_token, read_after

        sent = []
        with hold_replay(cluster):
            with transaction.atomic():
                settled.objects.create(name="new")
                transaction.on_commit(lambda: sent.append(str(causal_token())))
            close_old_connections()
            assert place(settled) == "replica"
            read_after(aurora_router.CausalToken.parse(sent[0]).trust())
            assert settled.objects.filter(name="new").exists()

    def test_a_client_sees_its_writes_in_its_next_request(self, settled, cluster):
        with hold_replay(cluster):
            cookie = serve("", lambda: settled.objects.create(name="new"))
            assert cookie.startswith("causal_token=1")
            assert serve(cookie, lambda: check_there(settled, expected=True)) == cookie
            assert serve("", lambda: check_there(settled, expected=False)) == ""

    def test_no_token_means_the_writer(self, settled, monkeypatch, caplog):
        def refuse(_):
            raise aurora_router.InvalidOption("no method works")

        monkeypatch.setattr(aurora_router.Connection, "causal_token", refuse)
        settled.objects.create(name="new")
        with caplog.at_level(logging.WARNING):
            assert place(settled) == "default"
            assert settled.objects.filter(name="new").exists()
        assert "goes on reading from the writer: no method works" in caplog.text


def check_there(items, *, expected):
    assert items.objects.filter(name="new").exists() is expected


def serve(cookie, view):
    """One request, as Django serves it, of a client with a cookie; returns the cookie that the client has then."""
    from django.db import close_old_connections

    from aurora_router_django.middleware import CausalMiddleware

    answered = []

    def application(environ, start_response):
        CausalMiddleware(lambda _: view())(None)
        start_response("200 OK", [])
        return []

    close_old_connections()
    app = web.WsgiCausalMiddleware(application, keys=[KEY])
    app({"HTTP_COOKIE": cookie}, lambda status, headers: answered.extend(headers))
    close_old_connections()
    return dict(answered).get("Set-Cookie", cookie).partition(";")[0]
