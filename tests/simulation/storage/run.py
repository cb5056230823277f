"""Play many schedules: ``python -m tests.simulation.storage.run --schedules 100000``; ``--seed N --schedules 1``: one.

Ends with status 1 if any schedule violates an invariant, or if a planted bug is not found (``--mutants``).
"""

from __future__ import annotations

import sys

from tests.simulation.campaign import Campaign

from .mutants import MUTANTS
from .schedule import play

CAMPAIGN = Campaign("tests.simulation.storage.run", play, MUTANTS, hunted=4000, schedules=2000, chunk=100, enough=10)

if __name__ == "__main__":
    sys.exit(CAMPAIGN.main(__doc__))
