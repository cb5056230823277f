"""How fast a process connects to a new writer after a failover, so that ten thousand of them do not trample it.

Theory. After a failover every process wants all of its connections back, from a server that can take only so many new
ones per second. What matters is that each process has *one* soon; its others can wait. So the first dial of a process
goes at once (spread over `FIRST_JITTER`), and of the others only `width` may be under way at the same time: 1 at
first, doubled with each success (which shows that there is room), halved by each sign of trouble: 53300 (no slot free),
a dial that timed out, or a handshake slower than `SLOW` times a usual one. After trouble a process dials nothing for a
time, with jitter, that grows with how long the server took (a second and more of it; the square of less) and with how
many troubles there were in a row: `SHARES`. One slow handshake may be a hiccup, which is over when it is answered: the
pause is as long as the handshake, and the next dial a probe. Where the others are the reason, the probe is slow as well
and the pauses become long; a quick one ends the row. What takes longer than `HICCUP` is not excused like that.

The more processes there are, the longer a handshake takes, the longer they pause: the queue of N processes at a server
of rate r settles where the pause that it calls for is ``1.6 N / r`` seconds, which keeps the server busy and lets no
dial time out.

A process that has no connection comes back sooner than one that has: each has to have one soon. Where it had one, a
single trouble may have been a hiccup however long it took, so it waits for as long as that dial took; and not at all
after a quick handshake of the monitor's, which shows that there is room. A dial that is slow because this process did
not attend to it (it had no CPU, its event loop was blocked) says nothing of the server.

A pause may outlast the connects that it holds back, and then no one would find out that the server has room again. So
near the end of its time, `HOLD`, a connect dials where fewer than `width` do, if the last trouble of its process is
about as long past as a usual connect goes on, `USUAL_PATIENCE`: even in the storm below, a process then dials only
every 25 s. What the outcome of a commit depends on, which no one can repeat, waits for less, `URGENT_HOLD`, and for
itself alone. These are few: the commits that were under way in the failover. If all did so, the server would be
trampled for ten minutes.

After `CALM` seconds without trouble, when no dial is under way, a slow start is over: what comes later is not of the
failover. The figures below are those with which `tests/simulation/storm.py` met its bounds.

Invariants (property tests): 1 <= width <= WIDEST; no dial is held back while none is under way and the pause is over,
so a slow start never deadlocks; a pause is at most `LONGEST`, and after a single slow handshake of up to `HICCUP`
seconds at most as long as that (`LEAST` where it is less); one without a connection never waits longer than one with.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_JITTER = 0.005
"""The first dial of a process is spread over so many seconds: no user notices, and listen queues do."""
WIDEST = 64
"""As wide as this a slow start holds no dial back in practice: it is over."""
SLOW = 4.0
"""A handshake that takes longer than this many times a usual one is trouble."""
LEAST_SLOW = 0.25
"""A handshake below this many seconds is never trouble, however quick others were."""
SHARES = (1.0, 8.0, 48.0)
"""A pause is at most so many times as long as the dial before it, if that took a second: after the first trouble, after
the second in a row, from the third on."""
HICCUP = 3.2
"""A dial of more seconds (a packet that is lost twice costs 3) is answered as if it were one further in its row."""
FIRST_SHARE = 32.0
"""The share for a process that has no connection yet, however long the dial took."""
LEAST = 0.5
"""A pause may be at least so long, in seconds, after a refusal that came at once."""
LONGEST_FIRST = (16.0, 16.0, 32.0, 64.0)
"""The longest pause of a process that has no connection yet: after its first trouble, after the second in a row, …"""
LONGEST = 90.0
"""The longest pause of all."""
LEAST_PART = 0.25
"""What the jitter leaves of a pause, at least: with half of it the processes' pauses go in waves."""
CALM = 30.0
"""So many seconds after the last trouble, or the failover, a slow start without a dial is over."""
HOLD = (0.7, 0.95)
"""After a part of its time between these two a connect may be held back by no pause any more."""
URGENT_HOLD = (0.4, 0.7)
"""The same where the outcome of a commit depends on it."""
USUAL_PATIENCE = 30.0
"""``aurora_failover_timeout`` of the default profile, in seconds."""


