"""``aurora-router cluster snapshot|snapshots|delete-snapshot|clone|restore|backtrack|forward|branches``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.commands import show
from aurora_router_cluster.storage.targets import FORMS

if TYPE_CHECKING:
    import argparse

    from aurora_router_cluster.client.history import BacktrackResult
    from aurora_router_cluster.commands.nodes import Add

POINT = FORMS.replace("%", "%%")


def configure(add: Add) -> None:
    """Add the sub-commands."""
    add("snapshot", _snapshot, "keep the present point by a name").add_argument("snapshot", help="the name")
    add("snapshots", _snapshots, "list the snapshots")
    add("delete-snapshot", _delete, "forget a snapshot").add_argument("snapshot", help="its name")
    cloning = add("clone", _clone, "start a new cluster with the data of now; it runs until `cluster down`")
    cloning.add_argument("new", help="name of the new cluster")
    restoring = add("restore", _restore, "start a new cluster with the data of a point; it runs until `cluster down`")
    restoring.add_argument("new", help="name of the new cluster")
    where = restoring.add_mutually_exclusive_group(required=True)
    where.add_argument("--to", metavar="POINT", help=POINT)
    where.add_argument("--snapshot", metavar="NAME", help="name of a snapshot")
    restoring.add_argument(
        "--branch", type=int, help="branch of the log that the point is on (default: the present one)"
    )
    for command in (cloning, restoring):
        command.add_argument("--readers", type=int, default=2, metavar="N", help="its readers (default: %(default)s)")
        command.add_argument("--data", metavar="DIR", help="keep its data in DIR, as cluster up --data does")
    backing = add("backtrack", _backtrack, "set the running cluster back; what was written since stays on its branch")
    backing.add_argument("to", metavar="POINT", help=POINT)
    forth = add("forward", _forward, "go to a point on a branch that was left by a backtrack")
    forth.add_argument("to", metavar="POINT", nargs="?", help=f"{POINT} (default: the end of that branch)")
    forth.add_argument("--branch", type=int, help="which (default: the one that the present branch continues)")
    add("branches", _branches, "list the branches of the log, and the window that can be gone back to")


def _snapshot(args: argparse.Namespace) -> None:
    made = LocalCluster.attach(args.name).history.snapshot(args.snapshot)
    show.result(
        args, f"snapshot {made.name} keeps {made.lsn} ({made.taken.isoformat(timespec='milliseconds')})", asdict(made)
    )


def _snapshots(args: argparse.Namespace) -> None:
    found = LocalCluster.attach(args.name).history.snapshots()
    lines = [f"{one.name:20} {one.lsn:>12} {one.taken.isoformat(timespec='milliseconds')}" for one in found]
    show.result(args, "\n".join(lines) or "there are no snapshots", [asdict(one) for one in found])


def _delete(args: argparse.Namespace) -> None:
    LocalCluster.attach(args.name).history.delete_snapshot(args.snapshot)
    show.result(args, f"snapshot {args.snapshot} is forgotten", {"deleted": args.snapshot})


def _clone(args: argparse.Namespace) -> None:
    _print_started(args, LocalCluster.attach(args.name).history.clone(args.new, **_options(args)))


def _restore(args: argparse.Namespace) -> None:
    history = LocalCluster.attach(args.name).history
    _print_started(
        args, history.restore(args.to, args.new, snapshot=args.snapshot, branch=args.branch, **_options(args))
    )


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """What a new cluster is started with."""
    return {"detach": True, "readers": args.readers, "data": args.data}


def _print_started(args: argparse.Namespace, cluster: LocalCluster) -> None:
    if args.json:
        show.line(json.dumps({**cluster.status().as_dict(), "connect": show.connections(cluster)}, indent=2))
    else:
        show.status(cluster.status())
        show.how_to_connect(cluster, detached=True)


def _backtrack(args: argparse.Namespace) -> None:
    _print_backtrack(args, LocalCluster.attach(args.name).history.backtrack(args.to))


def _forward(args: argparse.Namespace) -> None:
    _print_backtrack(args, LocalCluster.attach(args.name).history.forward(args.to, branch=args.branch))


def _print_backtrack(args: argparse.Namespace, done: BacktrackResult) -> None:
    text = (
        f"the cluster is at {done.lsn} on branch {done.branch}, its writer is {done.writer}; {done.set_aside} bytes of "
        f"log stay on branch {done.left}, up to {done.left_end} (cluster forward --branch {done.left})"
    )
    show.result(args, text, asdict(done))


def _branches(args: argparse.Namespace) -> None:
    history = LocalCluster.attach(args.name).history
    branches, (first, last) = history.branches(), history.window()
    lines = [f"{'branch':>6} {'from':>6} {'start':>12} {'end':>12}  left"]
    for one in branches:
        left = "-" if one.closed is None else one.closed.isoformat(timespec="milliseconds")
        lines.append(f"{one.number:>6} {one.parent or '-':>6} {one.start:>12} {one.end:>12}  {left}")
    lines.append(f"it can be gone to times from {first.isoformat()} to {last.isoformat()}")
    facts = {"earliest": first, "latest": last, "branches": [asdict(one) for one in branches]}
    show.result(args, "\n".join(lines), facts)
