"""When a source of attributes is asked. Times are in seconds.

Theory. Such a source is an API that throttles by account, and every process of a service asks it. What it says seldom
changes, so it is asked when SQL shows that the set of instances or the writer changed, and otherwise every `INTERVAL`
on average. All processes see a failover at once: each draws one moment within the next `SPREAD`, which stands for all
changes that come until then; a process that had an answer less than `SPREAD` ago counts from the end of that time. Each
pause is drawn from a whole range, so processes that began together drift apart within a few rounds.

With n processes and c calls for one answer, that makes n · c / `INTERVAL` calls per second while all is well and
n · c / `SPREAD` after a failover, for `SPREAD`. For n = 10,000 and c = 2 these are 67 and 167.

Invariants: within `SPREAD` after an answer, no change leads to another question, whatever source users name meanwhile;
no change of the topology shortens the pause after a failure; after k failures in a row the next question is at least
min(`FIRST_PAUSE` · 2**(k - 1), `LONGEST_PAUSE`) / 2 away, or `FIRST_PAUSE` / 2 if users name another source meanwhile.
"""

from __future__ import annotations

import math
from dataclasses import replace

from aurora_router.frozen import frozen

INTERVAL = 300.0
"""Between two questions while nothing changes, on average."""
SPREAD = 120.0
"""Within which time after a change the source is asked."""
FIRST_PAUSE, LONGEST_PAUSE = 15.0, 600.0
"""The pause after a failure: doubled by each further one, up to the second, with jitter of a half, up and down."""
QUIET_FAILURES = 3
"""After so many failures in a row, people are advised of it; of one that lasts by its nature at once."""


@frozen
class DescribeSchedule:
    """When to ask next; each method returns the next value. `random` is of [0, 1).

    Attributes:
        next_at: when to ask, by the runtime's clock; at once before the first question.
        failures: how many questions failed since the last answer.
        answered_at: when the last answer came.
        has_changed: whether the topology has changed since, so that the next question is about that.
        shape: what of the topology an answer depends on: the ids of the instances, and the writer.
    """

    next_at: float = -math.inf
    failures: int = 0
    answered_at: float = -math.inf
    has_changed: bool = False
    shape: tuple[frozenset[str], str | None] | None = None

    def is_due(self, now: float) -> bool:
        """Whether to ask now."""
        return now >= self.next_at

    def see(self, shape: tuple[frozenset[str], str | None], now: float, random: float) -> DescribeSchedule:
        """Note the topology: a change of it is a reason to ask, unless the source fails."""
        if shape == self.shape:
            return self
        after = replace(self, shape=shape)
        if self.shape is None or self.failures or self.has_changed:
            return after
        return replace(after, next_at=max(now, self.answered_at + SPREAD) + SPREAD * random, has_changed=True)

    def want(self) -> DescribeSchedule:
        """Note that more is wanted than was asked for so far: ask at once, unless the source fails."""
        return self if self.failures else replace(self, next_at=-math.inf)

    def change_source(self, now: float) -> DescribeSchedule:
        """Note that another source is asked from now on: soon if the one before fails, else when it is time.

        Not at once: users of one process may name different sources, and connect in turns.
        """
        return replace(self, next_at=min(self.next_at, now + FIRST_PAUSE)) if self.failures else self

    def succeed(self, now: float, random: float) -> DescribeSchedule:
        """Note an answer."""
        next_at = now + INTERVAL * (0.5 + random)
        return replace(self, next_at=next_at, failures=0, answered_at=now, has_changed=False)

    def fail(self, now: float, random: float, *, lasting: bool) -> DescribeSchedule:
        """Note a failure; one that is `lasting` has the longest pause at once."""
        pause = LONGEST_PAUSE if lasting else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self.failures, 30))
        return replace(self, next_at=now + pause * (0.5 + random), failures=self.failures + 1)
