"""A figure: a number that was measured, the bound that it has to keep, and whether it does.

The JSON form is ``{name: {"value", "unit", "bound", "ok"}}``; a figure without a bound has ``"bound": null`` and
``"ok": true``. Whatever measures anything in this project prints figures as a table and writes them in this form.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured number; made by `at_most`, `at_least` or `reported`.

    Attributes:
        name: unique within a report; it says what was measured, of what and how.
        value: the number.
        unit: of the value and of the bound; ``x`` for a ratio.
        bound: what the value is held against; None: it is only printed.
        ok: whether it keeps its bound.
        note: for the table alone: how noisy it is, what it was compared with.
    """

    name: str
    value: float
    unit: str
    bound: float | None = None
    ok: bool = True
    note: str = ""

    @classmethod
    def at_most(cls, name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
        """A figure that may not be above its bound (NaN is)."""
        return cls(name, value, unit, bound, value <= bound, note)

    @classmethod
    def at_least(cls, name: str, value: float, unit: str, bound: float, note: str = "") -> Figure:
        """A figure that may not be below its bound (NaN is)."""
        return cls(name, value, unit, bound, value >= bound, note)

    @classmethod
    def unbounded(cls, name: str, value: float, unit: str, note: str = "") -> Figure:
        """A figure without a bound."""
        return cls(name, value, unit, None, True, note)  # noqa: FBT003 - the field `ok`

    def line(self, width: int = 0) -> str:
        """The figure as a line of the table, its name padded to `width`."""
        verdict = "" if self.bound is None else ("ok" if self.ok else "NOT OK")
        bound = "" if self.bound is None else f"(bound {self.bound:g})"
        return f"{self.name:<{width}}  {self.value:>9.4g} {self.unit:<3} {bound:<13} {verdict:<6} {self.note}".rstrip()


def as_json(figures: Iterable[Figure]) -> str:
    """The JSON form.

    Raises:
        ValueError: two figures have one name, or a value is no number.
    """
    reported: dict[str, dict[str, object]] = {}
    for each in figures:
        if each.name in reported:
            raise ValueError(f"two figures are named {each.name!r}: one would hide the other")
        reported[each.name] = {"value": each.value, "unit": each.unit, "bound": each.bound, "ok": each.ok}
    return json.dumps(reported, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(figures: Iterable[Figure], path: Path) -> None:
    """Write the JSON form to a file, whole or not at all."""
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staging.write_text(as_json(figures), encoding="utf-8")
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def table(figures: Iterable[Figure]) -> str:
    """All figures, one line each."""
    reported = list(figures)
    width = max((len(each.name) for each in reported), default=0)
    return "\n".join(each.line(width) for each in reported)


def report(figures: Iterable[Figure], path: Path | None) -> int:
    """Print the table, and write the JSON form to a file, if one is given; returns the exit status: 1 with a miss."""
    reported = list(figures)
    print(table(reported))
    if path is not None:
        write_json(reported, path)
    return 0 if all(each.ok for each in reported) else 1
