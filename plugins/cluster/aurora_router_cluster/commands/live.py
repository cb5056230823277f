"""The picture of a cluster that ``cluster up`` keeps on a terminal, and ``cluster status`` shows once.

`storage_lines` and `storage_rows` are plain; `watch` draws them with rich, again and again, while the cluster runs.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Group, RenderableType
    from rich.table import Table

    from aurora_router_cluster.client.cluster import LocalCluster
    from aurora_router_cluster.control.status import ClusterStatus

COPIES = ("copy", "zone", "state", "epoch", "SCL", "lag bytes", "holes", "pid", "address")
PAUSE = 0.5
"""Seconds between two pictures."""
QUORUM = {
    "write": "write quorum: commits go on",
    "read": "READ QUORUM ONLY: what is durable can be read; commits and failovers wait for a fourth copy",
    "lost": "NO QUORUM: fewer than three copies",
}
COLOURS = {
    "complete": "green", "behind": "yellow", "joining": "yellow",
    "down": "red", "failed": "red", "empty": "red", "outside": "red",
}  # fmt: skip


def storage_lines(volume: dict[str, Any]) -> list[str]:
    """The volume in words; empty for a flavour without copies."""
    if "quorum" not in volume:
        return [f"storage  {volume['storage']}"] if "storage" in volume else []
    there = sum(node["state"] in {"complete", "behind"} for node in volume["nodes"])
    membership = volume["membership"]
    no_writer = "" if volume["attached"] else ", no writer attached"
    reached = f"VDL {volume['vdl']}, VCL {volume['vcl']}, received {volume['received_lsn']}"
    lines = [
        f"storage  {there} of {len(membership['slots'])} copies, {QUORUM[volume['quorum']]}",
        f"volume   epoch {volume['epoch']}, membership {membership['version']}, groups {volume['groups']}{no_writer}",
        f"log      {reached}, kept from {volume['first_lsn']}",
    ]
    if volume.get("stalled") is not None:
        lines.append(f"stalled  no log has met its quorum for {volume['stalled']:g} s, though enough copies answer")
    lines += [f"absent   {node['failure']}" for node in volume["nodes"] if node["state"] in {"failed", "empty"}]
    if volume["fenced_epochs"]:
        lines.append(f"fenced   a former writer still runs in epoch {', '.join(map(str, volume['fenced_epochs']))}")
    return lines


def storage_rows(volume: dict[str, Any]) -> list[tuple[str, ...]]:
    """The copies, one row of `COPIES` each."""
    keys = ("node", "zone", "state", "epoch", "scl", "lag", "holes", "pid", "address")
    return [
        tuple("" if node.get(key) is None else str(node[key]) for key in keys)
        for node in sorted(volume.get("nodes", ()), key=lambda node: (node["zone"], node["node"]))
    ]


def table(header: Sequence[str], rows: Sequence[tuple[str, ...]], colours: dict[str, str], column: int) -> Table:
    """A table by rich; `colours`: value of `column` -> style of the row."""
    from rich.table import Table  # noqa: PLC0415 - an extra, and slow to import

    made = Table(*header, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        made.add_row(*row, style=colours.get(row[column], ""))
    return made


def picture(status: ClusterStatus, instances: Table) -> Group:
    """All of it, for rich to draw."""
    from rich.console import Group  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    lines = storage_lines(status.volume)
    style = {"write": "green", "read": "yellow", "lost": "red"}.get(status.volume.get("quorum", ""), "")
    parts: list[RenderableType] = [Text(text, style="" if number else style) for number, text in enumerate(lines)]
    if parts:
        parts += ["", table(COPIES, storage_rows(status.volume), COLOURS, 2), ""]
    return Group(*parts, instances)


def possible() -> bool:
    """Whether there is a terminal, and rich to draw on it."""
    if not sys.stdout.isatty():
        return False
    try:
        import rich  # noqa: F401, PLC0415 - an extra
    except ImportError:
        return False
    return True


def watch(cluster: LocalCluster, instance_table: Callable[[ClusterStatus], Table]) -> None:
    """Draw the cluster until it has ended; ends with KeyboardInterrupt too."""
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(refresh_per_second=1 / PAUSE, transient=False) as live:
        while True:
            try:
                status = cluster.status()
            except ClusterError:
                return
            live.update(picture(status, instance_table(status)))
            time.sleep(PAUSE)
