"""Objects that other distributions give by entry point: found by name, loaded when an option names them."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from aurora_router.errors import InvalidOption
from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from collections.abc import Iterable


def load_named(option: str, name: str, group: str, kind: str, built_in: Iterable[str] = ()) -> object:
    """Return the object with this name in a group of entry points.

    Names are compared without regard to case, and ``-`` counts as ``_``, as in the values of all options.

    Args:
        option: the option that gives the name, for messages.
        name: what is looked for.
        group: the group of entry points.
        kind: what such an object is called in messages.
        built_in: names that are accepted beside those of the group, for messages.

    Raises:
        InvalidOption: there is none, two distributions give different ones, or it can't be loaded.
    """
    given = f"{option}={name!r}"
    known = {(each.name, each.value): each for each in importlib.metadata.entry_points(group=group)}
    matches = [each for each in known.values() if plain_name(each.name) == plain_name(name)]
    if not matches:
        there = ", ".join(sorted({each for each, _ in known})) or "none is installed"
        also = f"accepted: {', '.join(built_in)}; " if built_in else ""
        raise InvalidOption(f"{given}: no {kind} of that name ({also}entry points {group}: {there})")
    if len(matches) > 1:
        values = " and ".join(sorted(each.value for each in matches))
        raise InvalidOption(f"{given}: two entry points of {group} have that name ({values}): uninstall one of them")
    try:
        with IMPORTING:
            return matches[0].load()
    except Exception as error:
        raise InvalidOption(
            f"{given}: its {kind} can't be loaded from {matches[0].value} ({type(error).__name__}: {error}): "
            "correct or reinstall the distribution that has this entry point"
        ) from error


def plain_name(name: str) -> str:
    """A name as it is compared."""
    return name.lower().replace("-", "_")