@frozen
class SlowStart:
    """How much of a process's reconnecting may go on at the moment; a value.

    Attributes:
        width: how many dials may be under way.
        under_way: how many are.
        until: the time by the runtime's clock, in seconds, before which none may begin.
        alone_until: the same for a process that has no connection.
        usual: how long a handshake takes when all is well, in seconds; None: nothing is known.
        first: whether the process has no connection yet.
        row: how many troubles there were one after the other, with no quick handshake between.
        known_at: when the last of them became known, in seconds by the runtime's clock.
    """

    width: int = 1
    under_way: int = 0
    until: float = 0.0
    alone_until: float = 0.0
    usual: float | None = None
    first: bool = True
    row: int = 0
    known_at: float = -math.inf

    @classmethod
    def begin(cls, now: float, random: float, usual: float | None = None) -> SlowStart:
        """A failover ended at `now`; `random` of [0, 1) spreads the first dials of many processes."""
        until = now + FIRST_JITTER * random
        return cls(until=until, alone_until=until, usual=usual)

    @property
    def over(self) -> bool:
        """Whether no dial needs to be held back any more."""
        return self.width >= WIDEST

    def is_expired(self, now: float) -> bool:
        """Whether the failover is long past: a small pool may have all of its connections before it is `over`."""
        return self.under_way == 0 and now >= self.until + CALM

    def wait(self, now: float, *, alone: bool = False) -> float | None:
        """Seconds until a dial may begin; None: not before another one has ended.

        Args:
            now: the time by the runtime's clock, in seconds.
            alone: whether the process has no connection.
        """
        if self.under_way >= self.width:
            return None
        return max(0.0, (self.alone_until if alone else self.until) - now)

    def releases_at(self, began: float, patience: float, random: float, *, is_urgent: bool) -> float:
        """When no pause holds back a connect any more, by the runtime's clock.

        Args:
            began: when its wait began.
            patience: how long it goes on from then on, in seconds.
            random: of [0, 1); the same for the whole wait.
            is_urgent: whether the outcome of a commit depends on it.
        """
        least, most = URGENT_HOLD if is_urgent else HOLD
        share = least + (most - least) * random
        own = began + share * patience
        return own if is_urgent else max(own, self.known_at + share * USUAL_PATIENCE)

    def add_dial(self) -> SlowStart:
        """A dial began."""
        return replace(self, under_way=self.under_way + 1)

    def record_success(self, seconds: float, now: float, random: float, *, attended: bool = True) -> SlowStart:
        """A dial that took `seconds` brought a connection; one that was slow is trouble, if it was `attended` to."""
        usual = seconds if self.usual is None else min(seconds, self.usual)
        settled = replace(self.remove_dial(), usual=usual, first=False)
        if settled.is_slow(seconds):
            return settled.record_trouble(seconds, now, random) if attended else settled
        return replace(settled, width=min(WIDEST, self.width * 2), row=0)

    def record_probe(self, seconds: float, now: float) -> SlowStart:
        """A dial of the monitor's took `seconds`; a quick one shows that there is room for a process without any."""
        return self if self.is_slow(seconds) else replace(self, row=0, alone_until=min(self.alone_until, now))

    def is_slow(self, seconds: float) -> bool:
        """Whether a dial of `seconds` is trouble."""
        return seconds > max(LEAST_SLOW, SLOW * (self.usual or 0.0))

    def record_failure(self, seconds: float, now: float, random: float) -> SlowStart:
        """A dial was refused a slot, or timed out, after `seconds`."""
        return self.remove_dial().record_trouble(seconds, now, random)

    def remove_dial(self) -> SlowStart:
        """A dial ended in a way that says nothing about room (refused, a wrong password, cancelled)."""
        return replace(self, under_way=max(0, self.under_way - 1))

    def record_trouble(self, seconds: float, now: float, random: float) -> SlowStart:
        """Half as wide, and nothing before a pause is over; what went on beside the last trouble is the same one."""
        row = max(1, self.row if now - seconds < self.known_at else self.row + 1)
        after = replace(self, width=max(1, self.width // 2), row=row, known_at=now)
        part = random if self.first else LEAST_PART + (1.0 - LEAST_PART) * random
        pause = after.pause(seconds) * part
        alone = max(LEAST, seconds) if row == 1 else after.first_pause(seconds) * random
        return replace(after, until=now + pause, alone_until=now + (pause if self.first else min(pause, alone)))

    def pause(self, seconds: float) -> float:
        """The longest pause that the last trouble, a dial of `seconds`, calls for, in seconds."""
        if self.first:
            return self.first_pause(seconds)
        share = _of(SHARES, self.row + (seconds > HICCUP))
        return max(LEAST, min(LONGEST, share * seconds * min(1.0, seconds)))

    def first_pause(self, seconds: float) -> float:
        """The same for a process that has no connection."""
        return max(LEAST, min(_of(LONGEST_FIRST, self.row), FIRST_SHARE * seconds))


@frozen
class DialLimit:
    """Whether dials of the writer are limited, and how; each method returns the next value.

    Attributes:
        epoch: the writer's epoch for which nothing has to begin any more: the first, or that of the last slow start.
        slow_start: the slow start of that epoch; None: its dials are not limited (any more).
    """

    epoch: int = 1
    slow_start: SlowStart | None = None

    def is_due(self, epoch: int) -> bool:
        """Whether a slow start has to begin before a writer of this epoch is dialled."""
        return epoch > self.epoch

    def begin(self, epoch: int, slow_start: SlowStart) -> DialLimit:
        """Begin the slow start of a new writer."""
        return DialLimit(epoch, slow_start)

    def end(self, slow_start: SlowStart) -> DialLimit:
        """End a slow start that has expired, unless it has changed meanwhile."""
        return replace(self, slow_start=None) if self.slow_start is slow_start else self

    def add_dial(self) -> DialLimit:
        """A dial began; it counts only in a slow start."""
        return self if self.slow_start is None else replace(self, slow_start=self.slow_start.add_dial())

    def end_dial(self, epoch: int, follow: Callable[[SlowStart], SlowStart]) -> DialLimit:
        """A dial of a writer of `epoch` ended; one of a former writer shows nothing about the present one."""
        if epoch != self.epoch or self.slow_start is None:
            return self
        following = follow(self.slow_start)
        return replace(self, slow_start=None if following.over else following)

    def record_probe(self, epoch: int, seconds: float, now: float) -> DialLimit:
        """The monitor dialled a writer of `epoch` within `seconds`; see `SlowStart.record_probe`."""
        if epoch != self.epoch or self.slow_start is None:
            return self
        return replace(self, slow_start=self.slow_start.record_probe(seconds, now))


def _of(figures: tuple[float, ...], row: int) -> float:
    """The figure for the last of `row` troubles in a row."""
    return figures[min(row, len(figures)) - 1]
