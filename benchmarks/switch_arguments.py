"""The command line of the measurements that switch over and kill writers: ``multi_az`` and ``patroni``."""

from __future__ import annotations

import argparse
import logging
import random
import sys
from pathlib import Path


def make_parser(description: str | None, switches: int, kills: int) -> argparse.ArgumentParser:
    """Return a parser for what they share; `switches` and `kills` are how many of each if nothing else is asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=switches, metavar="N")
    parser.add_argument("--kills", type=int, default=kills, metavar="N")
    parser.add_argument("--bounded", action="store_true", help="what there is time for in CI: a few of each")
    parser.add_argument("--seed", type=int, default=None, help="default: drawn, and printed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    return parser


def begin(args: argparse.Namespace) -> int:
    """Silence the drivers' logs, print the seed of this run, and return it."""
    for quiet in ("aurora_router", "psycopg"):  # what they warn of is what is done to them here
        logging.getLogger(quiet).addHandler(logging.NullHandler())
    seed = random.SystemRandom().randrange(1, 1 << 30) if args.seed is None else int(args.seed)
    sys.stdout.write(f"seed {seed}\n")
    return seed
