"""Grounds on which scenarios of `tests/scenarios/connect` are played: simulated, blocking, asyncio."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from aurora_router import AsyncConnection, connect, subscribe
from aurora_router.runtime import dns, libpq_runtimes
from aurora_router.runtime.registry import REGISTRY
from aurora_router.simulation import (
    Condition,
    NameServer,
    Network,
    SimulatedCluster,
    SimulatedProcess,
    Simulation,
)


@dataclass
class Outcome:
    """What a connect, or several, came to."""

    instances: list[str] = field(default_factory=list)
    error: BaseException | None = None
    counts: Counter = field(default_factory=Counter)
    seconds: float = 0.0


def told(event):
    """An event in one line, without what differs from run to run."""
    words = [type(event).__name__]
    if words == ["ConfigurationAdvice"]:
        return f"ConfigurationAdvice {'aurora_instance_host' if 'aurora_instance_host' in event.text else 'EXECUTE'}"
    for name in ("claimed", "id", "new", "role", "reason"):
        value = getattr(event, name, None)
        if value is not None and not (name == "reason" and words[0] == "ClaimRefused"):
            words.append(getattr(value, "value", value))
    return " ".join(words)


class Simulated:
    """The virtual clock."""

    def __init__(self, made, seed=0):
        self.simulation = Simulation(seed)
        self.network = Network(self.simulation)
        self.cluster = SimulatedCluster(self.network, **made)
        self.process = SimulatedProcess(self.network)
        self.connections = []

    def close(self):
        self.simulation.close()

    def conninfo(self, step):
        if "to" in step:
            return self.cluster.conninfo(step["to"])
        addresses = {each.id: each.address for each in self.cluster.instances.values()}
        host = step["host"].format_map(addresses)
        return f"host={host} dbname=app" + ("" if ":" in host else f" port={self.cluster.port}")

    def connect(self, step):
        simulation, outcome = self.simulation, Outcome()
        before, started = simulation.counts.copy(), simulation.now

        async def go():
            connection = await self.process.connect(self.conninfo(step), **step.get("options", {}))
            self.connections.append(connection)
            outcome.instances.append(connection.instance.id)

        for task in simulation.run_all(go() for _ in range(step.get("times", 1))):
            outcome.error = outcome.error or task.error
        outcome.counts = simulation.counts - before
        outcome.seconds = simulation.now - started
        return outcome

    def events(self):
        events = [told(event) for _, _, event in self.process.events]
        self.process.events.clear()
        return events

    def current(self):
        return [each.current for each in self.connections]

    def leaked(self):
        known = {each for each in self.connections if not each.broken}
        return [each for instance in self.cluster.instances.values() for each in instance.connections - known]

    def do(self, action, what):
        getattr(self, f"do_{action}")(what)

    def do_wait(self, seconds):
        self.simulation.run_until(self.simulation.now + seconds)

    def do_later(self, actions):
        for seconds, each in actions.items():
            for action, what in each.items():
                self.simulation.at(
                    self.simulation.now + float(seconds), lambda action=action, what=what: self.do(action, what)
                )

    def do_failover(self, to):
        self.cluster.failover(to)

    def do_zombie(self, to):
        self.cluster.failover(to, zombie=True)

    def do_crash(self, id_):
        self.cluster.crash(id_)

    def do_hang(self, id_):
        self.cluster.hang(id_)

    def do_heal(self, id_):
        self.cluster.heal(id_)

    def do_restart(self, id_):
        self.cluster.restart(id_)

    def do_remove(self, id_):
        self.cluster.remove(id_)

    def do_add(self, id_):
        self.cluster.add(id_)

    def do_freeze_view(self, id_):
        self.cluster.freeze_view(id_)

    def do_thaw_view(self, id_):
        self.cluster.thaw_view(id_)

    def do_rewind(self, lsn):
        self.cluster.rewind(lsn)

    def do_name_server(self, state):
        self.network.dns.state = NameServer[state]

    def do_alias(self, aliases):
        for name, target in aliases.items():
            self.network.dns.alias(name, self.cluster.host(target))

    def do_pin(self, pins):
        for target, ids in pins.items():
            addresses = [self.cluster.instances[each].address for each in ids]
            self.network.dns.pin(self.cluster.host(target), *addresses)

    def do_custom(self, customs):
        self.cluster.customs.update({label: tuple(members) for label, members in customs.items()})

    def do_set(self, instances):
        for id_, attributes in instances.items():
            for name, value in attributes.items():
                assert hasattr(self.cluster.instances[id_], name), name
                setattr(self.cluster.instances[id_], name, Condition[value] if name == "condition" else value)


class Blocking:
    """A real cluster, in this thread."""

    runtime = libpq_runtimes.BlockingRuntime

    def __init__(self, cluster, monkeypatch):
        self.cluster = cluster
        self.connections = []
        self.counts = Counter()
        self.heard = []
        self.customs = []
        self.forget = subscribe(lambda _, event: self.heard.append(event))
        REGISTRY.reset()
        dns.forget()
        for kind in ("dial", "ask"):
            self.count(kind, monkeypatch)

    def count(self, kind, monkeypatch):
        original = getattr(self.runtime, kind)

        async def counted(runtime, *args):
            self.counts[kind] += 1
            return await original(runtime, *args)

        monkeypatch.setattr(self.runtime, kind, counted)

    def close(self):
        self.forget()
        for each in self.connections:
            each.close()
        self.clean_up()

    def clean_up(self):
        for label in self.customs:
            self.cluster.delete_custom_endpoint(label)

    def conninfo(self, step):
        """Without the monitor: what is counted is what connects do."""
        if "to" in step:
            return self.cluster.conninfo(step["to"], aurora_monitor="off")
        addresses = {each.name: each.host for each in self.cluster.instances}
        host = step["host"].format_map(addresses)
        return self.cluster.conninfo("writer", aurora_monitor="off", host=host)

    def connect(self, step):
        before, started, outcome = self.counts.copy(), time.monotonic(), Outcome()
        for _ in range(step.get("times", 1)):
            try:
                connection = self.one(self.conninfo(step), step.get("options", {}))
            except Exception as error:  # noqa: BLE001 - the scenario says which it has to be
                outcome.error = error
                break
            self.connections.append(connection)
            outcome.instances.append(self.ask(connection))
        outcome.counts = self.counts - before
        outcome.seconds = time.monotonic() - started
        return outcome

    def one(self, conninfo, options):
        return connect(conninfo, autocommit=True, **options)

    def ask(self, connection):
        return connection.execute("select aurora_db_instance_identifier()").fetchone()[0]

    def events(self):
        events, self.heard[:] = [told(event) for event in self.heard], []
        return events

    def current(self):
        return [each.placement.current for each in self.connections]

    def leaked(self):
        return []

    def do(self, action, what):
        if action == "crash":
            self.cluster.kill(what, hold=True)
        elif action == "add":
            self.cluster.add_reader(what)
        elif action == "alias":
            for name, target in what.items():
                self.cluster.add_cname(name, self.cluster.endpoint(target))
        elif action == "custom":
            for label, members in what.items():
                self.cluster.create_custom_endpoint(label, members)
                self.customs.append(label)
        else:
            getattr(self.cluster, action)(what)


class OnAsyncio(Blocking):
    """A real cluster, on an event loop."""

    runtime = libpq_runtimes.EventLoopRuntime

    def __init__(self, cluster, monkeypatch):
        super().__init__(cluster, monkeypatch)
        self.loop = asyncio.new_event_loop()

    def close(self):
        self.forget()
        for each in self.connections:
            self.loop.run_until_complete(each.close())
        self.loop.close()
        self.clean_up()

    def one(self, conninfo, options):
        return self.loop.run_until_complete(AsyncConnection.connect(conninfo, autocommit=True, **options))

    def ask(self, connection):
        async def go():
            cursor = await connection.execute("select aurora_db_instance_identifier()")
            return (await cursor.fetchone())[0]

        return self.loop.run_until_complete(go())
