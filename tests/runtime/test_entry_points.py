"""What other distributions give by entry point: found by name, and a sentence where it cannot be used."""

from __future__ import annotations

import pytest

from aurora_router.errors import InvalidOption
from aurora_router.runtime.entry_points import load_named

GROUP = "aurora_router.sources"


def load(name):
    return load_named("aurora_source", name, GROUP, "topology source", ["auto", "aurora"])


@pytest.mark.parametrize("name", ["rack-view", "Rack_View"])
def test_it_is_found_by_name(install, name):
    install("rack", "view = 17", GROUP, {"rack_view": "rack:view"})
    assert load(name) == 17


def test_a_distribution_that_is_found_twice_is_one(install, monkeypatch, tmp_path):
    install("rack", "view = 17", GROUP, {"rack": "rack:view"})
    (tmp_path / "again").symlink_to(tmp_path / "rack")
    monkeypatch.syspath_prepend(tmp_path / "again")
    assert load("rack") == 17


def test_what_was_looked_for_is_said(install):
    install("rack", "view = 17", GROUP, {"rack": "rack:view"})
    with pytest.raises(InvalidOption) as caught:
        load("other")
    assert str(caught.value) == (
        "aurora_source='other': no topology source of that name "
        "(accepted: auto, aurora; entry points aurora_router.sources: patroni, rack)"
    )


def test_none_is_installed():
    with pytest.raises(InvalidOption, match=r"entry points no.such.group: none is installed\)"):
        load_named("aurora_source", "rack", "no.such.group", "topology source")


def test_two_distributions_with_one_name_are_refused(install):
    install("rack", "view = 17", GROUP, {"rack": "rack:view"})
    install("shelf", "view = 18", GROUP, {"rack": "shelf:view"})
    with pytest.raises(InvalidOption, match=r"two entry points of .* \(rack:view and shelf:view\): uninstall one"):
        load("rack")


@pytest.mark.parametrize(
    ("text", "value", "told"),
    [
        ("import no_such_module", "rack:view", r"from rack:view \(ModuleNotFoundError: .*no_such_module"),
        ("", "rack:view", r"from rack:view \(AttributeError: .*view"),
        ("view = 1 / 0", "rack:view", r"from rack:view \(ZeroDivisionError: "),
    ],
)
def test_what_cannot_be_loaded_says_where_it_came_from(install, text, value, told):
    install("rack", text, GROUP, {"rack": value})
    with pytest.raises(InvalidOption, match=told + ".*: correct or reinstall") as caught:
        load("rack")
    assert caught.value.__cause__ is not None
