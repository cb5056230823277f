"""Traces the supervisor of a reference cluster between two signals: Python imports this file where its folder is on the
path.

SIGUSR1 begins, which is answered by an empty file of the name in ``HOPS_FILE``; SIGUSR2 ends, and what `hops.Trace`
noted is written there.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.hops import Trace

OUTERMOST = "supervisor.py"
"""Its frames are below the event loop, and on no path."""
under_way: list[Trace] = []


def begin(*_: object) -> None:
    """Trace from now on."""
    import aurora_router_cluster.supervisor  # noqa: F401 - the module that runs is __main__
    from benchmarks.hops import Trace

    under_way[:] = [Trace("aurora_router_cluster", beneath=OUTERMOST)]
    _answer("")
    sys.setprofile(under_way[0].note)


def end(*_: object) -> None:
    """Stop, and write the files and the frames."""
    sys.setprofile(None)
    _answer(json.dumps([under_way[0].files, under_way[0].deepest]))


def _answer(text: str) -> None:
    to = Path(os.environ["HOPS_FILE"])
    unfinished = to.with_suffix(".part")
    unfinished.write_text(text)
    unfinished.rename(to)


if "aurora_router_cluster.supervisor" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
