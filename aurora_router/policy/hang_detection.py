"""When an instance is taken for hung: pure decisions over samples of connections and answers to pings.

Theory. A host that hangs or is cut off sends nothing, so nothing ever ends the wait of a client. What can be seen
without touching a statement is that a connection waits for the server in every sample. That alone proves nothing (a
long query, an idle COPY, many short queries), so it only raises a *suspicion*; one *ping* on a connection of its own
asks the instance. Any answer, also a refused login, clears it for `Limits.rest`.

Silence of the ping is not enough either. A new connection depends on more than the server's health: the postmaster may
stand still (a fork storm, a full accept queue) while the sessions that exist go on. So an instance lives if it *sent*
anything to this process on any connection while the ping was silent. The evidence is, in this order:

* the time at which the kernel received the last data (TCP_INFO on Linux). It counts bytes of the stream alone, so the
  acknowledgements and the answers to keepalive probes that the kernel of a frozen process still sends do not count;
  encrypted records do, whatever is in them. It is the kernel's clock, so it is right even where this process was not
  attending;
* bytes that arrived on a dial of the monitor's own, also one that did not end in time: a login may take a healthy
  server longer than a ping (LDAP, a login trigger). An accept is none: a frozen process's kernel accepts, too;
* where there is no such time (a Unix socket, another system): a connection that waited for the server in one sample and
  does not in the next.

A connection that was idle throughout proves nothing. Two cases cost time and no health: what a kernel had buffered
before its process froze is received later, and is taken for life until it is used up; a proxy that answers for its
server is alive itself, which is why hangs are looked for on direct paths alone (`policy.paths`).

A server that sent something is cleared until a grace after that: then a new ping decides. So a hang is noticed as soon
as without this rule: from the last byte on, grace and ping pass one after the other.

A client may be the one that stood still: starved of CPU, in a pause of the garbage collector, suspended. It sees its
own clock leap between two samples. Then it blames itself: all suspicions start again, and a ping whose wait was not
attended to does not count. Or only the user's part of it stands still (an event loop that is blocked, a cursor that is
not read): then the answer is there and waits to be read, and the connection does not wait for the server.

Invariants (property tests): nothing is cut without a ping that was silent for its whole deadline while this process
was awake and the instance sent nothing on any connection; an instance is pinged at most once at a time, and at most
once in `Limits.rest` while it answers; a hang is noticed within `Limits.noticed`, also by a process whose last ping was
answered, or whose other connections were served, a moment before.
"""

from __future__ import annotations

import enum
import math
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

REST_SECONDS = 1.0
"""Between two pings of an instance that answers, at most; with a shorter grace period it is asked again sooner."""
LEAST_LATENESS = 0.1
"""A sample that is late by less, in seconds, is everyday scheduling and no sign of starvation."""


class State(enum.Enum):
    """What the monitor suspects of one instance."""

    QUIET = "nothing suspicious"
    PINGING = "a ping is under way"
    RESTING = "it gave a sign of life, or was asked, a moment ago"


class Signal(enum.Enum):
    """What was found out."""

    SUSPECTED = "a connection waited in every sample of the grace period"
    ANSWERED = "the ping was answered, perhaps by a refusal"
    HEARD = "the instance sent something on another connection"
    SILENT = "nothing came until the ping's deadline, on any connection"
    STALLED = "this process itself did not run"
    RESTED = "the pause since the last ping is over"


class Action(enum.Enum):
    """What is to be done."""

    NOTHING = "nothing"
    PING = "ping the instance"
    CUT = "declare it hung and shut the sockets of its connections down"


TRANSITIONS: Mapping[tuple[State, Signal], tuple[State, Action]] = MappingProxyType(
    {
        (State.QUIET, Signal.SUSPECTED): (State.PINGING, Action.PING),
        (State.QUIET, Signal.HEARD): (State.RESTING, Action.NOTHING),
        (State.PINGING, Signal.ANSWERED): (State.RESTING, Action.NOTHING),
        (State.PINGING, Signal.HEARD): (State.RESTING, Action.NOTHING),
        (State.PINGING, Signal.SILENT): (State.RESTING, Action.CUT),
        (State.PINGING, Signal.STALLED): (State.RESTING, Action.NOTHING),
        (State.RESTING, Signal.RESTED): (State.QUIET, Action.NOTHING),
    }
)
"""(state, signal) -> (next state, what to do); a pair that is not here changes nothing."""


