"""Attaching to a driver's own error what happened to the instance of its connection, whatever the driver."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

from aurora_router.model.incident import Incident
from aurora_router.model.instance import Role
from aurora_router.policy.incidents import note

if TYPE_CHECKING:
    from aurora_router.flow.cluster import Cluster


def attach_incident(
    cluster: Cluster,
    error: Exception,
    *,
    instance: str | None,
    generation: int,
    role: Role,
    lost: bool,
    is_evidence: bool,
    cut: str | None,
) -> None:
    """Attach an `Incident` to an error, and let the monitor look at what it may mean.

    The error stays the same object; it gets the attribute ``incident`` and a note (Python 3.10: in its text).

    Args:
        cluster: the cluster of its instance.
        error: the error.
        instance: the id of its instance; None: it is not known.
        generation: the instance's generation when the connection was made.
        role: the instance's role at that time.
        lost: whether the connection was lost; else a write was refused.
        is_evidence: whether that may be because of the instance, and not of the session alone.
        cut: why this library cut the connection; None: it did not.
    """
    now = time.monotonic()
    if lost and is_evidence and instance is not None:
        cluster.suspect_writer(f"a connection to {instance} broke", now)
    elif not lost and role is Role.WRITER and is_evidence:
        cluster.record_refused_write(instance or "", generation, now)
    view = cluster.view
    known = view.instances.get(instance or "")
    incident = Incident(
        cluster=cluster.name,
        instance=instance,
        role_before=None if role is Role.UNKNOWN else role,
        role_now=None if known is None else known.role,
        writer_now=view.writer,
        cut=cut,
        lost=lost,
        events=tuple((now - at, event) for at, event in cluster.state.trail),
    )
    incident = replace(incident, text=note(incident))
    error.incident = incident  # type: ignore[attr-defined]
    _add_note(error, incident.text)


def _add_note(error: Exception, text: str) -> None:
    if sys.version_info >= (3, 11):
        error.add_note(text)
        return
    # Its text is the last of its arguments that is one: the first may be a number.
    at = max((at for at, each in enumerate(error.args) if isinstance(each, str)), default=None)
    if at is None:
        error.args = (*error.args, text)
    else:
        error.args = (*error.args[:at], f"{error.args[at]}\n{text}", *error.args[at + 1 :])
