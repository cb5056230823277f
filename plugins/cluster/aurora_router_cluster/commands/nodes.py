"""``aurora-router cluster node-down|node-up|replace-node|replace-zone|scrub|repair``: the storage nodes."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.commands import show

if TYPE_CHECKING:
    from collections.abc import Callable


OPTIONS = ("isolated", "segment_size", "base_interval", "base_bytes", "scrub_interval")
"""What `configure_up` adds, by the names of `options.ClusterOptions`."""


class Add(Protocol):
    """Adds a sub-command with what all of them have, and returns its parser."""

    def __call__(self, name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        """See `cluster.ClusterCommand.configure`."""
        ...


def configure(add: Add) -> None:
    """Add the sub-commands."""
    for name, run, text in (
        ("node-down", _down, "take a storage node down, as the loss of its machine"),
        ("node-up", _up, "bring a storage node up again; its peers fill in what it missed"),
        ("replace-node", _replace, "put a new storage node in the place of one, dead or alive, under load"),
    ):
        add(name, run, text).add_argument("node", type=int, help="its number")
    zone = add("replace-zone", _replace_zone, "put new storage nodes in the places of all of a zone's, under load")
    zone.add_argument("zone", help="availability zone, e.g. eu-test-1a")
    add("scrub", _scrub, "read the storage nodes' disks and refill from their peers what is damaged")
    text = "with three of six storage nodes gone for good, form a new membership from the others"
    add("repair", _repair, text).add_argument("--force", action="store_true", help="give the lost nodes up")


def configure_up(parser: argparse.ArgumentParser) -> None:
    """Add the options with which the storage of a new cluster is started."""
    add = parser.add_argument
    add("--isolated", action="store_const", const=True, help="give each of the six storage nodes a process of its own")
    add("--segment-size", type=segment_size, metavar="SIZE",
        help="stripe the volume over protection groups of this size, e.g. 64MiB (default: one group)")  # fmt: skip
    add(
        "--base-interval",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="between two bases in the storage, below which log is forgotten; 0: none by time (default: %(default)s)",
    )
    add(
        "--base-bytes",
        type=segment_size,
        default=128 << 20,
        metavar="SIZE",
        help="of log after which a base is taken at once; 0: none by size (default: 128MiB)",
    )
    add("--scrub-interval", type=float, default=3600.0, metavar="SECONDS",
        help="between two scrubs of the storage nodes' disks; 0: none (default: %(default)s)")  # fmt: skip


def segment_size(text: str) -> int:
    """A size like ``64MiB``, ``10GiB`` or plain bytes.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    number, factor = text.strip(), 1
    for suffix, bytes_ in (("KIB", 1 << 10), ("MIB", 1 << 20), ("GIB", 1 << 30)):
        if number.upper().endswith(suffix):
            number, factor = number[: -len(suffix)], bytes_
    try:
        return int(number) * factor
    except ValueError:
        message = f"{text!r} is no size; want a number of bytes, or one with KiB, MiB or GiB, e.g. 64MiB"
        raise argparse.ArgumentTypeError(message) from None


def _down(args: argparse.Namespace) -> None:
    LocalCluster.attach(args.name).nodes.down(args.node)
    show.result(args, f"storage node {args.node} is down", {"down": args.node})


def _up(args: argparse.Namespace) -> None:
    LocalCluster.attach(args.name).nodes.up(args.node)
    show.result(args, f"storage node {args.node} is up", {"up": args.node})


def _replace(args: argparse.Namespace) -> None:
    new = LocalCluster.attach(args.name).nodes.replace(args.node)
    show.result(args, f"storage node {new} has taken the place of {args.node}", {"old": args.node, "new": new})


def _replace_zone(args: argparse.Namespace) -> None:
    pairs = LocalCluster.attach(args.name).nodes.replace_zone(args.zone)
    told = ", ".join(f"{new} for {old}" for old, new in pairs.items())
    show.result(
        args, f"new storage nodes in {args.zone}: {told}", [{"old": old, "new": new} for old, new in pairs.items()]
    )


def _scrub(args: argparse.Namespace) -> None:
    reports = LocalCluster.attach(args.name).nodes.scrub()
    lines = [
        f"node {each.node}: {each.damaged} damaged, {each.refilled} bytes refilled, {each.lost} pieces lost"
        if each.failure is None
        else f"node {each.node}: not read: {each.failure}"
        for each in reports
    ]
    show.result(args, "\n".join(lines), [asdict(each) for each in reports])


def _repair(args: argparse.Namespace) -> None:
    done = LocalCluster.attach(args.name).nodes.repair(force=args.force)
    told = ", ".join(f"{new} for {old}" for old, new in done.replaced.items())
    left = ", ".join(map(str, done.survivors))
    writer = done.failover.writer if done.failover is not None else "the former one, rebuilt"
    show.result(
        args, f"a new membership of {left} and new storage nodes ({told}); the writer is {writer}", asdict(done)
    )
