"""SQLAlchemy's dialect compliance suite, on the stock psycopg dialect and on ours in one go, compared test by test.

``python tests/compliance/run.py`` starts a reference cluster and runs the suite of the SQLAlchemy that is installed
four times against its writer: stock and ours, sync and async, each in a database of its own. It fails unless no test of
ours fails and every test has the same outcome on both, by its id; ``--help`` says how to run a part. Ended by SIGTERM,
or by its limit, it leaves neither a cluster nor a run behind.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psycopg
import sqlalchemy

from aurora_router_cluster import LocalCluster

HERE = Path(__file__).resolve().parent
PAIRS = {"sync": ("psycopg", "aurora"), "async": ("psycopg_async", "aurora_async")}
QUICK = "Isolation or Autocommit or ServerSideCursors or PercentSchema or Json or Uuid or Returning or Rowcount or CTE"
Outcomes = dict[str, str]


def prepare(cluster: LocalCluster, database: str) -> None:
    """Make a database as the suite wants it: with two further schemas."""
    writer = cluster.instance(cluster.writer or "")
    with psycopg.connect(
        host=writer.socket_directory, port=writer.port, user="postgres", dbname="postgres", autocommit=True
    ) as conn:
        conn.execute(f"create database {database} owner {cluster.user}")
    with psycopg.connect(cluster.plain_conninfo(), dbname=database, autocommit=True) as conn:
        conn.execute("create schema test_schema; create schema test_schema_2")


def url_of(cluster: LocalCluster, driver: str, database: str) -> str:
    """The writer's database, for one of the dialects."""
    url = sqlalchemy.make_url(cluster.url(driver=f"postgresql+{driver}"))
    return url.set(database=database).render_as_string(hide_password=False)


def begin(url: str, written: Path, only: str | None) -> subprocess.Popen[bytes]:
    """Start one run of the suite; its outcomes come in a file, what it says in another."""
    command = [sys.executable, "-m", "pytest", "-c", str(HERE / "setup.cfg"), "--rootdir", str(HERE), "-q"]
    chosen = ["-k", only] if only else []
    environment = {**os.environ, "PYTHONPATH": _path(), "COMPLIANCE_OUTCOMES": str(written)}
    with said_by(written).open("wb") as said:
        return subprocess.Popen(
            [*command, "--dburi", url, "-rf", "--tb=short", *chosen, str(HERE / "suite.py")],
            cwd=written.parent,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def _path() -> str:
    """Where a run finds `requirements` and `outcomes`, and whatever this one was passed."""
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


def said_by(written: Path) -> Path:
    """The output of the run whose outcomes are in `written`."""
    return written.with_suffix(".txt")


def run_pair(
    cluster: LocalCluster, drivers: tuple[str, str], place: Path, until: float, only: str | None
) -> list[Outcomes]:
    """Both dialects of a pair at the same time; none is left running, whatever ends this."""
    running: list[subprocess.Popen[bytes]] = []
    try:
        for driver in drivers:
            prepare(cluster, f"c_{driver}")
            running.append(begin(url_of(cluster, driver, f"c_{driver}"), place / driver, only))
        for each in running:
            each.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        sys.exit(f"the limit is over, and {' and '.join(drivers)} are still running (see --limit)")
    finally:
        for each in running:
            each.kill()
            each.wait()
    for driver, process in zip(drivers, running, strict=True):
        if process.returncode:
            text = said_by(place / driver).read_text(encoding="utf-8", errors="replace")
            print(f"--- postgresql+{driver}: pytest ended with {process.returncode}\n{text[-20000:]}")
        if not (place / driver).exists():
            sys.exit(f"the suite wrote no outcomes for postgresql+{driver}")
    return [json.loads((place / driver).read_text(encoding="utf-8")) for driver in drivers]


def compare(mode: str, stock: Outcomes, ours: Outcomes) -> dict[str, dict[str, object]]:
    """Print both counts and every difference; give the figures."""
    for name, outcomes in (("stock", stock), ("ours", ours)):
        print(
            f"SQLAlchemy {sqlalchemy.__version__} {mode:5} {name:5}: {dict(sorted(Counter(outcomes.values()).items()))}"
        )
    different = sorted(each for each in stock.keys() | ours.keys() if stock.get(each) != ours.get(each))
    for each in different:
        print(f"  differs: {each}: stock {stock.get(each, 'absent')}, ours {ours.get(each, 'absent')}")
    failed = [sum(value == "failed" for value in outcomes.values()) for outcomes in (stock, ours)]
    passed = sum(value == "passed" for value in ours.values())
    return {
        f"{mode}: tests that failed, stock and ours": {
            "value": sum(failed),
            "unit": "tests",
            "bound": 0,
            "ok": not any(failed),
        },
        f"{mode}: tests whose outcome differs": {
            "value": len(different),
            "unit": "tests",
            "bound": 0,
            "ok": not different,
        },
        f"{mode}: tests that passed": {"value": passed, "unit": "tests", "bound": 1, "ok": passed > 0},
    }


def main() -> int:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    bounded = parser.add_mutually_exclusive_group()
    bounded.add_argument("--quick", action="store_true", help="the classes that a driver matters to most")
    bounded.add_argument("--only", metavar="EXPRESSION", help="as pytest's -k")
    parser.add_argument("--mode", choices=PAIRS, help="one of the two pairs (default: both)")
    parser.add_argument("--limit", type=float, default=3600, metavar="SECONDS", help="of the whole (default: 3600)")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that what was started is ended
    until = time.monotonic() + args.limit
    figures: dict[str, dict[str, object]] = {}
    with LocalCluster.start(readers=0) as cluster, tempfile.TemporaryDirectory() as place:
        for mode in [args.mode] if args.mode else PAIRS:
            stock, ours = run_pair(cluster, PAIRS[mode], Path(place), until, QUICK if args.quick else args.only)
            figures |= compare(mode, stock, ours)
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
