"""Commits per second over the quorum storage with synced disks, against PostgreSQL's own ``ANY 4`` of six receivers.

``python benchmarks/storage_commit.py [--seconds 4] [--rounds 3] [--directory DIR] [--json FILE]``: both run in turn
in the same run, pgbench -N, one and eight clients; the median of the rounds counts.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from aurora_router_cluster import binaries as binaries_module
from aurora_router_cluster import template as template_module
from aurora_router_cluster.account import Account
from aurora_router_cluster.engine import Engine, State
from aurora_router_cluster.storage.quorum import QuorumVolume
from aurora_router_cluster.volume import EngineAddress

BOUNDS = {1: 0.8, 8: 1.0}


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


async def measure(options) -> dict[str, dict[int, list[float]]]:
    account = Account.default()
    found = binaries_module.find(account, options.postgres)
    rates: dict[str, dict[int, list[float]]] = {"quorum": {1: [], 8: []}, "receivers": {1: [], 8: []}}
    for _ in range(options.rounds):
        for name in rates:
            directory = make_directory(options.directory)
            try:
                bench = Bench(account, found, directory)
                run = bench.over_quorum if name == "quorum" else bench.over_receivers
                for clients, rate in (await run(options.seconds)).items():
                    rates[name][clients].append(rate)
                    print(f"{name:10} c={clients}: {rate:7.0f} tps", flush=True)
            finally:
                shutil.rmtree(directory, ignore_errors=True)
    return rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"))
    parser.add_argument("--postgres", type=Path, default=Path("/usr/lib/postgresql/15/bin"), help="needs pgbench")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rates = asyncio.run(measure(options))
    figures = {}
    for clients, bound in BOUNDS.items():
        ours, theirs = (statistics.median(rates[name][clients]) for name in ("quorum", "receivers"))
        ratio = round(ours / theirs, 3)
        print(f"c={clients}: {ours:.0f} against {theirs:.0f} tps, ratio {ratio} (bound {bound})")
        figures[f"commit tps c={clients}"] = {"value": round(ours), "unit": "tps", "bound": None, "ok": True}
        figures[f"commit ratio c={clients}"] = {"value": ratio, "unit": "x", "bound": bound, "ok": ratio >= bound}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if all(figure["ok"] for figure in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
