"""The volume at one moment, as plain facts: what ``status --json`` shows of copies, quorum and positions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.storage.core.lsn import format_lsn, parse_lsn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router_cluster.storage.core.quorum import Membership
    from aurora_router_cluster.storage.driver import Driver
    from aurora_router_cluster.storage.members import Member

SHOWN_GROUPS = 32
"""Of how many protection groups, the newest ones, the PGCL is shown."""


def volume(driver: Driver, nodes: Iterable[Member]) -> dict[str, Any]:
    """Epoch, quorum state, positions, copies.

    Returns:
        ``quorum`` is ``write`` (commits go on), ``read`` (everything durable can be read, commits and failovers wait)
        or ``lost``; positions are LSNs as PostgreSQL writes them; ``pgcl`` is by number of the group.
    """
    tracker, charter = driver.tracker, driver.charter
    shown = [copy(driver, node) for node in nodes]
    present = {each["node"] for each in shown if each["state"] in {"complete", "behind", "joining"}}
    complete = tracker.complete()
    return {
        "epoch": driver.epoch,
        "quorum": quorum(charter.membership, present),
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
        ``failure`` says why), ``outside`` (it runs, but does not hold this epoch, or is no member), ``joining`` (does
        not count for reads yet), ``behind`` or ``complete``; ``lag``: bytes of log handed out that it has not
        acknowledged, by its highest SCL; ``behind``: groups of which it misses something.
    """
    about = node.describe()
    tracker, membership = driver.tracker, driver.charter.membership
    missing = tracker.behind(node.node)
    if not about["up"]:
        state = "down"
    elif about["failure"] is not None:
        state = "failed"
    elif node.node not in membership.members or about.get("epoch") != driver.epoch:
        state = "outside"
    elif node.node in membership.joining:
        state = "joining"
    else:
        state = "behind" if missing else "complete"
    lag = None if "scl" not in about else max(0, tracker.handed - parse_lsn(about["scl"])) if missing else 0
    return {**about, "state": state, "lag": lag, "behind": len(missing)}
