"""``aurora-router cluster clone|restore|branches``: what prints more than the result of one request."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.client.history import POINT
from aurora_router_cluster.commands import show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


class Add(Protocol):
    """Adds an action with what all of them have, and returns its parser."""

    def __call__(self, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        """See `cluster.ClusterCommand.configure`."""
        ...


def configure(add: Add) -> None:
    """Add the actions."""
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
    add("branches", _branches, "list the branches of the log, and the window that can be gone back to")


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
