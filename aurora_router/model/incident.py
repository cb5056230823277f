"""What was known of an instance when a statement on a connection to it failed: a value, for the error's note."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aurora_router.model.event import Event
    from aurora_router.model.instance import Role

_LISTED = 5
"""How many events the text lists; the attribute has all of them."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What happened to the instance of a connection whose statement failed.

    Attributes:
        cluster: name of the cluster.
        instance: id of the instance; None behind a proxy, which does not report it.
        role_before: the instance's role when the connection was made; None: unknown.
        role_now: its role as last known; None: unknown, or it is not in the cluster any more.
        writer_now: id of the writer as last known; None while there is none.
        cut: why this library shut the connection down; None: it did not.
        lost: whether the connection was lost; False: the server refused a write (25006) and the connection lives.
        events: the last events of the cluster, oldest first, each with its age in seconds when the error was raised.
    """

    cluster: str
    instance: str | None
    role_before: Role | None
    role_now: Role | None
    writer_now: str | None
    cut: str | None
    lost: bool
    events: tuple[tuple[float, Event], ...] = ()

    def __str__(self) -> str:
        where = f"{self.instance or 'an unknown instance'} (cluster {self.cluster})"
        happened = f"the connection to {where} was lost" if self.lost else f"{where} refused to write"
        before, now, writer = _named(self.role_before), _named(self.role_now), self.writer_now or "none known"
        lines = [
            f"aurora-router: {happened}",
            f"role when the connection was made: {before}; now: {now}; writer now: {writer}",
        ]
        if self.cut is not None:
            lines.append(f"aurora-router cut the connection: {self.cut}")
        lines += [f"- {age:.3f} s before: {event}" for age, event in self.events[-_LISTED:]]
        return "\n".join(lines)


def _named(role: Role | None) -> str:
    return "unknown" if role is None else role.value
