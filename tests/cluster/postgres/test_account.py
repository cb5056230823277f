"""The account that runs the servers."""

from __future__ import annotations

import os

import pytest

from aurora_router_cluster.postgres.account import Account


@pytest.mark.parametrize("name", ["TMPDIR", "TMP", "TEMP"])
def test_another_account_keeps_its_temporary_files_where_it_may(name, monkeypatch):
    monkeypatch.setenv(name, "/root/private")
    me = os.geteuid(), os.getegid()
    assert name not in Account("other", *me, switch=True).environment()
    assert Account("me", *me, switch=False).environment()[name] == "/root/private"


@pytest.mark.parametrize("name", ["PGHOST", "LC_ALL", "LANG"])
def test_what_would_misconfigure_a_server_is_left_out(name, monkeypatch):
    monkeypatch.setenv(name, "elsewhere")
    assert Account.default().environment().get(name) != "elsewhere"
