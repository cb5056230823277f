from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router_cluster.postgres import settings


@given(st.text(alphabet=st.characters(exclude_characters="\r\n", exclude_categories=["Cs"])))
def test_quoting_is_undone_by_postgresql_s_rules(value):
    inside = settings.quote_value(value)[1:-1]
    assert inside.replace("\\\\", "\0").replace("''", "'").replace("\0", "\\") == value or "\0" in value
    assert "'" not in inside.replace("''", "")


@pytest.mark.parametrize("value", ["a\nb", "a\rb"])
def test_a_line_break_is_refused(value):
    with pytest.raises(ValueError, match="line break"):
        settings.quote_value(value)


def test_a_line_per_setting():
    assert settings.render({"a": "1", "b.c": "it's"}) == "a = '1'\nb.c = 'it''s'\n"


def test_io_workers_are_left_out_where_they_exist():
    assert settings.common(18)["io_method"] == "sync"
    assert "io_method" not in settings.common(17)


def test_the_template_asks_for_no_more_than_its_copies():
    for name in ("max_connections", "max_wal_senders", "max_worker_processes", "max_prepared_transactions"):
        assert int(settings.TEMPLATE[name]) <= int(settings.COMMON[name])
