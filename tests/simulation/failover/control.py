"""The control plane of the simulated cluster, and what befalls it: one coroutine for each kind of incident.

Each leaves everything well behind it, and marks the servers that it harmed (`Server.harmed`), so that the judge can
distinguish a reaction from a false alarm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router.simulation import Condition, NameServer

from .clock import Gate
from .servers import Server

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from aurora_router.flow.runtime import Rows
    from aurora_router.simulation import SimulatedCluster

    from .clock import Clock
    from .servers import Store
    from .world import Harbour, Process

FOUND = 5.0
"""How late the cluster endpoint may be where nothing else leads to the writer, for clients to find it in time."""
MOST = 5
"""How many servers there are at most."""
DETECTED = (0.05, 5.0)
"""How long the control plane takes to notice, in seconds."""


class Control:
    """Which server is the writer, by the record that counts.

    Attributes:
        history: promotions: (virtual time, server).
        other_stores: those of other clusters, whose users are the same.
        first: how many servers there are at the start; clients know these.
        placed: the instances of which clients know where they are; the given name alone leads to others. None: all.
    """

    def __init__(self, clock: Clock, rng: random.Random, harbour: Harbour, cluster: SimulatedCluster, store: Store):
        self.clock, self.rng, self.harbour, self.cluster, self.store = clock, rng, harbour, cluster, store
        self.servers: dict[str, Server] = {}
        self.processes: list[Process] = []
        self.other_stores: list[Store] = []
        self.history: list[tuple[float, Server]] = []
        self.placed: list[str] | None = None
        self._busy = False
        self._free = Gate(clock)
        for instance in cluster.instances.values():
            self._serve(instance)
        self.first = len(self.servers)
        writer = self.writer
        writer.recover(promoted=False)
        self.history.append((0.0, writer))
        for each in self.readers:
            each.follow(writer)

    def _serve(self, instance: Any) -> Server:
        server = self.servers[instance.id] = Server(self.clock, instance, self.store)
        self.harbour.servers[instance.address] = server
        return server

    @property
    def writer(self) -> Server:
        assert self.cluster.writer is not None
        return self.servers[self.cluster.writer.id]

    def is_placed(self, server: Server) -> bool:
        """Whether clients know where a server is, without the given name."""
        return self.placed is None or server.id in self.placed

    @property
    def readers(self) -> list[Server]:
        return [each for each in self.servers.values() if each is not self.writer]

    def reign(self, server: Server) -> int:
        """The number of a server's latest promotion; -1: it never was the writer."""
        return max((number for number, (_, each) in enumerate(self.history) if each is server), default=-1)

    def named(self, id_: str) -> Server:
        """The server that a client calls so: by its id, or by its address."""
        return self.servers.get(id_) or self.harbour.servers[id_.split(":", maxsplit=1)[0]]

    @staticmethod
    def is_named(server: Server, id_: str) -> bool:
        """Whether that is what a client calls a server."""
        return id_.split(":", maxsplit=1)[0] in {server.id, server.instance.address}

    async def _pause(self, least: float, most: float) -> None:
        await self.clock.sleep(self.rng.uniform(least, most))

    def _harm(self, server: Server) -> None:
        server.harmed.append([self.clock.now, float("inf")])

    def _well(self, server: Server) -> None:
        for each in server.harmed:
            each[1] = min(each[1], self.clock.now)

    def _freeze_view(self, server: Server) -> None:
        self.cluster.freeze_view(server.id)
        server.stale.append([self.clock.now, float("inf")])

    def _thaw_view(self, server: Server) -> None:
        self.cluster.thaw_view(server.id)
        for each in server.stale:
            each[1] = min(each[1], self.clock.now)

    # ------------------------------------------------------------ promotions

    def _promote(self, *, zombie: bool, to: Server | None = None) -> Server | None:
        former = self.writer
        fit = [each for each in self.readers if each.instance.condition is Condition.WELL and not each.stopped]
        if not fit:
            return None
        chosen = to if to in fit else max(fit, key=lambda each: (len(each.log), self.rng.random()))
        if not self.store.aurora and len(chosen.log) < max(len(each.log) for each in self.readers):
            return None
        self.cluster.failover(chosen.id, zombie=True)
        if not zombie:
            former.instance.writer, former.instance.lag = False, 0.01
            self.cluster.thaw_view(former.id)
        chosen.recover(promoted=True)
        self.history.append((self.clock.now, chosen))
        for each in self.servers.values():
            if each not in {chosen, former}:
                each.source = None
                self.clock.at(self.clock.now + self.rng.uniform(0.0, 0.8), lambda each=each: self._attach(each))
        return chosen

    def _attach(self, server: Server) -> None:
        if server is not self.writer and not server.instance.writer and server.id in self.servers:
            server.follow(self.writer)

    async def promote(self, *, zombie: bool, to: Server | None = None) -> Server:
        """Promote a server as soon as one is fit; that one, if it is."""
        while (found := self._promote(zombie=zombie, to=to)) is None:
            await self.clock.sleep(0.2)
        return found

    async def rejoin(self, server: Server) -> None:
        """Start a server as a reader of the present writer; another incident may have said that it is well."""
        self._harm(server)
        server.crash()
        instance = server.instance
        instance.condition, instance.writer, instance.lag = Condition.STARTING, False, 0.01
        server.silence(stopped=False, dark=False)
        await self._pause(0.05, 2.0)
        self._thaw_view(server)
        instance.timeline = self.writer.instance.timeline
        instance.condition = Condition.WELL
        server.follow(self.writer)
        self._well(server)

    # ------------------------------------------------------------ incidents of the writer, one at a time

    async def lose_writer(self, kind: str | None = None) -> None:
        """The writer goes in some way, and another takes over."""
        while self._busy:
            await self._free.wait()
        self._busy = True
        kind = kind or self.rng.choice(["crash", "stop", "dark", "switchover"])
        former = self.writer
        self._harm(former)
        self._bring_down(former, kind)
        await self._pause(*(DETECTED if kind != "switchover" else (0.01, 0.3)))
        stale = [each for each in self.readers if self.rng.random() < 0.25]
        for each in stale:
            self._freeze_view(each)
        chosen = await self.promote(zombie=kind in {"stop", "dark"})
        troubled = self.rng.random() < 0.3
        if troubled:
            self._harm(chosen)
            chosen.instance.condition = self.rng.choice([Condition.FULL, Condition.STARTING])
            if chosen.instance.condition is Condition.STARTING:
                chosen.end_sessions()
        await self._pause(0.1, 2.0)
        if chosen in stale:
            self._thaw_view(chosen)
        if troubled:
            chosen.instance.condition = Condition.WELL
            self._well(chosen)
        await self._pause(0.0, 4.0)
        if kind in {"stop", "dark"}:
            former.silence(stopped=False, dark=False)
            await self._pause(0.0, 4.0)
        await self.rejoin(former)
        for each in stale:
            self._thaw_view(each)
        self._busy = False
        self._free.open()

    def _bring_down(self, server: Server, kind: str) -> None:
        server.briefly = False
        if kind == "crash":
            server.instance.condition = Condition.REFUSING
            server.crash()
        elif kind == "switchover":
            server.instance.condition = Condition.STOPPING
            server.crash()
        else:
            server.silence(stopped=kind == "stop", dark=kind == "dark")

    async def restart_in_place(self) -> None:
        """The writer crashes and recovers by itself."""
        while self._busy:
            await self._free.wait()
        if not (self.store.aurora or self.store.restarts):
            return
        self._busy = True
        server = self.writer
        self._harm(server)
        server.instance.condition = Condition.STARTING
        server.crash()
        await self._pause(0.1, 2.0)
        server.recover(promoted=False, in_place=self.rng.random() < 0.7)
        server.instance.condition = Condition.WELL
        for each in self.readers:
            self._attach(each)
        self._well(server)
        self._busy = False
        self._free.open()

    # ------------------------------------------------------------ other incidents

    async def lose_reader(self) -> None:
        """A reader goes, and comes back."""
        server = self.rng.choice(self.readers)
        if server.harmed and server.harmed[-1][1] > self.clock.now:
            return
        while self._busy:
            await self._free.wait()
        if server is self.writer:
            return
        self._busy = True
        self._harm(server)
        self._bring_down(server, self.rng.choice(["crash", "stop", "dark", "switchover"]))
        await self._pause(0.5, 7.0)
        await self.rejoin(server)
        self._busy = False
        self._free.open()

    async def stop_shortly(self) -> None:
        """A server stands still for half a second at most: nothing is wrong."""
        server = self.rng.choice(list(self.servers.values()))
        if server.muted:
            return
        server.briefly = True
        server.silence(stopped=True)
        await self._pause(0.05, 0.5)
        if server.briefly:
            server.silence(stopped=False)

    async def slow_down(self) -> None:
        """A server is under load."""
        server = self.rng.choice(list(self.servers.values()))
        server.slow = self.rng.uniform(0.005, 0.08)
        server.loaded.append([self.clock.now, float("inf")])
        await self._pause(0.5, 5.0)
        server.loaded[-1][1] = self.clock.now
        server.slow = 0.0

    async def starve(self) -> None:
        """A client process gets no CPU."""
        process, seconds = self.rng.choice(self.processes), self.rng.uniform(0.1, 3.0)
        process.starved.append([self.clock.now, self.clock.now + seconds])
        self.clock.starve(seconds, process.users, process.monitor)
        await self.clock.sleep(seconds)

    async def isolate(self) -> None:
        """A client process is cut off from all others."""
        process = self.rng.choice(self.processes)
        if process.dark:
            return
        process.dark = True
        process.mute.append([self.clock.now, float("inf")])
        await self._pause(0.2, 6.0)
        process.dark = False
        process.mute[-1][1] = self.clock.now
        for server in self.servers.values():
            for session in list(server.sessions):
                session.tell_of_death()
            server.gate.open()

    async def confuse_names(self) -> None:
        """The name server fails."""
        dns = self.harbour.dns
        dns.state = self.rng.choice([NameServer.SILENT, NameServer.FAILING])
        await self._pause(0.5, 5.0)
        dns.state = NameServer.WELL

    async def lose_answers(self) -> None:
        """Connections break in the middle of COMMIT."""
        process = self.rng.choice(self.processes)
        process.loses = self.rng.uniform(0.05, 0.4)
        await self._pause(1.0, 5.0)
        process.loses = 0.0

    async def answer_losses(self, rng: random.Random) -> None:
        """What connects the sessions of a process loses some of them at COMMIT, and answers instead of the server."""
        process = rng.choice(self.processes)
        process.is_answered_for = True
        process.loses = rng.uniform(0.1, 0.4)
        await self._pause(1.0, 5.0)
        process.loses = 0.0

    async def cancel_waits(self) -> None:
        """The writer's replicas are cut off, and an operator cancels the backends that wait for them."""
        writer = self.writer
        writer.alone = True
        writer.lonely.append([self.clock.now, float("inf")])
        span = writer.lonely[-1]
        for _ in range(self.rng.randrange(20, 60)):
            for each in writer.running.values():
                each.cancelled = True
            writer.gate.open()
            await self._pause(0.005, 0.1)
        if self.rng.random() < 0.6:
            await self.lose_writer()
        writer.alone, span[1] = False, self.clock.now
        writer.gate.open()

    async def pause_writer(self) -> None:
        """The writer stands still, and goes on before another one replaces it."""
        while self._busy:
            await self._free.wait()
        self._busy = True
        server = self.writer
        if not server.muted:
            self._harm(server)
            server.silence(stopped=True)
            await self._pause(1.0, 4.0)
            server.silence(stopped=False)
            self._well(server)
        self._busy = False
        self._free.open()

    async def grow(self) -> None:
        """A reader joins; a list of hosts names all that there are."""
        if self.store.aurora and len(self.servers) < MOST:
            server = self._serve(self.cluster.add())
            server.instance.timeline = self.writer.instance.timeline
            server.follow(self.writer)

    async def stale_view(self) -> None:
        """One instance goes on reporting an old topology."""
        server = self.rng.choice(list(self.servers.values()))
        if server.instance.writer and server is not self.writer:
            return
        self._freeze_view(server)
        await self._pause(0.5, 8.0)
        if not (server.instance.writer and server is not self.writer):
            self._thaw_view(server)

    # ------------------------------------------------------------ incidents of `dimensions`

    async def send_odd_rows(self, rng: random.Random) -> None:
        """Some servers send rows that are not as they should be."""
        chosen = rng.sample(list(self.servers.values()), rng.randrange(1, len(self.servers) + 1))
        for each in chosen:
            each.instance.rewrites = odd(each.id, rng)
            each.odd.append([self.clock.now, float("inf")])
        await self.clock.sleep(rng.uniform(2.0, 20.0))
        for each in chosen:
            each.instance.rewrites = None
            each.odd[-1][1] = self.clock.now

    async def reset_dials(self, rng: random.Random) -> None:
        """Some dials are reset on their way."""
        self.harbour.resets = rng.choice([0.1, 0.3])
        await self.clock.sleep(rng.uniform(1.0, 8.0))
        self.harbour.resets = 0.0

    async def stall_accepting(self, rng: random.Random) -> None:
        """A server accepts no session, and those that it has go on."""
        server = rng.choice(list(self.servers.values()))
        if server.deaf:
            return
        self._end_idle(server)
        await self._deafen(server, rng.uniform(1.0, 6.0))

    def _end_idle(self, server: Server) -> None:
        """End the idle sessions of monitors, as ``idle_session_timeout`` does: they have to dial."""
        for each in list(server.sessions):
            if each.conn.by_monitor and each.idle:
                each.die()

    async def _deafen(self, server: Server, seconds: float) -> None:
        """Let a server accept no session for a while."""
        server.deaf = True
        server.deafness.append([self.clock.now, float("inf")])
        await self.clock.sleep(seconds)
        server.deaf, server.deafness[-1][1] = False, self.clock.now
        server.gate.open()

    async def slow_logins(self, rng: random.Random) -> None:
        """Logins take longer than a ping may take, and not so long as a dial may; monitors have to begin sessions."""
        chosen = rng.sample(list(self.servers.values()), rng.choice([1, len(self.servers)]))
        for each in chosen:
            self._end_idle(each)
            each.login = rng.uniform(1.1, 1.7)
            each.logins.append([self.clock.now, float("inf")])
        await self.clock.sleep(rng.uniform(4.0, 15.0))
        for each in chosen:
            each.login, each.logins[-1][1] = 0.0, self.clock.now

    async def refuse_dials(self, rng: random.Random) -> None:
        """A server refuses new sessions, as where its postmaster has died, and those that it has go on."""
        while self._busy:
            await self._free.wait()
        self._busy = True
        server = rng.choice([self.writer, rng.choice(list(self.servers.values()))])
        if server.instance.condition is Condition.WELL and not server.muted:
            self._harm(server)
            server.instance.condition = Condition.REFUSING
            await self.clock.sleep(rng.uniform(4.0, 12.0))
            server.instance.condition = Condition.WELL
            self._well(server)
        self._busy = False
        self._free.open()

    async def refuse_strangely(self, rng: random.Random) -> None:
        """A server refuses sessions with a sentence that is not known, and those that it has go on."""
        server = rng.choice(list(self.servers.values()))
        if server.balking:
            return
        self._end_idle(server)
        server.balking = True
        server.refusing.append([self.clock.now, float("inf")])
        await self.clock.sleep(rng.uniform(0.2, 6.0))
        server.balking, server.refusing[-1][1] = False, self.clock.now

    async def lose_packets(self, rng: random.Random) -> None:
        """Some of the packets that begin a session are lost; monitors have to begin some."""
        self.harbour.losses = rng.choice([0.3, 0.7])
        for _ in range(rng.randrange(5, 40)):
            for each in self.servers.values():
                self._end_idle(each)
            await self.clock.sleep(0.2)
        self.harbour.losses = 0.0

    async def stall_postmaster(self, rng: random.Random) -> None:
        """A server accepts no session while a statement of a user's, and nothing else, is under way for long."""
        for _ in range(100):
            await self.clock.sleep(0.1)
            server = rng.choice(list(self.servers.values()))
            waiting = [each for each in server.sessions if each.conn.result is not None and each.conn.waiting]
            if waiting and not (server.deaf or server.muted):
                await self.clock.sleep(rng.uniform(0.4, 0.9))
                if any(each.conn.waiting for each in waiting) and not server.deaf:
                    await self._deafen(server, rng.uniform(1.5, 3.0))
                    return

    async def stall_client(self, rng: random.Random) -> None:
        """The users' side of a process stands still; its monitor goes on, and a server may accept no session."""
        process, seconds = rng.choice(self.processes), rng.uniform(1.5, 5.0)
        if rng.random() < 0.9:  # so that the monitor asks in vain while answers lie unread
            self.clock.spawn(self.stall_accepting(rng))
        process.stalled.append([self.clock.now, self.clock.now + seconds])
        self.clock.starve(seconds, process.users)
        await self.clock.sleep(seconds)

    async def refuse_threads(self, rng: random.Random) -> None:
        """A process cannot start its monitor."""
        process = rng.choice(self.processes)
        process.threadless.append([self.clock.now, float("inf")])
        await self.clock.sleep(rng.uniform(1.0, 15.0))
        process.threadless[-1][1] = self.clock.now

    async def change_password(self, rng: random.Random) -> None:
        """The password changes, in all clusters, and all users have the new one at once."""
        for each in (*self.processes, self.store, *self.other_stores):
            each.password = f"changed at {self.clock.now}"

    async def rebuild_readers(self, rng: random.Random) -> None:
        """All readers are rebuilt, and the writer is lost meanwhile."""
        while self._busy:
            await self._free.wait()
        room = self.store.aurora and len(self.servers) < MOST
        if room and self.cluster.dns_delay <= FOUND and rng.random() < 0.7:
            await self._replace_all(rng)
            return
        readers = [each for each in self.readers if each.instance.condition is Condition.WELL and not each.muted]
        for each in readers:
            self._harm(each)
            self.clock.spawn(self.rejoin(each))
        await self.clock.sleep(rng.uniform(0.0, 0.5))
        await self.lose_writer()

    async def _replace_all(self, rng: random.Random) -> None:
        """A reader that joined a moment ago takes over, while all others are built: no rows that clients saw have it.

        The given names alone lead to it. The others come back long after.
        """
        self._busy = True
        others = [each for each in self.servers.values() if not (each.harmed and each.harmed[-1][1] > self.clock.now)]
        for each in others:
            self._harm(each)
            each.instance.condition = Condition.STARTING
            each.crash()
        await self.grow()
        await self.promote(zombie=False)
        await self.clock.sleep(self.cluster.dns_delay + rng.uniform(0.1, 1.0))
        self.clock.spawn(self._come_back(others), after=rng.uniform(12.0, 16.0))

    async def _come_back(self, servers: list[Server]) -> None:
        """Start servers as readers; until then, none could take over from the writer."""
        for each in servers:
            await self.rejoin(each)
        self._busy = False
        self._free.open()

    async def _crash_writer(self) -> tuple[Server, Server]:
        """Wait for one's turn; the writer crashes, and another is promoted. Returns both; the caller ends the turn."""
        while self._busy:
            await self._free.wait()
        self._busy = True
        former = self.writer
        self._harm(former)
        self._bring_down(former, "crash")
        await self._pause(*DETECTED)
        return former, await self.promote(zombie=False)

    async def fail_back(self, rng: random.Random) -> None:
        """The writer crashes, and takes over again when its successor hangs."""
        former, successor = await self._crash_writer()
        await self.rejoin(former)
        await self.clock.sleep(rng.uniform(0.0, 2.0))
        self._harm(successor)
        self._bring_down(successor, rng.choice(["stop", "dark"]))
        await self._pause(*DETECTED)
        await self.promote(zombie=True, to=former)
        await self._pause(4.0, 8.0)
        await self.rejoin(successor)
        self._busy = False
        self._free.open()

    async def fail_back_at_once(self, rng: random.Random) -> None:
        """The writer crashes, and is back only when its successor is gone; it takes over, and all others are away."""
        former, successor = await self._crash_writer()
        await self.clock.sleep(rng.uniform(0.3, 2.0))
        away = [each for each in self.servers.values() if each is not former]
        for each in away:
            self._harm(each)
            self._bring_down(each, "crash" if each is successor else "dark")
        await self._pause(*DETECTED)
        former.instance.condition = Condition.WELL
        self._well(former)
        await self.promote(zombie=False, to=former)
        await self._pause(6.0, 8.0)
        for each in away:
            await self.rejoin(each)
        self._busy = False
        self._free.open()

    async def freeze_writer(self, rng: random.Random) -> None:
        """The writer falls silent, with dials to it under way, and another takes over."""
        await self.lose_writer(rng.choice(["stop", "dark"]))

    async def swap_roles(self, rng: random.Random) -> None:
        """A reader is promoted, and the former writer is back as a reader before any client has found out."""
        while self._busy:
            await self._free.wait()
        self._busy = True
        former = self.writer
        if self._promote(zombie=False) is not None:
            self._harm(former)
            former.crash()
            former.instance.timeline = self.writer.instance.timeline
            former.follow(self.writer)
            await self.clock.sleep(rng.uniform(0.0, 0.1))
            self._well(former)
        self._busy = False
        self._free.open()

    async def fall_behind(self, rng: random.Random) -> None:
        """A reader falls behind, by a second in each second, and catches up."""
        server = rng.choice(self.readers)
        if server.behind and server.behind[-1][1] > self.clock.now:
            return
        server.behind.append([self.clock.now, float("inf")])
        until = self.clock.now + rng.uniform(2.0, 20.0)
        while self.clock.now < until and not server.instance.writer:
            server.instance.lag += 0.1
            await self.clock.sleep(0.1)
        server.instance.lag = 0.0 if server.instance.writer else 0.01
        server.behind[-1][1] = self.clock.now


