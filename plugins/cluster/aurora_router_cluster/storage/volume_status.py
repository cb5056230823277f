"""The volume at one moment, as plain facts: what ``status --json`` shows of copies, quorum and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.lsn import format_lsn, parse_lsn
from aurora_router_cluster.storage.members import EMPTY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.members import Member

STALLED = 1.0
"""Seconds without progress after which nodes that seem to be there are not taken for a write quorum any more."""
SHOWN_GROUPS = 32
"""Of how many protection groups, the newest ones, the PGCL is shown."""


def volume(driver: Driver, nodes: Iterable[Member]) -> dict[str, Any]:
    """Epoch, quorum state, positions, copies.

    Returns:
        ``quorum`` is ``write`` (commits go on), ``read`` (everything durable can be read, commits and failovers wait)
        or ``lost``; ``stalled``: seconds since when commits wait though enough nodes seem to be there, else None;
        positions are LSNs as PostgreSQL writes them; ``pgcl`` is by number of the group.
    """
    tracker, charter = driver.tracker, driver.charter
    shown = [copy(driver, node) for node in nodes]
    present = {each["node"] for each in shown if each["state"] in {"complete", "behind", "joining"}}
    complete = tracker.complete()
    enough = quorum(charter.membership, present)
    stalled = driver.stalled_for if enough == "write" else 0.0
    return {
        "epoch": driver.epoch,
        "quorum": "read" if stalled > STALLED else enough,
        "stalled": round(stalled, 1) if stalled > STALLED else None,
        "received_lsn": format_lsn(tracker.received),
        "vcl": format_lsn(tracker.vcl),
        "vdl": format_lsn(tracker.vdl),
        "groups": max(len(complete), 1),
        "pgcl": {str(group): format_lsn(complete[group]) for group in sorted(complete)[-SHOWN_GROUPS:]},
        "branch": charter.line.number,
        "membership": charter.membership.to_json(),
        "timelines": [{"tli": t.tli, "start": format_lsn(t.start), "epoch": t.epoch} for t in charter.timelines],
        "nodes": shown,
    }


def quorum(membership: Membership, present: set[int]) -> str:
    """What the nodes that are there are enough for: ``write``, ``read`` or ``lost``."""
    if membership.writes(present):
        return "write"
    return "read" if membership.reads(present) else "lost"


def copy(driver: Driver, node: Member) -> dict[str, Any]:
    """One storage node.

    Returns:
        What the node reports, and ``state``: ``down``, ``failed`` (its disk takes nothing, so that it is absent;
        ``failure`` says why), ``empty`` (a member whose files are gone; ``failure`` says what to do), ``outside`` (it
        runs, but does not hold this epoch, or is no member), ``joining`` (does not count for reads yet), ``behind`` or
        ``complete``; ``lag``: bytes of log handed out that it has not
        acknowledged, by its highest SCL; ``behind``: groups of which it misses something.
    """
    about = node.describe()
    tracker, membership = driver.tracker, driver.charter.membership
    missing = tracker.behind(node.node)
    if not about["up"]:
        state = "down"
    elif about["failure"] is not None:
        state = "failed"
    elif node.empty and node.node in membership.members:
        about["failure"] = f"node {node.node}: {EMPTY}: cluster replace-node {node.node}"
        state = "empty"
    elif node.node not in membership.members or about.get("epoch") != driver.epoch:
        state = "outside"
    elif node.node in membership.joining:
        state = "joining"
    else:
        state = "behind" if missing else "complete"
    lag = None if "scl" not in about else max(0, tracker.handed - parse_lsn(about["scl"])) if missing else 0
    return {**about, "state": state, "lag": lag, "behind": len(missing)}
