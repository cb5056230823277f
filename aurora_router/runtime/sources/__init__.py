"""Topology sources: a table of those that come with the library, and others by entry point.

A source is loaded when a connect may need it: ``aurora_source=postgresql`` imports nothing of Aurora's.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aurora_router.errors import InvalidOption
from aurora_router.flow.source import Source
from aurora_router.forks import IMPORTING
from aurora_router.policy.options import AUTO_SOURCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

BUILT_IN = {
    "aurora": ("aurora_router.runtime.sources.aurora_postgresql", "AURORA_POSTGRESQL"),
    "multi_az": ("aurora_router.runtime.sources.rds_multi_az", "RDS_MULTI_AZ"),
    "postgresql": ("aurora_router.runtime.sources.postgresql", "POSTGRESQL"),
}
"""Name -> the module and the attribute; ``auto`` tries them in this order."""
GROUP = "aurora_router.sources"
"""The group of entry points: name -> a `Source`."""


def find_sources(
    names: Sequence[str],
    values: Mapping[str, Any] = MappingProxyType({}),
    built_in: Mapping[str, tuple[str, str]] = BUILT_IN,
) -> tuple[Source, ...]:
    """Return the sources that ``aurora_source`` names, in the order in which to try them; each is loaded here.

    Args:
        names: the value of the option.
        values: the options that sources read, without prefix, as far as they are given.
        built_in: those of the driver family that need no entry point, see `BUILT_IN`.

    Raises:
        InvalidOption: there is no source of that name, it can't be loaded, or none reads an option that is given.
    """
    found: dict[str, Source] = {}
    read = set[str]()
    for name in names:
        for each in built_in if name == AUTO_SOURCE else (name,):
            if each in built_in:
                found.setdefault(each, _load_built_in(*built_in[each]))
            else:
                found.setdefault(each, _load_named(each, values, read, built_in))
    for option in values:
        if option not in read:
            raise InvalidOption(f"aurora_{option} has no effect with aurora_source={','.join(names)}: remove it")
    return tuple(found.values())


def _load_built_in(module: str, attribute: str) -> Source:
    with IMPORTING:
        source: Source = getattr(import_module(module), attribute)
    return source


def _load_named(name: str, values: Mapping[str, Any], read: set[str], built_in: Iterable[str]) -> Source:
    """The source of an entry point, made from its options where it has some; what it reads is added to `read`."""
    with IMPORTING:
        from aurora_router.runtime.entry_points import load_named  # noqa: PLC0415 - few calls name one of their own

    source: Any = load_named("aurora_source", name, GROUP, "topology source", (AUTO_SOURCE, *built_in))
    own: frozenset[str] = getattr(source, "options", frozenset())
    read |= own
    if hasattr(source, "from_options"):
        source = source.from_options({each: value for each, value in values.items() if each in own})
    if not isinstance(source, Source):
        raise InvalidOption(
            f"aurora_source={name!r}: its entry point gives a {type(source).__name__}, "
            "and has to give an aurora_router.sources.Source"
        )
    return source
