"""Commits per second over the quorum storage with synced disks, against PostgreSQL's own ``ANY 4`` of six receivers.

Both in turn in the same run, pgbench -N, one and eight clients; the ratio of the medians counts.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.postgres import binaries as binaries_module
from aurora_router_cluster.postgres import template as template_module
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.endpoints import EngineAddress
from aurora_router_cluster.postgres.engine import Engine, State
from aurora_router_cluster.storage.quorum import QuorumVolume
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster.postgres.binaries import Binaries
    from benchmarks.setting import Setting

BOUNDS = {1: 0.8, 8: 1.0}
ROUNDS, SECONDS = 5, 4
PARENT = Path("/var/tmp")  # a disk, where there is one


class Bench:
    def __init__(self, account, found, directory: Path) -> None:
        self.account, self.found, self.directory = account, found, directory
        self.template = template_module.ensure(found, account)

    async def command(self, *words: object) -> str:
        process = await asyncio.create_subprocess_exec(
            *self.account.command(list(map(str, words))),
            cwd="/",
            env=self.account.environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        return output.decode()

    async def pgbench(self, engine: Engine, *options: object) -> str:
        where = ["-h", engine.home, "-p", engine.port, "-U", "postgres", "postgres"]
        return await self.command(self.found.program("pgbench"), *options, *where)

    async def rate(self, engine: Engine, clients: int, seconds: int) -> float:
        output = await self.pgbench(engine, "-n", "-N", "-M", "prepared", "-c", clients, "-j", 1, "-T", seconds)
        found = re.search(r"tps = ([\d.]+)", output)
        assert found, output
        return float(found[1])

    def engine(self, name: str) -> Engine:
        engine = Engine(name, self.directory / name, self.found, self.account)
        engine.make_home()
        return engine

    async def over_quorum(self, seconds: int) -> dict[int, float]:
        volume = QuorumVolume(self.found, self.account, self.directory / "storage", sync=True)
        engine = self.engine("quorum")
        try:
            await engine.clone(await volume.open(self.template))
            engine.configure(volume.writer_settings(), standby=False)
            engine.start()
            await engine.wait(State.READY)
            await volume.attach(EngineAddress(engine.name, engine.home, engine.port, "postgres", engine.data))
            await self.pgbench(engine, "-i", "-q", "-s", 4)
            return {clients: await self.rate(engine, clients, seconds) for clients in BOUNDS}
        finally:
            engine.kill()
            await volume.close()

    async def over_receivers(self, seconds: int) -> dict[int, float]:
        engine = self.engine("receivers")
        names = [f"r{i}" for i in range(6)]
        receivers = []
        try:
            await engine.clone(self.template)
            engine.configure({}, standby=False)
            engine.start()
            await engine.wait(State.READY)
            receivers = [self.receiver(engine, name) for name in names]
            engine.configure({"synchronous_standby_names": f"ANY 4 ({', '.join(names)})"}, standby=False)
            engine.reload()
            await self.pgbench(engine, "-i", "-q", "-s", 4)
            return {clients: await self.rate(engine, clients, seconds) for clients in BOUNDS}
        finally:
            engine.kill()
            for receiver in receivers:
                receiver.kill()
                receiver.wait()

    def receiver(self, engine: Engine, name: str):
        target = self.directory / name
        target.mkdir()
        self.account.own(target)
        conninfo = f"host={engine.home} port={engine.port} user=postgres application_name={name}"
        with Path("/dev/null").open("ab") as nowhere:
            return self.account.spawn(
                [self.found.program("pg_receivewal"), "-D", target, "--synchronous", "--no-loop", "-d", conninfo],
                log=nowhere,
            )


def make_directory(parent: Path) -> Path:
    directory = Path(tempfile.mkdtemp(prefix="ar-bench-", dir=parent))
    directory.chmod(0o755)
    return directory


async def _rates(found: Binaries, account: Account, rounds: int, seconds: int) -> dict[str, dict[int, list[float]]]:
    rates: dict[str, dict[int, list[float]]] = {"quorum": {1: [], 8: []}, "receivers": {1: [], 8: []}}
    for _ in range(rounds):
        for name in rates:
            directory = make_directory(PARENT)
            try:
                bench = Bench(account, found, directory)
                run = bench.over_quorum if name == "quorum" else bench.over_receivers
                for clients, rate in (await run(seconds)).items():
                    rates[name][clients].append(rate)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    return rates


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures."""
    account = Account.default()
    chosen = setting.options.get("postgres") or _with_pgbench()
    found = binaries_module.find(account, chosen)
    if not found.program("pgbench").exists():
        print("!!! commits a second were NOT measured: no pgbench beside PostgreSQL's binaries !!!", file=sys.stderr)
        return
    rates = asyncio.run(_rates(found, account, setting.rounds(ROUNDS), 2 if setting.quick else SECONDS))
    for clients, bound in BOUNDS.items():
        ours, theirs = (statistics.median(rates[name][clients]) for name in ("quorum", "receivers"))
        note = f"{ours:.0f} against {theirs:.0f} tps, medians of {len(rates['quorum'][clients])}"
        name = f"commits a second, c={clients}, six copies / ANY 4 of six"
        yield Figure.at_least(name, ours / theirs, "x", bound, note)


def _with_pgbench() -> Path | None:
    """Where PostgreSQL with pgbench is; the one that comes as a wheel has none."""
    known = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    beside = shutil.which("pgbench")
    return known[-1].parent if known else Path(beside).resolve().parent if beside else None
