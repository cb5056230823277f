"""``python -m benchmarks.soak [--only NAME[,NAME]] [--minutes N] [--json FILE]``: long runs of the reference cluster.

Each module ``benchmarks/soak_<name>.py`` is one of them: a function ``measure(minutes)`` that yields figures, and
``MINUTES``, how long it takes if nothing else is asked for. They run one after the other.
"""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure, table, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "soak_"


def names() -> list[str]:
    """The runs that there are."""
    return sorted(path.stem.removeprefix(PREFIX) for path in Path(__file__).parent.glob(f"{PREFIX}*.py"))


def chosen(text: str) -> list[str]:
    """The runs named in a list with commas.

    Raises:
        argparse.ArgumentTypeError: there is no such run.
    """
    found = text.split(",")
    unknown = sorted(set(found) - set(names()))
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}; there are {', '.join(names())}")
    return found


def figures_of(name: str, minutes: float | None) -> Iterator[Figure]:
    """The figures of one run, each printed as soon as it is there, its name before them."""
    module = import_module(f"benchmarks.{PREFIX}{name}")
    began = time.monotonic()
    for figure in module.measure(module.MINUTES if minutes is None else minutes):
        named = Figure(f"{name}: {figure.name}", figure.value, figure.unit, figure.bound, figure.ok, figure.note)
        print(named.line(60), flush=True)
        yield named
    print(f"-- {name}: {time.monotonic() - began:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Returns 1 where a figure does not keep its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=chosen, default=names(), metavar="NAME[,NAME]", help=f"of {', '.join(names())}")
    parser.add_argument("--minutes", type=float, metavar="N", help="how long each of them takes, instead of its own")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args(arguments)
    found = [figure for name in args.only for figure in figures_of(name, args.minutes)]
    failed = [each for each in found if not each.ok]
    print(f"\n{table(found)}\n\n{len(found)} figures, {len(failed)} not ok")
    if args.json is not None:
        write_json(found, args.json)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
