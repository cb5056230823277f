"""What a process pays for having us: import time, memory, threads. Each value comes from a process of its own.

Memory is what is private to the process (``smaps_rollup`` of Linux), with connections open and used, sync and async,
ours less the driver's own: so whatever is imported when it is first needed is in it.
Modules come compiled (from a cache of the run's own), as an installer leaves them.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.setting import Setting

Measured = dict[str, float]

RUNS = 30
WHOLE_RATIO = 195 / 157
"""Of two processes that connect once, ours and psycopg's: the times, in ms, where the bound was set."""
IMPORT_MS, MEMORY_MB, LASTING_THREADS, EXIT_MS = 20, 12, 1, 50

_IMPORT = """
import json, os, sys, time
import psycopg
start = time.perf_counter()
import aurora_router
took = time.perf_counter() - start
late = {"dns", "tenacity", "sqlalchemy"} & {name.partition(".")[0] for name in sys.modules}
print(json.dumps({"seconds": took, "late": len(late), "threads": len(os.listdir("/proc/self/task")) - 1}))
"""

_CONNECTED = """
import asyncio, json, os, sys, time
module, conninfo = sys.argv[1:]
driver = __import__(module)

def private():
    with open("/proc/self/smaps_rollup") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))

def threads():
    return len(os.listdir("/proc/self/task")) - 1

async def main():
    async with await driver.AsyncConnection.connect(conninfo) as connection:
        await connection.execute("select 1")
        return private(), threads()

with driver.Connection.connect(conninfo) as connection:
    connection.execute("select 1")
    kilobytes, running = asyncio.run(main())
    deadline = time.monotonic() + 5
    while threads() > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    print(json.dumps({"kilobytes": kilobytes, "threads": running, "lasting": threads()}))
"""

_EXIT = """
import json, sys, time
module, conninfo = sys.argv[1:]
driver = __import__(module)
connections = [driver.connect(conninfo) for _ in range(3)]
for connection in connections:
    connection.execute("select 1")
time.sleep(0.3)
print(json.dumps({"left": time.monotonic()}), flush=True)
"""
"""It leaves with connections open, so that the monitor is at work."""


_WHOLE = """
import json, sys
module, conninfo = sys.argv[1:]
driver = __import__(module)
with driver.connect(conninfo) as connection:
    connection.execute("select 1")
print(json.dumps({}))
"""
"""What a command of an administrator, or a job of a scheduler, does."""


def measure(setting: Setting) -> Iterator[Figure]:
    """Import, memory, threads, exit, and a whole process that connects once."""
    ours, stock = setting.cluster.conninfo("reader"), setting.stock_parameters("reader")
    times = range(setting.rounds(RUNS))
    with tempfile.TemporaryDirectory(prefix="aurora-router-bench-") as bytecode:
        run = partial(_run, bytecode)
        run(_IMPORT)  # writes the bytecode
        yield from _imported([run(_IMPORT) for _ in times])
        run(_CONNECTED, "aurora_router", ours)
        yield from _connected(
            [run(_CONNECTED, "aurora_router", ours) for _ in times], [run(_CONNECTED, "psycopg", stock) for _ in times]
        )
        yield _left([(_leave(run, "aurora_router", ours), _leave(run, "psycopg", stock)) for _ in times])
        yield _whole([(_time(run, "aurora_router", ours), _time(run, "psycopg", stock)) for _ in times])


def _imported(runs: list[Measured]) -> Iterator[Figure]:
    seconds = [each["seconds"] for each in runs]
    spread = f"median {statistics.median(seconds) * 1e3:.1f} ms of {len(seconds)} processes"
    yield Figure.at_most("import of aurora_router beyond psycopg, fastest", min(seconds) * 1e3, "ms", IMPORT_MS, spread)
    late = max(each["late"] for each in runs)
    yield Figure.at_most("of dnspython, tenacity, SQLAlchemy imported with it", late, "", 0)
    yield Figure.at_most("threads after import", max(each["threads"] for each in runs), "", 0)


def _connected(mine: list[Measured], its: list[Measured]) -> Iterator[Figure]:
    ours, stock = (statistics.median(each["kilobytes"] for each in runs) / 1024 for runs in (mine, its))
    about = f"{ours:.1f} of {stock:.1f} MB, {len(mine)} processes each"
    yield Figure.at_most("memory beyond psycopg, connected", ours - stock, "MB", MEMORY_MB, about)
    lasting, most = (max(each[what] for each in mine) for what in ("lasting", "threads"))
    yield Figure.at_most("lasting threads, connected", lasting, "", LASTING_THREADS, f"{most} right after the connects")


def _leave(run: Callable[..., Measured], module: str, conninfo: str) -> float:
    """Seconds from the last statement of a program to the end of its process, by the clock of both."""
    return -run(_EXIT, module, conninfo)["left"] + time.monotonic()


def _left(pairs: list[tuple[float, float]]) -> Figure:
    ours, stock = (min(each[which] for each in pairs) * 1e3 for which in (0, 1))
    medians = [statistics.median(each[which] for each in pairs) * 1e3 for which in (0, 1)]
    about = f"{ours:.0f} ms, psycopg alone {stock:.0f} ms; medians of {len(pairs)}: {medians[0]:.0f}, {medians[1]:.0f}"
    return Figure.at_most("exit beyond psycopg, connected and watched, fastest", ours - stock, "ms", EXIT_MS, about)


def _time(run: Callable[..., Measured], module: str, conninfo: str) -> float:
    """Seconds that a process takes which connects once."""
    began = time.monotonic()
    run(_WHOLE, module, conninfo)
    return time.monotonic() - began


def _whole(pairs: list[tuple[float, float]]) -> Figure:
    ours, stock = (statistics.median(each[which] for each in pairs) * 1e3 for which in (0, 1))
    about = f"medians of {len(pairs)} in turns: {ours:.0f} ms, psycopg alone {stock:.0f} ms"
    return Figure.at_most("process that connects once, ours / psycopg", ours / stock, "x", WHOLE_RATIO, about)


def _run(bytecode: str, script: str, *arguments: str) -> Measured:
    """Run a script in a Python of its own, with compiled modules as installed packages have them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**environment, "PYTHONPYCACHEPREFIX": bytecode},
    )
    reported: Measured = json.loads(done.stdout)
    return reported