def odd(observer: str, rng: random.Random) -> Callable[[Rows], Rows]:
    """One way in which the rows of an observer are not as they should be."""
    number = rng.randrange(len(ODD))

    def rewrite(rows: Rows) -> Rows:
        return ODD[number](rows, observer)

    return rewrite


def _renamed(rows: Rows, name: Callable[[str], str | None]) -> Rows:
    """One row more, of a reader, whose id is not as it should be."""
    id_, _, *rest = rows[-1]
    return [*rows, (name(id_ or ""), "f", *rest)]


def _lower(rows: Rows, observer: str) -> Rows:
    """The observer says of itself that it has less of the log than it has."""
    return [(*row[:4], str(int(row[4] or 0) - 5000)) if row[0] == observer else row for row in rows]


ODD: tuple[Callable[[Rows, str], Rows], ...] = (
    lambda rows, _: [row for row in rows if row[1] != "t"],
    lambda rows, _: [row for row in rows if row[1] != "t"],
    lambda rows, observer: [row for row in rows if row[0] != observer],
    lambda rows, observer: [row for row in rows if row[0] == observer and row[1] != "t"],
    lambda rows, _: [],
    lambda rows, _: [*rows, *rows],
    lambda rows, _: _renamed(rows, lambda id_: None),
    lambda rows, _: _renamed(rows, lambda id_: ""),
    lambda rows, _: _renamed(rows, lambda id_: f"{id_}.old"),
    lambda rows, _: _renamed(rows, lambda id_: f" {id_}"),
    lambda rows, _: _renamed(rows, lambda id_: GHOST),
    _lower,
)
"""Ways in which rows are odd: without the writer's, without the observer's, a reader's own alone, none, doubled, with
one more that has no id or a malformed one, with one of an instance that has left, with less of the log."""
GHOST = "demo-99"
"""An instance that is in the rows, and no more in the cluster."""

