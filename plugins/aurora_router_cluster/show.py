"""A cluster on the screen: a table by rich in a terminal, plain columns elsewhere."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router_cluster.client import LocalCluster
    from aurora_router_cluster.status import ClusterStatus, InstanceStatus

HEADER = ("instance", "role", "state", "zone", "tier", "lag ms", "cpu %", "address", "pid")


def line(text: str = "") -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def status(cluster: ClusterStatus) -> None:
    """The cluster's endpoints and instances."""
    line(f"cluster  {cluster.name} ({cluster.flavour}, PostgreSQL {cluster.version}, epoch {cluster.epoch})")
    line(f"writer   {cluster.writer_endpoint}:{cluster.port}")
    line(f"readers  {cluster.reader_endpoint}:{cluster.port}")
    for custom in cluster.custom_endpoints:
        line(f"custom   {custom.endpoint} ({'all but ' if custom.exclude else ''}{', '.join(custom.members)})")
    line(f"dns      {cluster.dns}")
    for fault in cluster.faults:
        line(f"fault    {fault.text}")
    line()
    _table([_row(instance) for instance in cluster.instances])


def _row(instance: InstanceStatus) -> tuple[str, ...]:
    state = f"{instance.state} (frozen)" if instance.frozen else instance.state
    lag = "" if instance.lag_ms is None else f"{instance.lag_ms:.1f}"
    cpu = "" if instance.cpu is None else f"{instance.cpu:.1f}"
    address = f"{instance.host}:{instance.port}"
    pid = "" if instance.pid is None else str(instance.pid)
    return (instance.name, instance.role, state, instance.zone, str(instance.tier), lag, cpu, address, pid)


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    if sys.stdout.isatty() and _rich_table(rows):
        return
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    for row in (HEADER, *rows):
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _rich_table(rows: Sequence[tuple[str, ...]]) -> bool:
    """Print with rich; False where it is not installed."""
    try:
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import
        from rich.table import Table  # noqa: PLC0415 - as above
    except ImportError:
        return False
    table = Table(*HEADER, box=None, header_style="bold", pad_edge=False)
    for row in rows:
        table.add_row(*row, style={"writer": "green"}.get(row[1], "") if row[2] == "available" else "red")
    Console().print(table)
    return True


def connections(cluster: LocalCluster) -> dict[str, dict[str, str]]:
    """Ways to connect, ready to paste: target -> kind of client -> text."""
    return {
        target: {
            "sqlalchemy": cluster.url(target),
            "psycopg": cluster.conninfo(target),
            "psql": f'psql "{cluster.plain_conninfo(target)}"',
        }
        for target in ("writer", "reader")
    }


def how_to_connect(cluster: LocalCluster, *, detached: bool) -> None:
    """Lines to paste, and how it ends."""
    for target, clients in connections(cluster).items():
        line()
        line(f"{target}:")
        for client, text in clients.items():
            line(f"  {client.ljust(10)}  {text}")
    line()
    if detached:
        line(f"It runs in the background; end it with: aurora-router cluster down --name {cluster.key}")
    else:
        line(f"Ctrl-C ends it. From another terminal: aurora-router cluster status --name {cluster.key}")
