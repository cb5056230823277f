"""An incident in words: the note of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.policy.sentences import describe, duration

if TYPE_CHECKING:
    from aurora_router.model.incident import Incident
    from aurora_router.model.instance import Role

LISTED = 5
"""How many events the note lists; the incident has all of them."""


def note(incident: Incident) -> str:
    """What happened to the instance of a connection, in a few lines, the last events of its cluster among them."""
    where = f"{incident.instance or 'an unknown instance'} (cluster {incident.cluster})"
    if incident.cut is not None:
        happened = f"this library cut the connection to {where}: {incident.cut}"
    else:
        happened = f"the connection to {where} was lost" if incident.lost else f"{where} refused to write"
    before, now = _describe_role(incident.role_before), _describe_role(incident.role_now)
    writer = incident.writer_now or "none"
    if incident.lost and writer == incident.instance:
        writer += ", where this connection was lost; no other one is known yet"
    lines = [
        f"aurora-router: {happened}",
        f"role when the connection was made: {before}; as last known: {now}",
        f"writer as last known: {writer}",
    ]
    lines += [f"- {duration(age)} before: {describe(event).sentence}" for age, event in incident.events[-LISTED:]]
    return "\n".join(lines)


def _describe_role(role: Role | None) -> str:
    return "unknown" if role is None else role.value
