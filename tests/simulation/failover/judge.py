"""What was reported to clients, compared with what is true."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.errors import CommitOutcomeUnknown, NameNotResolved, RoutingError
from aurora_router.flow.dial_limiter import STAND_IN_PAUSE
from aurora_router.flow.hang_detector import TRIES, USUAL_DIALS
from aurora_router.flow.topology_query import ADVANCE_SECONDS
from aurora_router.model.event import (
    AnswerRefused,
    ConnectionsCut,
    InstanceAdded,
    InstanceFailed,
    MonitorLockedOut,
    WriterChanged,
    WriterConfirmed,
    WriterSuspected,
)
from aurora_router.model.instance import Role
from aurora_router.model.observation import ROW_AGE_SECONDS
from aurora_router.policy.hang_detection import Limits
from aurora_router.policy.paths import UNANSWERED_SECONDS

if TYPE_CHECKING:
    from .control import Control
    from .sessions import Conn
    from .world import Process

SLACK = 0.3
"""Seconds for messages on their way, and for sampling."""


DIAL = {"aggressive": 2.0, "patient": 15.0}
"""How long a dial may take, by profile where it is not the default's, in seconds."""
LOGIN = 2.0
"""How long a login that takes long may take, in seconds; see `Control.slow_logins`."""
RESOLVING = 30.0
"""For how long an outcome is asked for at least, in seconds."""
FINDING = 1.5
"""How long it may take to find a new writer, from when it was noticed that the former one is gone, in seconds."""
HEARD = 2.0
"""Within so many seconds after it came back an instance has been heard, in seconds."""
TURNS = (WriterSuspected, WriterConfirmed, WriterChanged)
"""Events that begin and end a search for the writer."""
GAP = 0.01
"""A pause between two silences that is shorter lets no answer through, in seconds."""


STORM = 80, 4.0
"""So many suspicions of the writer in so many seconds are a storm: each of a few connects brings one a second."""


class Violation(AssertionError):
    """A promise was broken."""


def overlap(spans: Any, since: float, until: float) -> float:
    """Seconds of [since, until] within spans."""
    return sum(max(0.0, min(until, b) - max(since, a)) for a, b in spans)


def joined(spans: Any) -> list[tuple[float, float]]:
    """Spans that follow each other, or overlap, as one: too little passes in between."""
    whole: list[tuple[float, float]] = []
    for span in sorted(map(tuple, spans)):
        if whole and span[0] - whole[-1][1] < GAP:
            whole[-1] = whole[-1][0], max(span[1], whole[-1][1])
        else:
            whole.append(span)
    return whole


