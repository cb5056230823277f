"""Topology sources: a table of those that come with the library, and others by entry point.

A source is loaded when a connect may need it: ``aurora_source=postgresql`` imports nothing of Aurora's.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from aurora_router.errors import InvalidOption
from aurora_router.flow.source import Source
from aurora_router.forks import IMPORTING
from aurora_router.policy.options import AUTO_SOURCE, SOURCES

if TYPE_CHECKING:
    from collections.abc import Sequence

BUILT_IN = {
    "aurora": ("aurora_router.runtime.sources.aurora_postgresql", "AURORA_POSTGRESQL"),
    "multi_az": ("aurora_router.runtime.sources.rds_multi_az", "RDS_MULTI_AZ"),
    "postgresql": ("aurora_router.runtime.sources.postgresql", "POSTGRESQL"),
}
"""Name -> the module and the attribute; ``auto`` tries them in this order."""
GROUP = "aurora_router.sources"
"""The group of entry points: name -> a `Source`."""


def find_sources(names: Sequence[str]) -> tuple[Source, ...]:
    """Return the sources that ``aurora_source`` names, in the order in which to try them; each is loaded here.

    Raises:
        InvalidOption: there is no source of that name, or it can't be loaded.
    """
    found: dict[str, Source] = {}
    for name in names:
        for each in BUILT_IN if name == AUTO_SOURCE else (name,):
            found.setdefault(each, _load_built_in(each) if each in BUILT_IN else _load_named(each))
    return tuple(found.values())


def _load_built_in(name: str) -> Source:
    module, attribute = BUILT_IN[name]
    with IMPORTING:
        source: Source = getattr(import_module(module), attribute)
    return source


def _load_named(name: str) -> Source:
    with IMPORTING:
        from aurora_router.runtime.entry_points import load_named  # noqa: PLC0415 - few calls name one of their own

    source = load_named("aurora_source", name, GROUP, "topology source", SOURCES)
    if not isinstance(source, Source):
        raise InvalidOption(
            f"aurora_source={name!r}: its entry point gives a {type(source).__name__}, "
            "and has to give an aurora_router.sources.Source"
        )
    return source
