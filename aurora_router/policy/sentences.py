"""What the log says of events: a sentence for each, and the same thing once.

Theory. One outage makes thousands of events: every probe and every connect that fails is one. A person needs two lines,
one when an instance fails and one when it is back. So the level of a sentence depends on what was said before: a
failure is loud unless the instance is known to have failed, a return is loud if the failure was, and anything else is
loud once in `QUIET_SECONDS`. An instance that fails again within that time is news if the reason is another one. What
is not said loudly is said at DEBUG.

A change of the writer is measured by the last writer that was known, also if that was lost or forgotten meanwhile: the
first writer of all is no news, another one is. A claim that is refused is none either, unless it keeps a search going.

Invariant: a journal remembers at most `MOST` subjects, however many instances a process meets.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from aurora_router.model.event import (
    AnswerRefused,
    ClaimRefused,
    ConfigurationAdvice,
    ConnectionsCut,
    DrainEnded,
    DrainStarted,
    Event,
    HangRefuted,
    HangSuspected,
    InstanceAdded,
    InstanceFailed,
    InstanceRecovered,
    InstanceRemoved,
    MonitorLockedOut,
    ProcessStalled,
    RoleChanged,
    WriterChanged,
    WriterConfirmed,
    WriteRefused,
    WriterLost,
    WriterSuspected,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

QUIET_SECONDS = 60.0
"""The same thing is loud again after so long."""
LONG_SEARCH_SECONDS = 2.0
"""A search for the writer that lasts so long says which claim is not believed, and why."""
MOST = 256
"""How many subjects a journal remembers."""


class Level(enum.IntEnum):
    """How loud, with the numbers of `logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30


class Line(NamedTuple):
    """What is to be said of one event.

    Attributes:
        level: how loud, if it was not said before.
        sentence: what happened, to which instance.
        subject: what counts as the same thing; None: this is always news.
    """

    level: Level
    sentence: str
    subject: str | None = None


class Journal(NamedTuple):
    """What was said of one cluster; a value.

    Attributes:
        said: when each subject was last loud, in seconds of the monotonic clock.
        since: since when the writer has been suspected; None: it is not.
        writer: the last writer that was known; None: there was none.
        is_lost: whether that one was said not to be the writer any more.
    """

    said: Mapping[str, float] = MappingProxyType({})
    since: float | None = None
    writer: str | None = None
    is_lost: bool = False

    def is_down(self, instance: str) -> bool:
        """Whether an instance was said to have failed, and not to be back."""
        failed = self.said.get(f"failed {instance}")
        return failed is not None and self.said.get(f"back {instance}", -1.0) < failed


def report(journal: Journal, event: Event, now: float) -> tuple[Journal, Level, str]:
    """Decide what the log says of an event, and how loud; returns the next journal too."""
    suspected_for = None if journal.since is None else now - journal.since
    level, sentence, subject = _describe_after(journal, event, suspected_for)
    if isinstance(event, WriterSuspected):
        journal = journal._replace(since=now)
    elif isinstance(event, WriterConfirmed):
        journal = journal._replace(since=None)
    elif isinstance(event, WriterChanged):
        journal = journal._replace(writer=event.new, is_lost=False)
    elif isinstance(event, WriterLost):
        journal = journal._replace(writer=event.id, is_lost=True)
    if subject is None or level is Level.DEBUG:
        return journal, level, sentence
    kind = f"{subject}: {event.reason}" if isinstance(event, InstanceFailed) else subject
    if isinstance(event, InstanceRecovered):
        is_loud = journal.is_down(event.id)
    else:
        said = journal.said.get(kind)
        is_loud = said is None or now - said >= QUIET_SECONDS
        is_loud = is_loud and not (isinstance(event, InstanceFailed) and journal.is_down(event.id))
    if not is_loud:
        return journal, Level.DEBUG, sentence
    kept = sorted({**journal.said, subject: now, kind: now}.items(), key=lambda each: each[1])[-MOST:]
    return journal._replace(said=MappingProxyType(dict(kept))), level, sentence


def describe(event: Event, suspected_for: float | None = None) -> Line:
    """Put one event into words.

    Args:
        event: what happened.
        suspected_for: for how long the writer has been suspected, in seconds; None: it is not.
    """
    line = _SENTENCES[type(event)](event)
    if isinstance(event, WriterChanged) and line.level is Level.WARNING and suspected_for is not None:
        return line._replace(sentence=f"{line.sentence} after {duration(suspected_for)}")
    return line


def _describe_after(journal: Journal, event: Event, suspected_for: float | None) -> Line:
    """Put one event into words, with regard to what happened before."""
    if isinstance(event, WriterChanged) and event.old is None and journal.writer is not None:
        if event.new != journal.writer:
            return describe(replace(event, old=journal.writer), suspected_for)
        if journal.is_lost:
            after = "" if suspected_for is None else f" after {duration(suspected_for)}"
            return Line(Level.WARNING, f"{event.new} is the writer again{after}", f"writer again {event.new}")
    line = describe(event, suspected_for)
    if isinstance(event, ClaimRefused) and suspected_for is not None and suspected_for >= LONG_SEARCH_SECONDS:
        searched = f"still looking for the writer after {duration(suspected_for)}"
        return Line(Level.INFO, f"{searched}: {line.sentence}", f"claim {event.claimed}")
    return line


def duration(seconds: float) -> str:
    """A length of time, as people read it."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1.0 else f"{seconds:.1f} s"


def _writer_changed(event: WriterChanged) -> Line:
    if event.old is None:
        return Line(Level.DEBUG, f"writer is {event.new}")
    return Line(Level.WARNING, f"writer is now {event.new} (was {event.old})")


def _claim_refused(event: ClaimRefused) -> Line:
    by = "itself" if event.observer in {None, event.claimed} else event.observer
    return Line(Level.DEBUG, f"{event.claimed}, named as the writer by {by}, is not accepted: {event.reason}")


def _cut(event: ConnectionsCut) -> Line:
    count = "1 connection" if event.count == 1 else f"{event.count} connections"
    return Line(Level.WARNING, f"{count} to {event.id} cut: {event.reason}", f"cut {event.id}")


def _describe_failure(event: InstanceFailed) -> Line:
    return Line(Level.WARNING, f"{event.id} failed: {event.reason}", f"failed {event.id}")


_SENTENCES: Mapping[type[Event], Callable[[Any], Line]] = {
    ConfigurationAdvice: lambda event: Line(Level.WARNING, event.text, f"advice {event.text}"),
    MonitorLockedOut: lambda event: Line(
        Level.WARNING,
        f"the monitor cannot ask the instances, so each connect looks by itself: {event.reason}",
        "locked out",
    ),
    AnswerRefused: lambda event: Line(
        Level.WARNING,
        f"{event.observer} seems to be of another cluster, and is not believed: {event.reason}",
        "foreign",
    ),
    ClaimRefused: _claim_refused,
    ConnectionsCut: _cut,
    WriterSuspected: lambda event: Line(Level.INFO, f"looking for the writer: {event.reason}", "suspected"),
    HangRefuted: lambda event: Line(
        Level.DEBUG, f"{event.id} answered a ping after {duration(event.seconds)}: it is busy, not hung"
    ),
    HangSuspected: lambda event: Line(Level.DEBUG, f"{event.id} is pinged: {event.waiting} connections wait for it"),
    DrainEnded: lambda event: Line(Level.INFO, f"{event.id} is not drained any more, and is used again"),
    DrainStarted: lambda event: Line(
        Level.INFO,
        f"{event.id} is drained for {duration(event.seconds)}{f' ({event.reason})' if event.reason else ''}: "
        "connections avoid it",
    ),
    InstanceAdded: lambda event: Line(Level.DEBUG, f"{event.id} is known now, as a {event.role.value}"),
    InstanceFailed: _describe_failure,
    InstanceRecovered: lambda event: Line(
        Level.WARNING, f"{event.id} is back after {duration(event.seconds)}", f"back {event.id}"
    ),
    InstanceRemoved: lambda event: Line(Level.DEBUG, f"{event.id} left the cluster"),
    RoleChanged: lambda event: Line(Level.DEBUG, f"{event.id} is now a {event.new.value} (was {event.old.value})"),
    WriterConfirmed: lambda event: Line(
        Level.INFO, f"{event.writer} confirmed that it is the writer, after {duration(event.seconds)}", "settled"
    ),
    ProcessStalled: lambda event: Line(
        Level.DEBUG, f"this process did not run for {duration(event.seconds)}: silence meanwhile counts for nothing"
    ),
    WriteRefused: lambda event: Line(Level.DEBUG, f"{event.id} refused a write of a connection to the writer"),
    WriterChanged: _writer_changed,
    WriterLost: lambda event: Line(
        Level.WARNING, f"{event.id} is no longer the writer, and no other is known yet", f"writer lost {event.id}"
    ),
}
