"""The agent: a process on an instance's host that owns its one engine and does what the control plane asks for.

Run as ``python -m aurora_router_cluster.hosts.agent --listen HOST:PORT --directory DIR``; the cluster's secret is the
first line of standard input. It holds nothing that outlives it: when it ends its PostgreSQL does too, and a control
plane that did not make the instance makes it start from scratch.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import registry
from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.hosts import archive
from aurora_router_cluster.hosts.link import HostServer, serving
from aurora_router_cluster.postgres import binaries, settings
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.endpoints import RecoveryPoint
from aurora_router_cluster.postgres.engine import Engine, State
from aurora_router_cluster.postgres.usage import ProcessorMeter
from aurora_router_cluster.storage import process

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

    from aurora_router_cluster.postgres.binaries import Binaries

    Facts = dict[str, Any]

LOOK = 0.02  # seconds between two looks at the postmaster

ACCESS = f"""\
local all {settings.SUPERUSER} trust
local replication {settings.SUPERUSER} trust
local all all scram-sha-256
host all all all scram-sha-256
host replication {settings.SUPERUSER} all scram-sha-256
"""


class Agent:
    """One host's engine, and what can be asked of it.

    Args:
        found: which PostgreSQL.
        account: the user that the server runs as.
        directory: where the engine's home is made.
        listen: addresses that PostgreSQL listens on.
    """

    def __init__(self, found: Binaries, account: Account, directory: Path, listen: str) -> None:
        self._binaries, self._account = found, account
        self._directory, self._listen = directory, listen
        self._engine: Engine | None = None
        self._owner: list[Any] | None = None
        self._meter = ProcessorMeter()
        self.cpu: float | None = None

    @property
    def engine(self) -> Engine:
        """The engine.

        Raises:
            RequestError: no instance was assigned yet.
        """
        if self._engine is None:
            raise RequestError("this host has no instance yet")
        return self._engine

    def report(self) -> Facts:
        """How the engine is."""
        engine = self._engine
        if engine is None:
            return {"alive": False, "pid": None, "frozen": False, "was_writer": True, "cpu": None}
        return {
            "alive": engine.alive,
            "pid": engine.pid,
            "frozen": engine.frozen,
            "was_writer": engine.was_writer,
            "cpu": self.cpu,
        }

    def operations(self) -> dict[str, Callable[[Facts, bytes], Awaitable[Facts | None] | Facts | None]]:
        """Name of a request -> what does it."""
        return {
            "assign": self._assign,
            "clone": self._clone,
            "wait": self._wait,
            "promote": self._promote,
            "stop": self._stop,
            "configure": lambda facts, _: self.engine.configure(facts["extra"], standby=facts["standby"]),
            "follow": lambda facts, _: self.engine.follow(facts["extra"]),
            "write_status": lambda facts, _: self.engine.write_status(facts["rows"]),
            "erase": lambda _facts, _: self.engine.erase(),
            "remove": lambda _facts, _: self._remove(),
            "start": lambda _facts, _: self.engine.start(),
            "leave_out": lambda facts, _: self.engine.leave_out(RecoveryPoint(**facts["point"])),
            "reload": lambda _facts, _: self.engine.reload(),
            "kill": lambda _facts, _: self.engine.kill(),
            "freeze": lambda _facts, _: self.engine.freeze(),
            "thaw": lambda _facts, _: self.engine.thaw(),
        }

    def _assign(self, facts: Facts, _data: bytes) -> Facts:
        """Be the host of an instance: of a new one, unless it is the one that is here already."""
        owner = [facts["cluster"], facts["name"], facts["port"]]
        if owner != self._owner:
            self._remove()
            self._owner = owner
            where = self._directory / "instance"
            self._engine = Engine(
                facts["name"],
                where,
                self._binaries,
                self._account,
                host=self._listen,
                port=facts["port"],
                access=ACCESS,
            )
        return {"home": str(self.engine.home)}

    def _remove(self) -> None:
        engine, self._engine, self._owner = self._engine, None, None
        if engine is not None:
            engine.kill()
            engine.remove()

    async def _clone(self, _facts: Facts, data: bytes) -> None:
        engine = self.engine
        engine.make_home()
        await asyncio.to_thread(archive.unpack, data, engine.data)
        self._account.own(engine.data)

    async def _wait(self, facts: Facts, _data: bytes) -> Facts:
        wanted = [State(name) for name in facts["wanted"]]
        return {"state": (await self.engine.wait(*wanted, timeout=facts["timeout"])).value}

    async def _promote(self, facts: Facts, _data: bytes) -> None:
        await self.engine.promote(facts["timeout"])

    async def _stop(self, facts: Facts, _data: bytes) -> None:
        await self.engine.stop(immediate=facts["immediate"], timeout=facts["timeout"])

    async def watch(self, changed: Callable[[], None]) -> None:
        """Look after the engine without end, and report when something about it has changed."""
        before = self.report()
        while True:
            pid = self._engine.pid if self._engine is not None else None
            if pid is not None:
                self.cpu = self._meter.measure([pid], time.monotonic()).get(pid, self.cpu)
            now = self.report()
            if now != {**before, "cpu": now["cpu"]}:
                before = now
                changed()
            await asyncio.sleep(LOOK)

    def close(self) -> None:
        """End the instance and delete its files."""
        self._remove()


def prepare(args: argparse.Namespace) -> Agent:
    """Make an agent over an empty directory.

    Raises:
        BinariesError: no PostgreSQL.
    """
    account = Account.default()
    directory: Path = args.directory.absolute()
    directory.mkdir(mode=0o711, parents=True, exist_ok=True)
    registry.sweep(directory / "instance")  # of an agent that was killed: nothing of it may be used again
    return Agent(binaries.find(account, args.postgres), account, directory, args.postgres_listen or args.listen[0])


async def serve(args: argparse.Namespace, secret: str, ended: asyncio.Event) -> None:
    """Serve one host's instance."""
    agent = prepare(args)
    try:
        async with serving(HostServer(secret, agent.operations(), agent.report), *args.listen) as server:
            watching = asyncio.get_running_loop().create_task(agent.watch(server.push))
            await ended.wait()
            watching.cancel()
            await asyncio.wait({watching})
    finally:
        agent.close()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = process.parser("agent", "The host of one instance.")
    made.add_argument(
        "--listen", type=process.address, required=True, metavar="HOST:PORT", help="where the control plane calls"
    )
    made.add_argument("--directory", type=Path, required=True, help="of the instance; made if missing")
    made.add_argument("--postgres-listen", metavar="ADDRESS", help="what PostgreSQL listens on (default: as the agent)")
    made.add_argument("--postgres", type=Path, metavar="DIR", help="PostgreSQL's binaries (default: search)")
    return made


if __name__ == "__main__":
    sys.exit(process.run(parser().parse_args(), serve))
