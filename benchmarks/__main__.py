"""``python -m benchmarks [--only FAMILY] [--rounds N] [--quick] [--json FILE]``: measure and print a table.

The exit status says whether every figure keeps its bound.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from benchmarks.figures import Figure, table, write_json
from benchmarks.setting import Setting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FAMILIES = (
    "startup",
    "connecting",
    "statements",
    "checkout",
    "footprint",
    "incumbent",
    "failover",
    "cluster-failover",
    "lag",
    "healing",
    "commit",
)
LONG = ("alarms", "failover-aws")
"""Measured when asked for: they take minutes."""


def main(arguments: list[str] | None = None) -> int:
    """Measure; 0: every figure keeps its bound, 1: one does not."""
    options = _parser().parse_args(arguments)
    logging.getLogger("aurora_router").addHandler(logging.NullHandler())  # clusters end here while they are watched
    cluster = {"flavour": options.flavour, "postgres": options.postgres}
    chosen = {name: value for name, value in cluster.items() if value is not None}
    setting = Setting(options.quick, chosen, repeats=options.rounds)
    figures: list[Figure] = []
    try:
        for family in options.only or FAMILIES:
            figures += _measure(family, setting)
    finally:
        setting.close()
    if options.json is not None:
        write_json(figures, options.json)
    failed = [each for each in figures if not each.ok]
    print(f"\n{table(figures)}\n\n{len(figures)} figures, {len(failed)} not ok")
    return 1 if failed else 0


def _measure(family: str, setting: Setting) -> Iterator[Figure]:
    """The figures of a family, each printed as soon as it is there."""
    measure = cast("Callable[[Setting], Iterable[Figure]]", import_module(_module(family)).measure)
    start = time.monotonic()
    for figure in measure(setting):
        print(figure.line(60), flush=True)
        yield figure
    print(f"-- {family}: {time.monotonic() - start:.0f} s", flush=True)


def _module(family: str) -> str:
    return f"benchmarks.{family.replace('-', '_')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    parser.add_argument("--quick", action="store_true", help="a tenth of the rounds: wider intervals, the same bounds")
    parser.add_argument("--rounds", type=int, metavar="N", help="so many rounds of what is done in rounds")
    parser.add_argument(
        "--only",
        action="append",
        choices=[*FAMILIES, *LONG],
        metavar="FAMILY",
        help=f"of {', '.join((*FAMILIES, *LONG))}; may be repeated",
    )
    parser.add_argument("--flavour", help="storage under the cluster, as for `aurora-router cluster up`")
    parser.add_argument("--postgres", metavar="PATH", help="directory of PostgreSQL's server binaries")
    return parser


if __name__ == "__main__":
    sys.exit(main())
