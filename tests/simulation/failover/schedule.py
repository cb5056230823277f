"""One seeded schedule: client processes, a cluster, incidents; everything is judged as it happens.

Promises that are checked: no acknowledged transaction is lost or doubled, none is called rolled back that committed;
no connection leads to a writer of which a later one is known, nor to a reader in its place; no task waits forever, nor
for longer than documented; after the last incident every process finds the writer; nothing is cut off or fails where
nothing was wrong; nothing stays open.

Not played: clocks that are wrong by more than `model.observation.STALE_ROW_SECONDS`, two partitions of one cluster
that both think to have a quorum.
"""

from __future__ import annotations

import contextlib
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg

from aurora_router.errors import NameNotResolved, RoutingError
from aurora_router.flow.begin import Plan
from aurora_router.flow.outcome import Resolver
from aurora_router.flow.session import Modes
from aurora_router.flow.transaction import Transaction
from aurora_router.model.observation import ROW_AGE_SECONDS
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.simulation import Cancelled, Relay, SimulatedCluster

from .clock import Clock
from .control import CALM, FAULTS, FOUND, INCIDENTS, Control
from .dimensions import NEED_AURORA, PLAYED, Dimensions
from .judge import DIAL, SLACK, Judge, Violation, overlap
from .servers import RECORD_BYTES, Store
from .world import Harbour, Process

LIMIT = 75.0
"""No task may wait for longer than ``aurora_failover_timeout`` and a dial, in virtual seconds."""
TEMPLATE = "{id}.internal"
"""How instances are named where several clusters share a domain of their users' own."""
POOLER, POOLER_PORT = "10.99.0.1", 6432
THROUGH_POOLER = f"host={POOLER} port={POOLER_PORT} dbname={{}} aurora_role=writer"
OTHER_DATABASE = "bills"
PROFILES = ["default"] * 5 + ["aggressive", "patient"]


