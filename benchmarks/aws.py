"""``python -m benchmarks.aws [--bounded] [--only PART] [--json FILE]``: tokens and secrets, where nothing may go wrong.

One reference cluster judges IAM tokens that count for seconds, as its own rules are otherwise those of RDS; Secrets
Manager is moto's, in this process. The parts:

* *quiet*: an idle session, and no login for longer than a token counts; then the writer freezes, and the session has a
  statement. From the freeze until a new session has the new writer, beside the same with a password.
* *rotation*: clients connect all the time while a secret rotates, with seconds between the database and the secret; the
  pending version can be read, and then it cannot.
* *day*: 24 hours of virtual time (`tests/aws/day.py`).
* *shown*: a process prints all that it can at DEBUG (`aws_child`); that, and what ``ps`` shows, is searched.
* *cost*: warm connects with ``aurora_credentials=iam``, and with a token as a password, in turns.
* *zones*: connections of hundreds of simulated processes in three zones (`tests/simulation/zones.py`).
* *imports*: botocore's modules after ``import aurora_router``, and after a connect without the extra.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psycopg
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError
from moto import mock_aws

import aurora_router
from aurora_router.model.event import MonitorLockedOut
from aurora_router_aws import IamTokens, Secret, sdk
from aurora_router_cluster import LocalCluster
from benchmarks import paired
from benchmarks.connecting import ROUNDS
from benchmarks.figures import Figure, report
from benchmarks.setting import CONTROL, OURS, SECONDS, STOCK, WIDTH
from tests.aws.conftest import KEY, SECRET_KEY
from tests.aws.day import Secrets, Tokens, World, make_virtual
from tests.aws.rotation import HIDDEN, PATIENT, REGION, ROLE, Rotation, rotate_under_load
from tests.simulation import zones as simulation
from tests.superuser import run_as_superuser

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NEW_SESSION_SECONDS = 2.5
LOCKED_OUT_SECONDS = 5.0
"""For the one round of CI: with a monitor that is locked out it is more than an `aurora_connect_timeout`."""
COST = 1.02
CLIENTS = 8
SIGNATURE = re.compile(r"X-Amz-Signature=[0-9a-f]{64}")
IMPORTS = """
import sys, {what}
print(sum(each.partition(".")[0] in ("botocore", "boto3") for each in sys.modules))
"""


class Ground:
    """What the parts share.

    Args:
        bounded: the form for CI, of some seconds.
        postgres: directory of PostgreSQL's programs.
    """

    def __init__(self, *, bounded: bool, postgres: Path) -> None:
        self.bounded = bounded
        self.lifetime = 4.0 if bounded else 20.0
        self.cluster = LocalCluster.start(readers=1, iam=True, iam_token_lifetime=self.lifetime, postgres=str(postgres))
        run_as_superuser(self.cluster, f"CREATE ROLE {ROLE} LOGIN")
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            del os.environ[name]
        iam = self.cluster.status().iam
        assert iam is not None
        self.secret_key = iam.secret_access_key
        self.keys = {"AWS_ACCESS_KEY_ID": iam.access_key_id, "AWS_SECRET_ACCESS_KEY": iam.secret_access_key}

    def make_provider(self) -> IamTokens:
        """A provider whose AWS credentials end like those of a role, as soon as a token does."""
        credentials = RefreshableCredentials.create_from_metadata(self._log_in(), self._log_in, "bench")
        return IamTokens(credentials=lambda: credentials)

    def _log_in(self) -> dict[str, str]:
        # The driver keeps 5 s before the end free: in the bounded form a token is used for a second.
        seconds = max(self.lifetime, 6.0)
        end = dt.datetime.now(dt.timezone.utc) + dt.timedelta(seconds=seconds)
        names = dict(zip(("access_key", "secret_key"), self.keys.values(), strict=True))
        return {**names, "token": "of-a-session", "expiry_time": end.isoformat()}

    def options(self, name: str, **more: object) -> dict[str, Any]:
        """Options of a connect with TLS, which knows the cluster by a name of its own."""
        tls = {"sslmode": "verify-full", "sslrootcert": self.cluster.certificate_authority, "aurora_cluster": name}
        return {"conninfo": self.cluster.conninfo("writer", password=None), **tls, **more}

    def tokens(self, name: str) -> dict[str, Any]:
        """Options of a connect by IAM token."""
        return self.options(name, user="app_iam", credentials=self.make_provider())

    def settle(self) -> None:
        """Wait until all instances are as they were."""
        deadline = time.monotonic() + 60.0
        while any(each.state != "available" or each.frozen for each in self.cluster.instances):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the cluster did not recover: {self.cluster.instances}")
            time.sleep(0.05)


def quiet(ground: Ground) -> Iterator[Figure]:
    """New sessions after a frozen writer, after nothing has connected for longer than a token counts."""
    rounds = 1 if ground.bounded else 3
    passwords = ground.options("static", user="app", password="app")
    found: dict[str, list[float]] = {"IAM token": [], "password": []}
    for _ in range(rounds):
        found["IAM token"].append(_freeze(ground, ground.tokens("quiet"), 1.2 * ground.lifetime))
        if not ground.bounded:
            found["password"].append(_freeze(ground, passwords, 1.0))
    for kind, seconds in found.items():
        if seconds:
            name = f"frozen writer after quiet time: new session, {kind}, median"
            note = " ".join(f"{each:.2f}" for each in seconds)
            bound = LOCKED_OUT_SECONDS if ground.bounded else NEW_SESSION_SECONDS
            yield Figure.at_most(name, statistics.median(seconds), "s", bound, note)


def _freeze(ground: Ground, options: dict[str, Any], pause: float) -> float:
    """Freeze the writer after a pause; returns the seconds until a new session has the next one."""
    old = ground.cluster.writer
    assert old is not None
    with aurora_router.connect(**options) as idle:
        idle.autocommit = True
        time.sleep(pause)
        began = time.monotonic()
        ground.cluster.freeze(old)
        try:
            with contextlib.suppress(psycopg.OperationalError):
                idle.execute("SELECT 1")
            with aurora_router.connect(**options) as conn:
                conn.execute("CREATE TEMPORARY TABLE writes (n int)")
                return time.monotonic() - began
        finally:
            ground.cluster.thaw(old)
            ground.settle()


def rotation(ground: Ground) -> Iterator[Figure]:
    """Connects that fail while a secret rotates."""
    for readable, rotations in ((True, 2 if ground.bounded else 20), (False, 1 if ground.bounded else 3)):
        done, failed = _rotate(ground, rotations, readable=readable)
        name = f"{rotations} rotations, {CLIENTS} clients, AWSPENDING {'readable' if readable else 'denied'}"
        yield Figure.at_least(f"{name}: connects", done + failed, "", 10)
        if readable:
            yield Figure.at_most(f"{name}: failed", failed, "", 0)
        else:
            yield Figure.unbounded(f"{name}: failed", failed, "")


def _rotate(ground: Ground, rotations: int, *, readable: bool) -> tuple[int, int]:
    window, pause = (0.6, 0.3) if ground.bounded else (5.0, 0.5)
    original = Secret._read  # noqa: SLF001 - what AWS says to it is denied here

    def read(secret: Secret, stage: str) -> Any:
        if stage == "AWSPENDING" and not readable:
            denied = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}
            raise ClientError(denied, "GetSecretValue")  # type: ignore[arg-type]
        return original(secret, stage)

    def change(user: str, number: int) -> None:
        run_as_superuser(ground.cluster, f"ALTER ROLE {user} PASSWORD '{HIDDEN} {number}'")

    with mock_aws(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Secret, "_read", read)
        rotating = Rotation(boto3.client("secretsmanager", region_name=REGION), change, f"readable-{readable}")
        options = ground.options(f"secret-{readable}", user=None)
        options |= {**PATIENT, "aurora_credentials": "secret", "aurora_secret": rotating.arn}
        done, errors = rotate_under_load(
            options, rotating, clients=CLIENTS, rotations=rotations, window=window, pause=pause
        )
    sdk.forget()
    for each in errors[:5] if readable else ():
        sys.stdout.write(f"FAILED: {each!r}\n")
    return done, len(errors)


def day(ground: Ground) -> Iterator[Figure]:
    """Hours of virtual time."""
    hours = 3 if ground.bounded else 24
    for kind in (Tokens, Secrets):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AWS_ACCESS_KEY_ID", KEY)
            patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
            sdk.forget()
            worlds = make_virtual(patch)
            world = World(1, kind, hours, patch)
            worlds.append(world)
            world.run()
            sdk.forget()
        name = f"{hours} h of virtual time, {kind.__name__.lower()}"
        locked_out = [each for _, _, each in world.process.events if isinstance(each, MonitorLockedOut)]
        yield Figure.at_least(f"{name}: connects", world.counts["connects"], "", 15 * hours)
        yield Figure.at_most(f"{name}: connects that failed on credentials", len(world.errors), "", 0)
        yield Figure.at_most(f"{name}: monitor locked out", len(locked_out), "", 0)


def shown(ground: Ground) -> Iterator[Figure]:
    """Secrets and tokens in all that a process prints, in its tables' keys, and in command lines."""
    options = {**ground.options("shown", user=None), "aurora_credentials": "secret"}
    conninfo = ground.cluster.iam_conninfo("writer")
    asked = json.dumps({"conninfo": conninfo, "cluster": ground.cluster.key, "options": options})
    command = [sys.executable, "-m", "benchmarks.aws_child", asked]
    environment = {**os.environ, **ground.keys, "AWS_EC2_METADATA_DISABLED": "true"}
    with subprocess.Popen(
        command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as child:
        assert child.stdout is not None
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line == "END\n":
                break
        commands = [_read(each) for each in Path("/proc").glob("[0-9]*/cmdline")]
    ground.settle()
    keys = [line for line in lines if line.startswith("KEY ")]
    if lines[-1:] != ["END\n"]:
        sys.stdout.write("".join(lines[-20:]))
    yield Figure.at_least("shown: lines at DEBUG, of events, errors and reprs", len(lines) - len(keys), "", 100)
    yield Figure.at_least("shown: keys of the driver's tables", len(keys), "", 100)
    yield Figure.at_least("shown: the process came to its end", lines[-1:] == ["END\n"], "", 1)
    for what, texts in (("what is printed", lines), ("keys of tables", keys), ("command lines", commands)):
        hits = [each for each in texts if _is_secret(each, ground.secret_key)]
        sys.stdout.write("".join(f"SHOWN: {each[:200]}\n" for each in hits[:5]))
        yield Figure.at_most(f"shown: secrets and tokens in {what}", len(hits), "", 0)
    yield Figure.at_least("shown: the same search, in a token", _is_secret(_token(ground), ""), "", 1)


def _is_secret(text: str, secret_key: str) -> bool:
    return SIGNATURE.search(text) is not None or HIDDEN in text or bool(secret_key and secret_key in text)


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _token(ground: Ground) -> str:
    """A token for the writer."""
    login = aurora_router.Login(ground.cluster.endpoint("writer"), ground.cluster.port, "app_iam", None)
    return ground.make_provider()(login).password


def cost(ground: Ground) -> Iterator[Figure]:
    """CPU time of the thread that connects, by a provider and by a password that is the same to the server."""

    def block(options: dict[str, Any]) -> Callable[[], float]:
        def run() -> float:
            start = time.thread_time()
            connection = aurora_router.connect(**options)
            took = time.thread_time() - start
            connection.close()
            return took

        run()
        return run

    tokens = block(ground.tokens("cost"))

    def batch() -> paired.Samples:
        static = block(ground.options("cost", user="app_iam", password=_token(ground)))
        return paired.alternate({OURS: tokens, STOCK: static, CONTROL: static}, ROUNDS, random.Random())

    # A user who holds a session keeps the monitor, so that it does not start and end with each connect.
    with aurora_router.connect(**ground.tokens("cost")):
        samples = paired.converge(batch, (OURS, STOCK), width=WIDTH, seconds=SECONDS)
    ours, control = paired.ratio(samples, OURS, STOCK), paired.ratio(samples, CONTROL, STOCK)
    name, rounds = "warm connect: CPU time, {} / password", f"{len(samples[OURS])} rounds"
    note = f"95 % {ours.low:.3f}..{ours.high:.3f}, {rounds}"
    yield Figure.at_most(name.format("IAM token"), ours.value, "x", COST, note)
    yield Figure.unbounded(name.format("password"), control.value, "x", f"95 % {control.low:.3f}..{control.high:.3f}")


def imports(ground: Ground) -> Iterator[Figure]:
    """Modules of botocore in a process that does not need it."""
    conninfo = ground.cluster.conninfo("writer")
    connect = f"aurora_router; aurora_router.connect({conninfo!r}).close()"
    for what, statements in (("import aurora_router", "aurora_router"), ("a connect by password", connect)):
        command = [sys.executable, "-c", IMPORTS.format(what=statements)]
        count = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        yield Figure.at_most(f"modules of botocore after {what}", count, "", 0)


def zones(ground: Ground) -> Iterator[Figure]:
    """How many connections stay in their zone, and how busy the busiest reader gets."""
    yield from simulation.measure(simulation.BOUNDED if ground.bounded else simulation.SCENES)


PARTS = {each.__name__: each for each in (quiet, rotation, day, shown, cost, zones, imports)}
BOUNDED = ("quiet", "rotation", "shown", "zones", "imports")
"""The tests of the suite have some hours of the day; a ratio takes more rounds than CI has time for."""


def main() -> int:
    """Returns 1 where a figure misses its bound."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bounded", action="store_true", help="some seconds of each, for CI")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = parser.parse_args()
    logging.getLogger("aurora_router").addHandler(logging.NullHandler())
    postgres = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)
    if postgres is None:
        sys.stdout.write(
            "!!! no PostgreSQL in /usr/lib/postgresql: IAM is not tested (apt-get install postgresql) !!!\n"
        )
        return 1
    ground = Ground(bounded=args.bounded, postgres=postgres.parent)
    found: list[Figure] = []
    with ground.cluster:
        for part in args.only or (BOUNDED if args.bounded else PARTS):
            began = time.monotonic()
            for each in PARTS[part](ground):
                sys.stdout.write(each.line(70) + "\n")
                found.append(each)
            sys.stdout.write(f"-- {part}: {time.monotonic() - began:.0f} s\n")
            sys.stdout.flush()
    return report(found, args.json)


if __name__ == "__main__":
    sys.exit(main())
