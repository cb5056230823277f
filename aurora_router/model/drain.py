"""Drains: which instances an operator takes out of use for a while, as the cluster itself reports it.

A drain is a note in the cluster's shared catalog, so every process that reads the topology reads it, in each database
and without a grant. It is text that a user with CREATEROLE can write: what cannot be read as a note is left out.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TEXT = 1 << 16
"""Characters of notes that are read; more is none of ours."""
MAX_REASON = 200
"""Characters of a reason that are kept."""
_MAX_ID = 255
"""Characters of an instance's id: a host name and a port at most."""


@frozen
class DrainNote:
    """A note of a drain, as it is written down.

    Attributes:
        instance: the id of the instance, in lower case.
        since: when it began, in seconds since 1970 by the server's clock.
        until: when it is over by itself, by the same clock.
        reason: for people.
    """

    instance: str
    since: float
    until: float
    reason: str = ""


@frozen
class Drain:
    """A drain, as a view has it.

    Attributes:
        until: when it is over by itself, by the runtime's clock in seconds.
        reason: for people.
    """

    until: float
    reason: str = ""


def write_notes(notes: Iterable[DrainNote]) -> str:
    """Write notes as the text that `read_notes` reads."""
    return json.dumps([asdict(each) for each in notes], ensure_ascii=False)


def read_notes(text: str | None) -> tuple[DrainNote, ...]:
    """Read the notes in a text; what is none is left out, and so is a whole text that is too long."""
    if text is None or len(text) > MAX_TEXT:
        return ()
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    notes = (_read_note(each) for each in found) if isinstance(found, list) else ()
    return tuple(each for each in notes if each is not None)


def _read_note(found: Any) -> DrainNote | None:
    if not isinstance(found, dict):
        return None
    instance, since, until = found.get("instance"), _seconds(found.get("since")), _seconds(found.get("until"))
    if not isinstance(instance, str) or not 0 < len(instance) <= _MAX_ID or since is None or until is None:
        return None
    reason = found.get("reason")
    return DrainNote(instance.lower(), since, until, reason[:MAX_REASON] if isinstance(reason, str) else "")


def _seconds(value: Any) -> float | None:
    """A finite number of seconds; None: it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def read_report(text: str | None) -> tuple[tuple[DrainNote, float], ...]:
    """Read what a server reports: its clock in seconds since 1970, a blank, and the text of the notes.

    Returns:
        Each note of a drain that is not over yet, and for how many seconds it goes on. The server's clock is compared
        with what was written by a server's clock, never with that of this process.
    """
    clock, _, written = (text or "").partition(" ")
    try:
        now = float(clock)
    except ValueError:
        return ()
    return tuple((note, note.until - now) for note in read_notes(written) if note.until > now)