def step(state: State, signal: Signal) -> tuple[State, Action]:
    """The next state and what to do."""
    return TRANSITIONS.get((state, signal), (state, Action.NOTHING))


@frozen
class Limits:
    """How soon to suspect, and how long to listen; in seconds.

    Attributes:
        grace: a connection that waits for less is not suspicious.
        ping: how long a ping may take, its dial included.
    """

    grace: float
    ping: float

    def at_most(self, other: Limits) -> Limits:
        """The stricter of both values."""
        return Limits(min(self.grace, other.grace), min(self.ping, other.ping))

    @property
    def interval(self) -> float:
        """Between two samples: a quarter of the grace, at most a quarter of a second."""
        return min(self.grace / 4.0, 0.25)

    @property
    def rest(self) -> float:
        """Between two pings of an instance that answers."""
        return min(self.grace, REST_SECONDS)

    @property
    def lateness(self) -> float:
        """A sample that is later than this shows that this process was stalled."""
        return max(LEAST_LATENESS, min(self.grace, self.ping) / 4.0)

    @property
    def noticed(self) -> float:
        """Within how many seconds a hang is noticed, by a process that is awake."""
        return self.grace + self.interval + self.ping


DIALS = 3
"""How many of the last dials are remembered, by how long they waited for the first byte."""


def with_silence(known: tuple[float, ...], seconds: float) -> tuple[float, ...]:
    """What is remembered of the last dials after one more."""
    return (*known, seconds)[-DIALS:]


UNLIMITED = Limits(math.inf, math.inf)
"""Of a connection whose hangs are not to be noticed."""


@frozen
class Suspicion:
    """What the monitor suspects of one instance, as a value.

    Attributes:
        state: see `State`.
        until: when RESTING ends, by the runtime's clock.
    """

    state: State = State.QUIET
    until: float = 0.0

    def end_rest(self, now: float) -> Suspicion:
        """The same, with a rest that is over ended."""
        if self.state is State.RESTING and now >= self.until:
            return Suspicion(step(self.state, Signal.RESTED)[0])
        return self

    def after(self, signal: Signal, now: float, rest: float = REST_SECONDS) -> tuple[Suspicion, Action]:
        """What is thought after a signal, and what to do; `rest`: how long an answer clears an instance."""
        state, action = step(self.state, signal)
        if state is self.state:
            return self, action
        return Suspicion(state, now + rest if state is State.RESTING else 0.0), action


def read_silence(began: float, now: float, heard: float | None, *, stalled: bool) -> Signal:
    """What the silence of a ping means.

    Args:
        began: when the ping began.
        now: the time by the runtime's clock.
        heard: when the instance last sent anything to this process, on any connection; None: not known.
        stalled: whether this process was not attending in the meantime.
    """
    if heard is not None and began <= heard <= now:
        return Signal.HEARD
    return Signal.STALLED if stalled else Signal.SILENT


def rest_for(signal: Signal, heard: float | None, now: float, limits: Limits) -> float:
    """Seconds for which a signal clears an instance: after a sign of life, until a grace from then has passed."""
    if signal is Signal.HEARD and heard is not None:
        return max(0.0, heard + limits.grace - now)
    return limits.rest


def waiting_since(before: float | None, now: float, *, waits: bool, stalled: bool) -> float | None:
    """Since when a connection was seen waiting in every sample; None: it does not wait.

    Args:
        before: the answer at the last sample.
        now: the time by the runtime's clock.
        waits: whether it waits in this sample.
        stalled: whether this process was not attending since the last sample.
    """
    if not waits:
        return None
    return now if before is None or stalled else before


def is_suspicious(since: float | None, now: float, limits: Limits) -> bool:
    """Whether a connection has been waiting for the whole grace period."""
    return since is not None and now - since >= limits.grace
