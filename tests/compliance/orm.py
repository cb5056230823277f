"""SQLAlchemy's own tests of its ORM, with `Session` and with `RoutingSession` in its place, compared test by test.

``python tests/compliance/orm.py`` takes the tests from the sdist of the SQLAlchemy that is installed (pip downloads it;
``--source DIR`` is one that is there), and runs them twice against the writer of a reference cluster. The tests whose
outcome may differ are listed below, each with its reason; a difference that is not listed is an error, and so is an
entry of the list without a difference.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from pathlib import Path

import sqlalchemy

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from aurora_router_cluster import LocalCluster
from tests.compliance.run import HERE, prepare, url_of
from tests.superuser import run_as_superuser

PARTS = ["test_bind", "test_session", "test_transaction", "test_unitofwork", "test_cascade"]
DIFFERENT = {
    r"BindIntegrationTest::test_bind_through_execute|BindIntegrationTest::test_get_bind": (
        "it expects the arguments of get_bind: there is aurora_role among them"
    ),
    r"SessionInterface": "it looks for methods in the class itself, and not in its base",
    r"TwoPhaseTest|test_twophase|test_no_sql_during_prepare": "two-phase commits are refused",
}
"""A regular expression for ids of tests -> why their outcome differs."""


def fetch(place: Path) -> Path:
    """The unpacked sdist of the SQLAlchemy that is installed."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "sqlalchemy"]
    subprocess.run([*command, "-d", str(place), f"sqlalchemy=={sqlalchemy.__version__}"], check=True)
    (packed,) = place.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(place, filter="data")
    (source,) = (each for each in place.iterdir() if each.is_dir())
    return source


def begin(source: Path, url: str, written: Path, parts: list[str], *more: str) -> subprocess.Popen[bytes]:
    """Start one run; its outcomes come in a file, what it says in another."""
    command = [sys.executable, "-s", "-m", "pytest", "-q", "-p", "outcomes", "-p", "no:cacheprovider", *more]
    chosen = [f"test/orm/{each}" for each in parts]
    path = os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])
    with written.with_suffix(".txt").open("wb") as said:
        return subprocess.Popen(
            [*command, "-p", "no:xdist", "--maxfail=10000", "--tb=short", "-r", "fE", "--dburi", url, *chosen],
            cwd=source,
            env={**os.environ, "PYTHONPATH": path, "COMPLIANCE_OUTCOMES": str(written)},
            stdout=said,
            stderr=subprocess.STDOUT,
        )


def compare(stock: dict[str, str], ours: dict[str, str]) -> tuple[list[str], list[str]]:
    """The differences that are not explained, and the explanations that are not needed."""
    different = [each for each in stock.keys() | ours.keys() if stock.get(each) != ours.get(each)]
    left = [each for each in different if not any(re.search(why, each) for why in DIFFERENT)]
    for each in sorted(different):
        known = next((reason for why, reason in DIFFERENT.items() if re.search(why, each)), "NOT EXPLAINED")
        print(f"  differs: {each}: stock {stock.get(each, 'absent')}, ours {ours.get(each, 'absent')}: {known}")
    return left, [why for why in DIFFERENT if not any(re.search(why, each) for each in different)]


def main() -> int:
    """Run and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, metavar="DIR", help="the sdist of this SQLAlchemy, unpacked")
    parser.add_argument("--only", metavar="PART[,PART]", help="files in test/orm, such as test_session")
    parser.add_argument("--limit", type=float, default=3000, metavar="SECONDS", help="of the whole (default: 3000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave what the runs wrote there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    until = time.monotonic() + args.limit
    parts = [f"{each}.py" for each in args.only.split(",")] if args.only else [f"{each}.py" for each in PARTS]
    outcomes = []
    with LocalCluster.start(readers=0) as cluster, tempfile.TemporaryDirectory() as temporary:
        place = args.keep or Path(temporary)
        source = args.source or fetch(Path(temporary))
        run_as_superuser(cluster, "GRANT pg_read_all_stats TO app")
        running = []
        try:
            for name, more in (("stock", []), ("routed", ["-p", "routed"])):
                prepare(cluster, f"orm_{name}")
                url = sqlalchemy.make_url(url_of(cluster, "aurora", f"orm_{name}"))
                url = url.update_query_dict({"options": "-c lock_timeout=5s"})
                text = url.render_as_string(hide_password=False)
                running.append(begin(source, text, (place / name).resolve(), parts, *more))
            for each in running:
                each.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            sys.exit("the limit is over, and the tests are still running (see --limit)")
        finally:
            for each in running:
                each.kill()
                each.wait()
        for name in ("stock", "routed"):
            said = (place / name).with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
            if not (place / name).exists():
                sys.exit(f"the run {name} wrote no outcomes:\n{said[-5000:]}")
            outcomes.append(json.loads((place / name).read_text(encoding="utf-8")))
            print(f"SQLAlchemy {sqlalchemy.__version__}, test/orm, {name}: {dict(Counter(outcomes[-1].values()))}")
    left, idle = compare(*outcomes)
    for each in [] if args.only else idle:
        print(f"  no test differs by the entry {each!r}")
    passed = sum(each == "passed" for each in outcomes[1].values())
    ok = not left and passed > 0 and (bool(args.only) or not idle)
    if args.json is not None:
        figure = {"value": len(left), "unit": "tests", "bound": 0, "ok": ok}
        args.json.write_text(json.dumps({"ORM tests that differ unexplained": figure}, indent=2) + "\n", "utf-8")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
