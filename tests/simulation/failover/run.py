"""Play many schedules: ``python -m tests.simulation.failover.run --schedules 20000``; ``--seed N --schedules 1``: one.

Ends with status 1 if any schedule breaks a promise, or if a planted bug is not found (``--mutants``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from benchmarks.figures import Figure
from tests.simulation.campaign import Campaign

from .mutants import MUTANTS
from .schedule import play

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator


def figures_of(counts: Counter[str]) -> Iterator[Figure]:
    """The outcomes of the transactions."""
    yield Figure.unbounded("transactions", counts["acked"] + counts["failed"] + counts["unknown"], "")
    yield Figure.unbounded("left unknown", counts["unknown"], "")


CAMPAIGN = Campaign(
    "tests.simulation.failover.run", play, MUTANTS, hunted=3000, schedules=1000, chunk=25, figures_of=figures_of
)

if __name__ == "__main__":
    sys.exit(CAMPAIGN.main(__doc__))
