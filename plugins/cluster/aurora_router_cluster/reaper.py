"""The reaper: outlives a killed supervisor just long enough to clean up after it.

Run as ``python -I -S reaper.py RUN KEY PACKAGES`` with a pipe from the supervisor as standard input. When that
ends without the byte that says "in order", the supervisor was killed: every process that works below RUN is
killed (frozen ones too, which no signal to their parent reaches), RUN and the cluster's home are deleted.
"""

from __future__ import annotations

import os
import sys

IN_ORDER = b"."


def main(run: str, key: str, packages: str) -> None:
    """Wait for the end of standard input and do what the module says."""
    if os.read(0, 1) != IN_ORDER:
        clean_up(run, key, packages)


def clean_up(run: str, key: str, packages: str) -> None:
    """Everything is imported here, so that waiting takes little memory."""
    sys.path.append(packages)
    import contextlib  # noqa: PLC0415 - see above
    from pathlib import Path  # noqa: PLC0415 - see above

    from aurora_router_cluster import errors, registry  # noqa: PLC0415 - see above

    registry.sweep(Path(run))
    with contextlib.suppress(errors.ClusterRunningError):  # a new cluster of that name is quicker than we are
        place = registry.ClusterDirectory(key)
        place.claim()
        place.release()


if __name__ == "__main__":
    main(*sys.argv[1:])