INCIDENTS = {
    "constant_reports": "swap_roles",
    "pooler": "swap_roles",
    "shared_pooler": "swap_roles",
    "odd_rows": "send_odd_rows",
    "reset_dials": "reset_dials",
    "stalled_accepting": "stall_accepting",
    "stalled_clients": "stall_client",
    "refused_threads": "refuse_threads",
    "changed_passwords": "change_password",
    "rebuilt_readers": "rebuild_readers",
    "frozen_dials": "freeze_writer",
    "stale_lag": "fall_behind",
    "lost_packets": "lose_packets",
    "stalled_postmasters": "stall_postmaster",
    "slow_logins": "slow_logins",
    "refused_dials": "refuse_dials",
    "unknown_sentences": "refuse_strangely",
    "idle_logs": "fail_back",
    "hasty_failovers": "fail_back_at_once",
    "answered_losses": "answer_losses",
}
"""Dimension -> the incident that it brings."""

CALM = ("stop_shortly", "slow_down", "starve", "starve", "starve", "grow")
"""Incidents in which nothing is wrong with the cluster."""
FAULTS = (
    *("lose_writer",) * 5,
    "restart_in_place",
    "lose_reader",
    "lose_reader",
    "stop_shortly",
    "slow_down",
    "starve",
    "isolate",
    "confuse_names",
    "lose_answers",
    "lose_answers",
    "cancel_waits",
    "cancel_waits",
    "pause_writer",
    "grow",
    "stale_view",
)
"""All incidents, as often as they are drawn."""