class Judge:
    """Sees everything that clients see.

    Attributes:
        reported: transaction -> "acked", "failed" or "unknown".
        seen: process -> number of the latest promotion that it knows of.
    """

    def __init__(self, control: Control, *, calm: bool) -> None:
        self.control, self.calm = control, calm
        self.clock = control.clock
        self.reported: dict[int, str] = {}
        self.why: dict[int, BaseException] = {}
        self.seen: dict[Process, int] = {}
        self._seen_before: dict[Process, tuple[float, int]] = {}  # the last change of that: when, and what it was
        self._suspicions: dict[Process, deque[float]] = {}
        self._read: dict[Process, int] = {}
        self._waited: dict[tuple[Process, Any, float], bool] = {}
        self._overtaken: dict[tuple[Process, Any], float] = {}  # when a later writer than that one became known
        self.broken: Violation | None = None  # by a monitor, which would end of it
        self.resolvable: set[int] = set()  # unknown, though there was time to ask and to be answered
        self.own_endings: set[int] = set()
        self.lost_endings: set[int] = set()

    # ------------------------------------------------------------ events

    def listen(self, process: Process) -> None:
        """Look at what a process learned since the last time."""
        broken, self.broken = self.broken, None
        if broken is not None:
            raise broken
        start = self._read.get(process, 0)
        for at, _, event in process.events[start:]:
            self._heard(process, at, event)
        self._read[process] = len(process.events)

    def _heard(self, process: Process, at: float, event: Any) -> None:
        lacking = "aurora_instance_host" in process.options
        if isinstance(event, WriterSuspected):
            self._suspected(process, at)
        refused = any(begin <= at for each in self.control.servers.values() for begin, _ in each.refusing)
        if isinstance(event, MonitorLockedOut) and lacking and not refused and self.control.store.password == "first":
            raise Violation(f"at {at:.3f} the monitor gave up: {event}")
        if not self._concerns(event):
            return
        if isinstance(event, WriterChanged):
            reign = self._reign(event.new, at)
            if reign < self.seen.get(process, -1):
                raise Violation(f"at {at:.3f} {event.new} was accepted, though a later writer was known")
            self._found(process, at, event.new)
            self._seen_before[process] = at, self.seen.get(process, -1)
            self.seen[process] = reign
            if event.old is not None:
                self._overtaken[process, self.control.named(event.old)] = at
        elif isinstance(event, ConnectionsCut) and event.reason.startswith("hung"):
            self._hung(process, at, event)
        if self.calm and isinstance(event, (ConnectionsCut, WriterSuspected, InstanceFailed)):
            raise Violation(f"a false alarm at {at:.3f}: {event}")

    def _suspected(self, process: Process, at: float) -> None:
        """The pauses of connects that wait grow, so that they do not make the monitor ask all without an end."""
        times = self._suspicions.setdefault(process, deque(maxlen=STORM[0]))
        times.append(at)
        if len(times) == STORM[0] and at - times[0] < STORM[1]:
            raise Violation(f"the writer was suspected {STORM[0]} times in {at - times[0]:.1f} s, until {at:.3f}")

    def _found(self, process: Process, at: float, id_: str) -> None:
        """A new writer was accepted: soon, once it is looked for, where nothing else is wrong with the cluster."""
        writer = self.control.named(id_)
        reigns = [(time, each) for time, each in self.control.history if time <= at]
        turns = [(time, each) for time, _, each in process.events if time < at and isinstance(each, TURNS)]
        if (
            reigns[-1][1] is not writer
            or len(reigns) == 1
            or not turns
            or not isinstance(turns[-1][1], WriterSuspected)
        ):
            return
        (_, former), (promoted, _) = reigns[-2:]
        if not process.monitored or overlap(process.threadless, promoted, at) or self.names_failed(promoted):
            return
        refused = any(isinstance(each, MonitorLockedOut) and time > promoted - 60.0 for time, _, each in process.events)
        if not self.control.is_placed(writer) or refused:
            return  # it cannot be asked, or is asked rarely
        joined_at = [time for time, _, each in process.events if isinstance(each, InstanceAdded) and each.id == id_]
        if joined_at and joined_at[-1] > promoted:
            return  # it was not known before, so that only the given names may lead to it
        deaf = [*process.mute, *process.starved, *process.stalled]
        unsent = self.control.harbour.unsent.items()
        deaf += [span for (each, _), those in unsent if each is process for span in those]
        is_troubled = overlap([*deaf, *self._trouble(writer)], promoted, at) > 0.0
        self._proved(process, at, writer, promoted, is_troubled=is_troubled)
        if overlap([*writer.harmed, *deaf], promoted - HEARD, promoted) > 0.0:
            return  # it had just come back, so that it may not have been heard as a reader
        others = [each for each in self.control.servers.values() if each not in {writer, former}]
        news = [each for time, _, each in process.events if time > promoted]
        refused_of = {each.observer for each in news if isinstance(each, AnswerRefused)}
        known = process.known() - {each.id for each in news if isinstance(each, InstanceAdded)}
        if id_ in refused_of and not known & {each.id for each in others}:
            return  # all others have just joined, so that it may have moved: only the given names lead on
        since = max(promoted, turns[-1][0])
        spans = [*deaf, *self._trouble(writer)]
        spans += [span for each in others for span in self._trouble(each)]
        bound = FINDING + self.control.cluster.late
        if at - since > bound and not overlap(spans, promoted, at):
            raise Violation(f"at {at:.3f} {writer.id} was accepted, {at - since:.2f} s after it could be")

    def _proved(self, process: Process, at: float, writer: Any, promoted: float, *, is_troubled: bool) -> None:
        """A new writer of Aurora's can prove by itself that it is not fenced, whatever the other instances do."""
        turns = [time for time, _, each in process.events if time < at and isinstance(each, TURNS)]
        accepted = [time for time, _, each in process.events if time < at and isinstance(each, WriterChanged)]
        since = max(promoted, turns[-1], accepted[-1] + ROW_AGE_SECONDS)
        bound = FINDING + ADVANCE_SECONDS + self.control.cluster.late
        if self.control.store.aurora and at - since > bound and not is_troubled:
            raise Violation(
                f"at {at:.3f} {writer.id} was accepted, {at - since:.2f} s after it could prove that it is it"
            )

    @staticmethod
    def _trouble(server: Any) -> list[list[float]]:
        """Spans of time in which anything was wrong with a server."""
        answers = [*server.stale, *server.odd, *server.logins, *server.refusing, *server.deafness, *server.loaded]
        return [*answers, *server.harmed, *server.mute]

    def _concerns(self, event: Any) -> bool:
        """Whether an event is about an instance of this cluster."""
        id_ = getattr(event, "new" if isinstance(event, WriterChanged) else "id", "")
        return not id_.startswith("bills-")

    def _reign(self, id_: str, at: float) -> int:
        server = self.control.named(id_)
        return max(
            (number for number, (time, each) in enumerate(self.control.history) if each is server and time <= at),
            default=-1,
        )

    def _hung(self, process: Process, at: float, event: ConnectionsCut) -> None:
        """A verdict of hung needs a silence as long as a ping may take; a load may have kept an answer back before."""
        server, limits = self.control.named(event.id), self.limits(process)
        ping = min(limits.ping, 1.0) - 0.01
        dark = [*server.mute, *server.deafness, *process.mute]
        # What a load kept back until its end may be on its way when a silence begins, and is lost in it.
        loads = [[begin, end + GAP] for begin, end in server.loaded]
        silent = joined([*dark, *(load for load in loads if any(overlap([load], *each) for each in dark))])
        spans = [(a, b) for a, b in silent if b - a >= ping and b >= at - limits.lateness - 0.05]
        lost = overlap(dark, at - limits.ping - limits.lateness, at) > 0.0
        if limits.ping < 1.0:
            if not lost and not overlap(server.loaded, at - 1.0, at):
                raise Violation(f"{event} at {at:.3f}, and nothing was wrong with it")
            return
        began = at - limits.ping
        long = any(a <= at - ping or self._tries_lost(process, server, began, a) for a, _ in spans)
        if not (long or self._syn_lost(process, server, at, limits.ping)):
            raise Violation(f"{event} at {at:.3f}, and it was not silent for so long")

    def _syn_lost(self, process: Process, server: Any, at: float, ping: float) -> bool:
        """Whether the network was dark when the ping began: a SYN that is lost is sent again after a second."""
        dark = [*process.mute, *server.darkness]
        return any(a <= at - ping + 0.3 and b >= at - ping - 0.3 for a, b in dark)

    def _tries_lost(self, process: Process, server: Any, began: float, until: float) -> bool:
        """Whether all tries of a ping that began before some time were dials whose SYN got lost."""
        lost = self.control.harbour.lost_at.get((process, server), ())
        apart = self.limits(process).ping / TRIES
        tries = [began + number * apart for number in range(TRIES) if began + number * apart < until]
        return all(any(abs(each - at) < GAP for at in lost) for each in tries)

    @staticmethod
    def limits(process: Process) -> Limits:
        """How soon a process notices a hang."""
        return {
            "aggressive": Limits(0.15, 0.25),
            "patient": Limits(5.0, 10.0),
        }.get(process.options.get("aurora_profile", ""), Limits(1.0, 1.0))

    # ------------------------------------------------------------ connections

    def handed(self, process: Process, conn: Conn, role: str, began: float) -> None:
        """A connection was handed out, by a connect that began then, or by a pool (None)."""
        self.listen(process)
        self._of(self.control, conn)
        seen = self._seen_until_now(process)
        zombie = conn.standby is False and self.control.reign(conn.server) < seen
        if role == "reader" and zombie and conn.server.instance.writer:
            raise Violation(f"{conn.server.id}, a former writer that does not know it, was handed out as a reader")
        if role == "writer":
            if conn.standby:
                raise Violation(f"a reader was handed out as the writer: {conn.server.id}")
            if self.control.reign(conn.server) < seen:
                raise Violation(f"{conn.server.id} was handed out as the writer, and a later one was known")

        elif self._lag(process, conn) > process.options.get("aurora_max_lag", float("inf")) + SLACK:
            raise Violation(f"{conn.server.id} was handed out with a lag of {conn.server.instance.lag:.1f} s")

    def _seen_until_now(self, process: Process) -> int:
        """The latest promotion that a process knew of before this instant: what is learned in it is no sooner."""
        at, before = self._seen_before.get(process, (-1.0, -1))
        return before if at == self.clock.now else self.seen.get(process, -1)

    def _lag(self, process: Process, conn: Conn) -> float:
        """By how much a server lags behind, as far as its readers know."""
        return 0.0 if conn.server.instance.writer or process.dark else conn.server.instance.lag

    @staticmethod
    def _of(control: Control, conn: Conn) -> None:
        if conn.cluster is not control.cluster:
            raise Violation(f"{conn.server.id} was handed out, and that is an instance of another cluster")

    def visited(self, process: Process, conn: Conn, control: Control) -> None:
        """A connection to the writer of the other cluster was handed out."""
        self.listen(process)
        self._of(control, conn)
        if conn.server is not control.writer:
            raise Violation(f"{conn.server.id} was handed out as the writer")

    def let_go(self, process: Process, conn: Conn) -> None:
        """A pool closes a connection: it is stale, or broken."""
        overtaken = conn.since <= self._overtaken.get((process, conn.server), -1.0)
        if not (conn.broken or conn.closed or overtaken) and self._sound(process, conn, conn.since):
            raise Violation(f"a connection to {conn.server.id} was taken for stale, and nothing was wrong with it")

    def cut(self, process: Process, conn: Conn) -> None:
        """The monitor cuts a connection; its next use raises what is wrong with that."""
        try:
            self._judge_cut(process, conn)
        except Violation as violation:
            self.broken = self.broken or violation

    def _judge_cut(self, process: Process, conn: Conn) -> None:
        now, limits = self.clock.now, self.limits(process)
        if self._sound(process, conn, conn.since):
            raise Violation(f"a connection to {conn.server.id} was cut at {now:.3f}, and nothing was wrong with it")
        deaf = overlap(conn.server.deafness, now - limits.ping, now) > 0.0
        ill = overlap([*conn.server.mute, *process.mute, *conn.server.harmed], now - limits.ping - 0.05, now) > 0.0
        open_ = [each for each in conn.server.instance.connections if each.process is process]
        heard = max((each.heard_at or 0.0 for each in open_ if each.result is not None), default=0.0)
        if deaf and not ill and not conn.session.dead and heard > now - limits.ping + 0.05:
            raise Violation(f"a connection to {conn.server.id} was cut at {now:.3f}, which answered at {heard:.3f}")
        if deaf and not ill and not conn.session.dead and self._has_session(process, conn.server, now - limits.ping):
            raise Violation(f"a connection to {conn.server.id} was cut at {now:.3f}, and nothing asked the session")
        if (process, conn.server, now) not in self._waited:
            self._waited[process, conn.server, now] = any(
                each.waiting and not each.unread for each in open_ if each.result is not None
            )
        if deaf and not ill and conn.unread and not self._waited[process, conn.server, now]:
            raise Violation(f"a connection to {conn.server.id} was cut at {now:.3f}, and its answer lay unread")

    @staticmethod
    def _has_session(process: Process, server: Any, since: float) -> bool:
        """Whether a process's monitor has an idle session with a server that it opened before some time."""
        sessions = [each.conn for each in server.sessions if not each.dead and each.idle]
        return any(each.by_monitor and each.process is process and each.since < since - 0.05 for each in sessions)

    def _sound(self, process: Process, conn: Conn, since: float) -> bool:
        """Whether nothing was wrong with a connection and its server since then, and its role is the same."""
        server, now = conn.server, self.clock.now
        spans = [*server.harmed, *process.mute, *server.deafness]
        if self.limits(process).ping < 1.0:
            spans += [*server.mute, *server.loaded]
        touched = any(a <= now and b >= since - 1.0 for a, b in spans) or process.loses > 0.0 or conn.lossy
        was_writer = conn.result is not None and conn.result.role is Role.WRITER
        return not touched and was_writer is (server is self.control.writer) and not conn.session.dead

    def writer_came(self, process: Process, conn: Conn, began: float) -> None:
        """A writer's connect ended: it does not wait for a dial that hangs when the new writer is known."""
        now, result, events = self.clock.now, conn.result, process.events
        slow_start, view = result.cluster.slow_start, result.cluster.view
        if not (process.monitored and self.control.is_placed(conn.server)):
            return
        if conn.relay is not None or (slow_start is not None and slow_start.row):
            return
        known = [at for at, _, each in events if isinstance(each, WriterChanged) and each.new == result.instance]
        if not known or known[-1] <= began or view.writer != result.instance:
            return
        late = now - known[-1]
        spans = [*conn.server.harmed, *conn.server.mute, *conn.server.loaded, *conn.server.deafness]
        spans += [*process.mute, *process.starved, *process.stalled, *conn.server.logins, *conn.server.refusing]
        # a second, after which the given names are asked as well, and what that takes
        bound = 1.0 + SLACK + self._resending(process, conn.server, known[-1])
        if late > bound and not overlap(spans, known[-1] - 0.5, now) and not self.names_failed(began):
            raise Violation(f"a writer's connect took {late:.2f} s after {conn.server.id} was known to be the writer")

    def _resending(self, process: Process, server: Any, since: float) -> float:
        """For how long after some time the monitor's SYN to a server that got lost was not sent again yet."""
        return max(0.0, self.control.harbour.resent_at.get((process, server), since) - since)

    def refused(self, process: Process, role: str, began: float, error: BaseException) -> None:
        """A connect failed."""
        self.listen(process)
        seconds = self.clock.now - began
        known = any(each.view.known for each in process.clusters)
        if isinstance(error, NameNotResolved) and not known and self.names_failed(began):
            return  # an alias of the user's own has to be followed once
        if not isinstance(error, RoutingError):
            raise Violation(f"a connect raised {error!r}") from error
        if self.calm or (known and seconds < 25.0):
            raise Violation(f"a connect to the {role} gave up after {seconds:.1f} s: {error}") from error

    def reader_came(self, process: Process, began: float, known: set[str]) -> None:
        """A reader's connect ended: it does not wait for a writer, and tries a silent instance once.

        Args:
            process: whose.
            began: when.
            known: names of the servers of which the process knew then; empty: it knew of none.
        """
        now = self.clock.now
        first = list(self.control.servers.values())[: self.control.first]
        if self.control.placed is not None:
            first = [each for each in first if each.id in self.control.placed]
        trouble = {
            each: [*each.harmed, *each.mute, *each.deafness, *each.logins, *each.refusing, *each.behind]
            for each in first
        }
        for each in first:
            if each.instance.writer:  # its rows alone may show that it is the writer again; a loaded one is spared
                trouble[each] += [*each.odd, *each.loaded]
            elif "aurora_max_lag" in process.options:  # its rows may lack its lag, which is unproven then
                trouble[each] += each.odd
                trouble[each] += [span for _, writer in self.control.history for span in writer.harmed]  # no proof then
        sound = [each for each in first if not overlap(trouble[each], began, now)]
        if not sound or (known and not any(self.control.is_named(each, id_) for each in sound for id_ in known)):
            return
        starts = [each.slow_start for each in process.clusters if each.slow_start is not None]
        if all(each.instance.writer for each in sound) and any(each.row or each.until > began for each in starts):
            return  # the writer stands in, and is spared
        spared = any(each.row or each.until > began or each.under_way for each in starts)
        promoted, writer = self.control.history[-1]
        is_new = promoted > began - FINDING and all(each is writer for each in sound)
        silent = sum(
            overlap([*each.mute, *each.deafness], began - 5.0, now) > 0.0 for each in self.control.servers.values()
        )
        others = overlap([*process.mute, *process.starved, *process.stalled], began, now)
        bound = (
            1.0
            + DIAL.get(process.options["aurora_profile"], 5.0) * silent
            + others
            + 3.0 * bool(others)
            + (8.0 if self.names_failed(began) else 0.0)
            + LOGIN * sum(overlap(each.logins, began, now) > 0.0 for each in self.control.servers.values())
            + FINDING * is_new  # no other one serves, and it has to be believed first
            + STAND_IN_PAUSE * spared  # the writer is waited for, before a reader that failed is tried again
        )
        if now - began > bound:
            raise Violation(f"a reader's connect took {now - began:.2f} s, for {bound:.2f} s at most")

    def names_failed(self, since: float) -> bool:
        """Whether the name server failed since then, or a moment before."""
        return overlap(self.names, since - 2.0, self.clock.now) > 0.0

    names: list[list[float]] = []  # noqa: RUF012 - replaced by each schedule

    # ------------------------------------------------------------ statements

    def ended(self, process: Process, conn: Conn, began: float, error: BaseException | None) -> None:
        """A statement ended."""
        self.listen(process)
        if error is not None and not self._to_blame(process, conn, began):
            raise Violation(f"a statement on {conn.server.id} failed, and nothing was wrong: {error!r}") from error
        if process.monitored:
            self._noticed(process, conn, began)

    def _to_blame(self, process: Process, conn: Conn, began: float) -> bool:
        limits, now = self.limits(process), self.clock.now
        since = conn.since - limits.noticed - 6.0
        spans = [*conn.server.harmed, *conn.server.deafness, *process.mute]
        if limits.ping < 1.0:
            spans += [*conn.server.mute, *conn.server.loaded]
        touched = any(a <= now and b >= since for a, b in spans)
        return not self.calm and (touched or process.loses > 0.0 or conn.lossy)

    def _noticed(self, process: Process, conn: Conn, began: float) -> None:
        """No connect waits for a silent instance for longer than is documented."""
        now, limits = self.clock.now, self.limits(process)
        if conn.relay is not None or overlap(process.threadless, began - 30.0, now):
            return
        for a, b in (*conn.server.mute, *process.mute):
            since = max(a, began)
            waited = min(now, b) - since
            starved = overlap([*process.starved, *process.stalled], since - 1.0, now)
            bound = limits.noticed + self._lengthened(process, conn) + SLACK + (starved + 4.0 if starved else 0.0)
            if waited > bound and b >= now and not self._is_unexamined(process, conn, since):
                raise Violation(f"a statement waited {waited:.2f} s for silent {conn.server.id}: {bound:.2f} s at most")

    def _lengthened(self, process: Process, conn: Conn) -> float:
        """By how much a ping of an instance may be longer, because dials of it waited long for a first byte."""
        silences = process.monitor_runtime._silences.get((conn.address, conn.port), ())
        latency = conn.result.cluster.loads([conn.result.instance])[conn.result.instance].latency or 0.0
        return max(0.0, USUAL_DIALS * max([*silences, latency]) - self.limits(process).ping)

    def _is_unexamined(self, process: Process, conn: Conn, since: float) -> bool:
        """Whether the monitor could not find out by then whether a path is direct.

        The connection was made after its last sample, its SYN was lost and not sent again yet, its dial was reset and
        not repeated yet, the server accepted no session or its login took long until then, or it has been silent since
        before that sample.
        """
        known = conn.result.cluster.state.paths.get((conn.address, conn.port))
        direct = conn.direct or (known is not None and known.direct)
        slow = LOGIN if overlap(conn.server.logins, conn.since, since) > 0.0 else 0.0
        hindered = [*conn.server.harmed, *conn.server.logins]
        opened = max([conn.since, *(b for a, b in hindered if b > conn.since and a <= b < since)])
        sampled = opened + self.limits(process).interval + SLACK + slow
        unsent = self.control.harbour.unsent.get((process, conn.server), ())
        resets = self.control.harbour.reset_at.get((process, conn.server), ())
        waits = [*unsent, *((at, at + UNANSWERED_SECONDS + SLACK) for at in resets)]
        was_silent = any(a < sampled and b >= since for a, b in conn.server.mute)
        return not direct and (since < sampled or was_silent or any(sent < since <= again for sent, again in waits))

    # ------------------------------------------------------------ transactions

    def transaction(self, number: int, error: BaseException | None) -> None:
        """A transaction came to an end, as it was reported to its client."""
        if error is None:
            self.reported[number] = "acked"
        elif isinstance(error, CommitOutcomeUnknown):
            self.reported[number] = "unknown"
            if self._acknowledging(self.clock.now - RESOLVING) > 1.0:
                self.resolvable.add(number)
        elif isinstance(error, (RoutingError, psycopg.Error)):
            self.reported[number] = "failed"
        else:
            raise Violation(f"a transaction raised {error!r}") from error
        if error is not None:
            self.why[number] = error
        if self.calm and error is not None:
            raise Violation(f"a transaction failed, and nothing was wrong: {error!r}") from error

    def _acknowledging(self, since: float) -> float:
        """Seconds since then in which so many servers were sound that one could acknowledge what it wrote."""
        needed, now = 1 if self.control.store.aurora else 2, self.clock.now
        spans = [
            joined([*each.harmed, *each.mute, *each.deafness, *each.refusing, *each.lonely])
            for each in self.control.servers.values()
        ]
        ends = {edge for those in spans for span in those for edge in span if since < edge < now}
        return sum(
            b - a
            for a, b in pairwise(sorted({since, now, *ends}))
            if sum(overlap(those, a, b) == 0.0 for those in spans) >= needed
        )

    def settle(self) -> None:
        """Hold all transactions against the log that survived."""
        legs = self.control.writer.log.legs
        for number, outcome in self.reported.items():
            found = legs[str(number), "1"], legs[str(number), "2"]
            allowed = {"acked": [(1, 1)], "failed": [(0, 0)], "unknown": [(0, 0), (1, 1)]}[outcome]
            if number in self.lost_endings and self.control.store.aurora and not self.control.store.witness:
                continue  # nothing proves anything there, and that it was a COMMIT is not known
            if number in self.own_endings:
                allowed = [(0, 0), (1, 1)]
            if found not in allowed:
                raise Violation(f"transaction {number} is {outcome}, and its legs are there {found} times") from (
                    self.why.get(number)
                )
        store = self.control.store
        if store.witness and (bad := sorted(self.resolvable)):
            raise Violation(f"transaction {bad[0]} is unknown, though there is a witness") from self.why[bad[0]]
