"""The incumbent beside us: aws-advanced-python-wrapper, by the same loops, in an environment of its own.

It resolves names by the system, so it runs in a mount namespace of its own whose hosts file knows the cluster. Where
that, or installing it, is not possible, this part is skipped, and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster import LocalCluster
    from benchmarks.setting import Setting

PACKAGE = "aws-advanced-python-wrapper==3.1.0"
SECONDS = 8.0
NAMED = 'mount --bind "$0" /etc/hosts && exec "$@"'


class Impossible(Exception):
    """Why this part can't be done here."""


def measure(setting: Setting) -> Iterator[Figure]:
    """The incumbent's ratios, each a figure without a bound; none where it can't be run."""
    try:
        with tempfile.TemporaryDirectory(prefix="aurora-router-bench-") as directory:
            python = environment()
            reported = _run(setting, python, Path(directory))
    except Impossible as why:
        not_measured(why)
        return
    for name, (value, note) in reported.items():
        if value is None:
            print(f"!!! {PACKAGE} can't do {name!r}: {note} !!!", file=sys.stderr, flush=True)
        else:
            yield Figure.unbounded(f"{name}, incumbent / stock", value, "x", note)


def not_measured(why: Impossible) -> None:
    """Say it loudly."""
    print(f"!!! {PACKAGE} was NOT measured: {why} !!!", file=sys.stderr, flush=True)


def environment() -> Path:
    """The Python of a virtual environment with the incumbent and the driver in our version, made if need be.

    Raises:
        Impossible: it can't be installed.
    """
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    needed = [PACKAGE, *(f"{name}=={version(name.partition('[')[0])}" for name in ("psycopg[binary]", "SQLAlchemy"))]
    place = caches / "aurora-router" / f"incumbent-{sys.version_info.major}.{sys.version_info.minor}"
    ready = place / "ready.json"
    if not ready.exists() or json.loads(ready.read_text(encoding="utf-8")) != needed:
        shutil.rmtree(place, ignore_errors=True)
        venv.create(place, with_pip=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *needed]
        done = subprocess.run(pip, check=False, capture_output=True, text=True)
        if done.returncode:
            raise Impossible(f"pip can't install it: {_last(done.stderr)}")
        ready.write_text(json.dumps(needed), encoding="utf-8")
    return place / "bin" / "python"


def _run(setting: Setting, python: Path, directory: Path) -> dict[str, tuple[float | None, str]]:
    """Run the other side; returns figure -> (ratio, note)."""
    hosts = directory / "hosts"
    write_hosts(setting.cluster, hosts)
    prefix = alone(hosts)
    seconds = SECONDS / (10 if setting.quick else 1)
    child = [str(python), "-m", "benchmarks.incumbent_child", setting.cluster.conninfo(aurora_dns=None)]
    done = subprocess.run(
        [*prefix, *child, setting.stock_parameters("writer"), str(seconds)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent.parent,
    )
    if done.returncode:
        raise Impossible(f"it failed: {_last(done.stderr)}")
    reported: dict[str, tuple[float | None, str]] = json.loads(done.stdout.splitlines()[-1])
    return reported


def write_hosts(cluster: LocalCluster, path: Path) -> None:
    """Write a hosts file that knows the names of a cluster as they are now."""
    names = {cluster.endpoint(target): cluster.address(target) for target in ("writer", "reader")}
    names |= {each.endpoint: each.host for each in cluster.instances}
    known = "".join(f"{address} {name}\n" for name, address in names.items())
    path.write_text(f"127.0.0.1 localhost\n{known}", encoding="utf-8")


def alone(hosts: Path) -> tuple[str, ...]:
    """What to put before a command that is to see `hosts` as the system's hosts file.

    Raises:
        Impossible: that can't be done here.
    """
    space = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    prefix = (*space, "sh", "-c", NAMED, str(hosts))
    if subprocess.run([*prefix, "true"], check=False, capture_output=True).returncode:
        raise Impossible("no mount namespace of one's own may be made here, so it can't resolve the cluster's names")
    return prefix


def _last(text: str) -> str:
    return text.strip().splitlines()[-1] if text.strip() else "no output"