class Schedule:
    """The actors of one schedule."""

    def __init__(self, seed: int, dimensions: Dimensions = PLAYED) -> None:
        self.rng = rng = random.Random(seed)
        self.drawn = dimensions.draw(seed)
        self.odd = random.Random(f"what is odd in {seed}")
        self.clock = Clock(seed)
        self.counts: Counter[str] = Counter()
        self.harbour = Harbour(self.clock)
        self.harbour.tells_receipts = "silent_kernels" not in self.drawn
        aurora = rng.random() < 0.6 or bool(self.drawn & NEED_AURORA)
        self.cluster = SimulatedCluster(
            self.harbour, readers=rng.choice([1, 2, 2, 3]), aurora=aurora, dns_delay=rng.choice([0.0, 0.5, 5.0, 40.0])
        )
        restarts = rng.random() < 0.4
        store = Store(
            aurora=aurora,
            witness=rng.random() < (0.8 if aurora else 0.5),
            version=rng.choice([150000, 180000]),
            restarts=restarts,
            silent_fence=rng.random() < 0.5,
        )
        if self.drawn & {"idle_logs", "hasty_failovers"}:
            self.cluster.grown = lambda _: RECORD_BYTES * len(store.volume)
        if "late_tokens" in self.drawn:
            self.cluster.late = ROW_AGE_SECONDS
        self.control = Control(self.clock, rng, self.harbour, self.cluster, store)
        self.calm = rng.random() < 0.2 and not self.drawn - {"silent_kernels"}
        self.judge = Judge(self.control, calm=self.calm)
        self.processes = [self._process() for _ in range(rng.choice([1, 2, 2]))]
        self.control.processes = self.processes
        self.late = self.odd.choice([0.0, 0.5, 5.0])
        self.other = self._another_cluster() if self.drawn & {"shared_template", "shared_pooler"} else None
        if "constant_reports" in self.drawn:
            servers = list(self.cluster.instances.values())
            relayed = self.odd.sample(servers, self.odd.choice([1, len(servers)]))
            engine = len(relayed) == len(servers) and self.odd.random() < 0.5
            for each in relayed:
                self.harbour.relays[each.address, self.cluster.port] = Relay(reports=False, own_port=not engine)
            if engine:
                self.harbour.engines[self.cluster] = Relay(reports=False, own_port=False)
        self.over = False
        self.healed: float | None = None
        self.numbers = 0
        for each in self.control.servers.values():
            each.skew = rng.choice([0.0, 0.0, rng.uniform(-100, 100)])
            if self.calm:  # so that pings take their time, and a process may be starved meanwhile
                each.slow = rng.uniform(0.0, 0.06)

    def _process(self) -> Process:
        options: dict[str, Any] = {"aurora_profile": self.rng.choice(PROFILES)}
        if self.calm:
            options = {"aurora_profile": "default"}
        elif self.rng.random() < 0.15:
            options["aurora_monitor"] = "off"
        writer, reader = self.cluster.conninfo("writer"), self.cluster.conninfo("reader")
        if not self.cluster.aurora:
            hosts = ",".join(each.address for each in self.cluster.instances.values())
            writer = reader = f"host={hosts} port=5432 dbname=app"
        process = Process(self.harbour, *self._odd_ways(writer, reader, options), options)
        process.on_cut = lambda conn: self.judge.cut(process, conn)
        return process

    def _odd_ways(self, writer: str, reader: str, options: dict[str, Any]) -> tuple[str, str]:
        """How a process reaches the cluster; what its environment has that is odd changes that."""
        cluster = self.cluster
        if "stale_lag" in self.drawn:
            options["aurora_max_lag"] = self.odd.choice([0.5, 2.0])
        if "odd_rows" in self.drawn:
            options["aurora_refresh"] = self.odd.choice([1.0, 5.0, 30.0])
        if "unknown_addresses" in self.drawn and len(cluster.instances) > 2:
            first = list(cluster.instances)
            if self.control.placed is None:
                lacking = self.odd.choice(first[1:])
                self.control.placed = [id_ for id_ in first if id_ != lacking]
            known = self.control.placed
            cluster.dns_delay = min(cluster.dns_delay, FOUND)
            options["aurora_instance_host"] = ",".join(f"{id_}={cluster.host(f'instance:{id_}')}" for id_ in known)
        if "shared_template" in self.drawn:
            options["aurora_instance_host"] = TEMPLATE
            for role in ("writer", "reader"):
                self.harbour.dns.alias(f"orders-{role}.internal", cluster.host(role))
            self._name_instances(cluster)
            orders = "host=orders-{0}.internal port=5432 dbname=app aurora_role={0}"
            writer, reader = orders.format("writer"), orders.format("reader")
        if self.pooled:
            self.harbour.relays[POOLER, POOLER_PORT] = Relay(reports=False, own_pid=True)
            self.harbour.behind[POOLER] = self._behind_the_pooler
            writer = reader = THROUGH_POOLER.format("app")
            self.control.placed = None
            options.pop("aurora_instance_host", None)  # clients reach the pooler alone
        return writer, reader

    @property
    def pooled(self) -> bool:
        """Whether clients reach the writer through a pooler."""
        return bool(self.drawn & {"pooler", "shared_pooler"})

    def _behind_the_pooler(self, database: str) -> Any:
        """Where a session of the pooler leads to: to the writer that DNS had a moment ago."""
        if self.other is not None and database == OTHER_DATABASE:
            return self.other.writer
        known = [server for at, server in self.control.history if at == 0.0 or at + self.late <= self.clock.now]
        return known[-1]

    def _name_instances(self, cluster: SimulatedCluster) -> None:
        for id_ in (f"{cluster.name}-{number}" for number in range(1, 10)):  # those that join, too
            self.harbour.dns.alias(TEMPLATE.format(id=id_), cluster.host(f"instance:{id_}"))

    def _another_cluster(self) -> Control:
        """A cluster that has names of the same template, and to which nothing happens."""
        cluster = SimulatedCluster(self.harbour, "bills", readers=1, domain="xyz789.eu-test-1.rds.aurora.test")
        self._name_instances(cluster)
        self.harbour.dns.alias("bills-writer.internal", cluster.host("writer"))
        store = Store(aurora=True, witness=True, version=150000, restarts=True, silent_fence=False)
        self.control.other_stores.append(store)
        return Control(self.clock, self.odd, self.harbour, cluster, store)

    # ------------------------------------------------------------ clients

    async def connect(self, process: Process, role: str) -> Any:
        began, known = self.clock.now, process.known()
        try:
            conn = await process.reach(role)
        except Exception as error:
            self.judge.refused(process, role, began, error)
            raise
        finally:
            self._bounded(began, f"a connect to the {role}")
        conn.lossy = process.loses > 0.0
        if role == "reader":
            self.judge.reader_came(process, began, known)
        elif "frozen_dials" in self.drawn:
            self.judge.writer_came(process, conn, began)
        self.judge.handed(process, conn, role, began)
        self.counts["connects"] += 1
        if "hidden_notices" in self.drawn:
            with contextlib.suppress(psycopg.Error):
                await process.said(conn, "SET client_min_messages TO error")
        return conn

    def _bounded(self, began: float, what: str) -> None:
        if self.clock.now - began > LIMIT * (10 if self.patient else 1):
            raise Violation(f"{what} took {self.clock.now - began:.0f} s")

    @property
    def patient(self) -> bool:
        return any(each.options["aurora_profile"] == "patient" for each in self.processes)

    async def said(self, process: Process, conn: Any, sql: str) -> None:
        began, error = self.clock.now, None
        conn.lossy = conn.lossy or process.loses > 0.0
        try:
            await process.said(conn, sql)
        except psycopg.Error as raised:
            error = raised
            raise
        finally:
            if sql.startswith("SLEEP"):
                self.judge.ended(process, conn, began, error)

    def plan(self, process: Process, pool: list[Any]) -> Plan[Any]:
        args = read_connect_args(process.conninfo["writer"], process.options)

        async def take() -> Any:
            while pool:
                conn = pool.pop()
                if conn.current and not conn.broken and not conn.closed:
                    self.judge.handed(process, conn, "writer", self.clock.now)
                    return conn
                self.judge.let_go(process, conn)
                conn.close()
            return await self.connect(process, "writer")

        async def give(conn: Any) -> None:
            if process.runtime.is_broken(conn) or not process.runtime.is_idle(conn) or self.over or len(pool) > 2:
                conn.close()
            else:
                pool.append(conn)

        async def new_resolver(token: Any) -> Resolver[Any]:
            return Resolver(process.runtime, process.home.find, args.request, args.sources, token)

        return Plan(args.request.options, take, give, new_resolver)

    async def write(self, process: Process, rng: random.Random) -> None:
        """Transactions, one after the other."""
        pool: list[Any] = []
        plan = self.plan(process, pool)
        while not self.over:
            self.numbers += 1
            await self.transact(process, plan, self.numbers, rng)
            await self.clock.sleep(rng.choice([0.0, 0.3, rng.uniform(0, 2.0)]))
            if rng.random() < 0.1:
                while pool:
                    pool.pop().close()
        while pool:
            pool.pop().close()

    async def transact(self, process: Process, plan: Plan[Any], number: int, rng: random.Random) -> None:
        began = self.clock.now

        async def work(conn: Any) -> None:
            await self.said(process, conn, f"LEG {number} 1")
            if rng.random() < 0.05:
                await self.said(process, conn, f"SLEEP {rng.choice([0.05, 2.5])}")
            await self.said(process, conn, f"LEG {number} 2")
            if "own_endings" in self.drawn and self.odd.random() < 0.2:
                self.judge.own_endings.add(number)
                try:
                    await self.said(process, conn, "COMMIT")
                except psycopg.Error:
                    self.judge.lost_endings.add(number)
                    raise
                raise psycopg.errors.SerializationFailure("after the work's own COMMIT")

        error: BaseException | None = None
        try:
            await Transaction(process.runtime, plan, work, Modes()).run()
        except Violation:
            raise
        except Exception as raised:
            if isinstance(raised.__cause__, Violation):
                raise raised.__cause__ from raised
            error = raised
        self._bounded(began + 75.0, "a transaction")
        self.judge.transaction(number, error)
        self.counts[self.judge.reported[number]] += 1

    async def visit(self, process: Process) -> None:
        """Connect to the other cluster, now and then."""
        neighbour, conninfo = process, "host=bills-writer.internal port=5432 dbname=app aurora_role=writer"
        if self.pooled:
            neighbour, conninfo = process.beside(OTHER_DATABASE), THROUGH_POOLER.format(OTHER_DATABASE)
        while not self.over:
            with contextlib.suppress(RoutingError):
                conn = await neighbour.visit(conninfo)
                self.judge.visited(process, conn, self.other)
                conn.close()
            await self.clock.sleep(self.odd.uniform(0.3, 2.0))

    async def read(self, process: Process, rng: random.Random) -> None:
        """Queries on readers."""
        while not self.over:
            try:
                conn = await self.connect(process, "reader")
            except RoutingError:
                continue
            try:
                for _ in range(rng.randrange(1, 12)):
                    await self.said(process, conn, f"SLEEP {rng.choice([0.0, 0.05, 0.3, 3.0])}")
                    await self.clock.sleep(rng.uniform(0.0, 0.4))
                    if self.over:
                        break
            except psycopg.Error:
                self.counts["broken reads"] += 1
            conn.close()

    async def wait(self, process: Process, rng: random.Random) -> None:
        """Statements that take long and send nothing meanwhile, on a connection that is kept."""
        while not self.over:
            try:
                conn = await self.connect(process, "writer")
            except RoutingError:
                continue
            with contextlib.suppress(psycopg.Error):
                while not self.over:
                    await self.said(process, conn, f"SLEEP {rng.uniform(1.5, 5.0):.2f}")
                    await self.clock.sleep(rng.uniform(0.0, 1.5))
            conn.close()

    # ------------------------------------------------------------ the whole

    async def incident(self, name: str, at: float) -> None:
        await self.clock.sleep(at)
        self.counts[name] += 1
        began = self.clock.now
        if name == "confuse_names":
            self.judge.names.append([began, float("inf")])
        await getattr(self.control, name)()
        if name == "confuse_names":
            self.judge.names[-1][1] = self.clock.now

    async def odd_incident(self, name: str) -> None:
        """What a dimension brings, once or more."""
        for _ in range(self.odd.randrange(1, 3)):
            await self.clock.sleep(self.odd.uniform(0.5, 6.0))
            self.counts[name] += 1
            await getattr(self.control, INCIDENTS[name])(self.odd)

    async def play(self) -> None:
        self.judge.names = []
        clients = []
        for process in self.processes:
            if self.other is not None:
                with self.clock.owned(process.users):
                    clients.append(self.clock.spawn(self.visit(process)))
            tasks = [self.write, self.write, self.read][: self.rng.choice([2, 3, 3])]
            if self.pooled:
                tasks = tasks[:2]
            elif self.drawn & {"stalled_accepting", "stalled_clients"}:  # several connections to one server
                tasks += [self.read] * 3
            if self.drawn & {"lost_packets", "stalled_postmasters", "slow_logins"}:
                tasks += [self.wait] * 2
            for task in tasks:
                with self.clock.owned(process.users):
                    clients.append(self.clock.spawn(task(process, random.Random(self.rng.random()))))
        kinds = CALM if self.calm else FAULTS
        drawn = [self.rng.choice(kinds) for _ in range(self.rng.randrange(1, 6))]
        incidents = [self.clock.spawn(self.incident(name, self.rng.uniform(1.0, 8.0))) for name in drawn]
        incidents += [self.clock.spawn(self.odd_incident(name)) for name in sorted(self.drawn & INCIDENTS.keys())]
        for incident in incidents:
            await incident.wait()
        await self.settled()
        self.over = True
        for client in clients:
            await client.wait()
        for process in self.processes:
            self.judge.listen(process)
        self.judge.settle()
        await self.quiet()

    async def settled(self) -> None:
        """After the last incident every process finds the writer, in time."""
        probes = []
        for process in self.processes:
            with self.clock.owned(process.users):
                probes.append(self.clock.spawn(self._found(process, self._patience(process))))
        for probe in probes:
            await probe.wait()

    async def _found(self, process: Process, patience: float) -> None:
        healed = self.clock.now
        try:
            conn = await self.connect(process, "writer")
        except NameNotResolved:  # a name that failed is remembered for a moment
            await self.clock.sleep(2.0)
            conn = await self.connect(process, "writer")
        if (took := self.clock.now - healed) > patience:
            raise Violation(f"{took:.2f} s after the last incident a process had no writer ({patience:.2f} s)")
        if conn.server is not self.control.writer:
            raise Violation(f"after the last incident {conn.server.id} is taken for the writer")
        cluster = conn.result.cluster
        askable = any(self.control.is_placed(self.control.named(id_)) for id_ in cluster.view.instances)
        if process.monitored and not self.pooled and askable and not cluster.is_monitored:
            # The monitor may have learned of one this instant.
            await self.clock.sleep(self.judge.limits(process).interval + SLACK)
            if not cluster.is_monitored:
                raise Violation("after the last incident the monitor does not look")
        conn.close()

    def _patience(self, process: Process) -> float:
        """What is documented: the pace of the monitor, a dial that is under way, a pause of the slow start where one
        goes on.

        A dial that is under way at the end of the last incident may be one more trouble in that slow start's row.
        """
        now, pause = self.clock.now, 0.0
        dial = DIAL.get(process.options["aurora_profile"], 5.0)
        for slow_start in (each.slow_start for each in process.clusters if each.slow_start is not None):
            pause = max(pause, slow_start.until - now)
            if slow_start.under_way:  # one that succeeds late is trouble, too, and for a process that has a connection
                next_in_row = replace(slow_start, first=False, known_at=-math.inf)
                pause = max(pause, next_in_row.record_trouble(dial, now, 1.0).until - now)
        names = 6.0 if overlap(self.judge.names, now - 5.0, now) else 0.0
        known = any(each.view.known for each in process.clusters) and not self.pooled
        known = known and self.control.is_placed(self.control.writer)
        dns = 0.0 if known else self.late + 1.0 if self.pooled else self.cluster.dns_delay
        alone = 0.0 if process.monitored else 8.0
        return 3.0 + dial + pause + names + dns + alone

    async def quiet(self) -> None:
        """Nothing stays open, and nothing has failed in the background."""
        await self.clock.sleep(90.0)
        for process in self.processes:
            for task in process.monitor_runtime.tasks:
                if task.error is not None and not isinstance(task.error, Cancelled):
                    raise task.error
            if any(each.monitor is not None for each in process.clusters):
                raise Violation("a monitor goes on without a user")
        if self.cluster.open_connections:
            raise Violation(f"{self.cluster.open_connections} connections stay open")


class Closed:
    """A judge that has made up its mind."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def play(seed: int, dimensions: Dimensions = PLAYED) -> Counter[str]:
    """Play the schedule of a seed; returns what happened in it.

    Raises:
        AssertionError: a promise was broken.
    """
    schedule = Schedule(seed, dimensions)
    with schedule.clock as clock:
        try:
            clock.run(schedule.play())
        except BaseException:
            schedule.judge = Closed()  # nothing is held against what is taken down
            raise
    return schedule.counts
