"""A cluster on the screen: a table by rich in a terminal, plain columns elsewhere."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import datadir
from aurora_router_cluster.commands import live
from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.postgres import files

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.table import Table

    from aurora_router_cluster.client.cluster import LocalCluster
    from aurora_router_cluster.control.status import ClusterStatus, InstanceStatus

HEADER = ("instance", "role", "state", "zone", "tier", "lag ms", "cpu %", "address", "pid")


def line(text: str = "") -> None:
    """One line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def result(args: argparse.Namespace, text: str, facts: Any) -> None:
    """Print what a command did: `facts` with ``--json``, else `text`."""
    line(json.dumps(facts, indent=2, default=str) if args.json else text)


def status(cluster: ClusterStatus, *, picture: bool = True) -> None:
    """The cluster's endpoints and, with `picture`, its storage and instances as they are now."""
    server = "" if cluster.engine == "mysql" else "PostgreSQL "
    line(f"cluster  {cluster.key} ({cluster.flavour}, {server}{cluster.version}, epoch {cluster.epoch})")
    line(f"writer   {cluster.writer_endpoint}:{cluster.port}")
    line(f"readers  {cluster.reader_endpoint}:{cluster.port}")
    for custom in cluster.custom_endpoints:
        line(f"custom   {custom.endpoint} ({'all but ' if custom.exclude else ''}{', '.join(custom.members)})")
    line(f"dns      {cluster.dns}")
    line(f"data     {cluster.data or 'deleted when it ends'}")
    for fault in cluster.faults:
        line(f"fault    {fault.text}")
    for text in _scaling(cluster):
        line(text)
    if not picture:
        return
    if live.possible():
        from rich.console import Console  # noqa: PLC0415 - an extra, and slow to import

        line()
        Console().print(live.picture(cluster, instance_table(cluster)))
        return
    for text in live.storage_lines(cluster.volume):
        line(text)
    if rows := live.storage_rows(cluster.volume):
        line()
        _columns(live.COPIES, rows)
    line()
    _columns(*_columns_of(cluster))


def instance_table(cluster: ClusterStatus) -> Table:
    """The instances as a table by rich: the writer green, what does not answer red."""
    header, rows = _columns_of(cluster)
    colours = {row[2]: "red" for row in rows if row[2] != "available"}
    table = live.table(header, rows, colours, 2)
    for number, row in enumerate(rows):
        if row[1] == "writer" and row[2] == "available":
            table.rows[number].style = "green"
    return table


def _row(instance: InstanceStatus) -> tuple[str, ...]:
    state = f"{instance.state} (frozen)" if instance.frozen else instance.state
    lag = "" if instance.lag_ms is None else f"{instance.lag_ms:.1f}"
    cpu = "" if instance.cpu is None else f"{instance.cpu:.1f}"
    address = f"{instance.host}:{instance.port}"
    pid = "" if instance.pid is None else str(instance.pid)
    return (instance.name, instance.role, state, instance.zone, str(instance.tier), lag, cpu, address, pid)


def _columns_of(cluster: ClusterStatus) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The header and the rows of the instances, with what counts where it scales."""
    header: tuple[str, ...] = HEADER
    rows = [_row(one) for one in cluster.instances]
    if cluster.scaling is not None:
        counts = [one.connections for one in cluster.instances]
        header, rows = (*header, "clients"), _widen(rows, ["" if each is None else str(each) for each in counts])
    if cluster.serverless is not None:
        sizes = [one.capacity for one in cluster.instances]
        header, rows = (*header, "ACU"), _widen(rows, ["" if each is None else f"{each:g}" for each in sizes])
    return header, rows


def _widen(rows: Sequence[tuple[str, ...]], column: Sequence[str]) -> list[tuple[str, ...]]:
    return [(*row, cell) for row, cell in zip(rows, column, strict=True)]


def _scaling(cluster: ClusterStatus) -> list[str]:
    """How it scales, in words."""
    lines = []
    if (scaling := cluster.scaling) is not None:
        mean = "unknown" if scaling["mean"] is None else f"{scaling['mean']:.1f}"
        lines.append(
            f"scaling  {scaling['readers']} of {scaling['least']} to {scaling['most']} readers; {scaling['metric']} is "
            f"{mean}, the target {scaling['target']:g}"
        )
    if (limits := cluster.serverless) is not None:
        pause = limits["pause_after"]
        pauses = "" if pause is None else f"; without users it pauses after {pause:g} s"
        lines.append(f"ACU      {limits['least']:g} to {limits['most']:g} for each instance{pauses}")
    return lines


def _columns(header: Sequence[str], rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def urls(cluster: LocalCluster, target: str) -> dict[str, str]:
    """Kind of client -> URL for a target (see `RunningCluster.endpoint`).

    Raises:
        RequestError: the cluster is of the engine mysql, whose driver takes keywords.
    """
    if cluster.status().engine == "mysql":
        raise RequestError(f"PyMySQL takes no URL: {_mysql_connections(cluster, target)['pymysql']}")
    return {
        "aurora-router": cluster.url(target).replace("postgresql+aurora", "postgresql", 1),
        "sqlalchemy": cluster.url(target),
        "psql": cluster.libpq_url(target),
    }


def connections(cluster: LocalCluster) -> dict[str, dict[str, Any]]:
    """Ways to connect, ready to paste: target -> kind of client -> text."""
    if cluster.status().engine == "mysql":
        return {target: _mysql_connections(cluster, target) for target in ("writer", "reader")}
    iam = cluster.status().iam is not None
    return {
        target: {
            "sqlalchemy": cluster.url(target),
            "psycopg": cluster.conninfo(target),
            "psql": f'psql "{cluster.libpq_url(target)}"',
            **({"iam": cluster.iam_conninfo(target)} if iam else {}),
            "urls": urls(cluster, target),
        }
        for target in ("writer", "reader")
    }


def _mysql_connections(cluster: LocalCluster, target: str) -> dict[str, Any]:
    keywords = cluster.mysql_keywords(target)
    given = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
    at = cluster.status()
    host = next((each.host for each in at.instances if each.role == target), at.instances[0].host)
    login = f"-h {host} -P {at.port} -u {keywords['user']} -p{keywords['password']}"
    return {"pymysql": f"aurora_router_mysql.connect({given})", "mariadb": f"mariadb {login} {keywords['database']}"}


def summary(cluster: ClusterStatus) -> dict[str, object]:
    """The facts that identify a cluster."""
    return {
        "name": cluster.key,
        "writer_endpoint": cluster.writer_endpoint,
        "instances": len(cluster.instances),
        "version": cluster.version,
        "started_in": cluster.started_in,
        "data": cluster.data,
        "supervisor": cluster.supervisor,
    }


def clusters(found: Sequence[ClusterStatus]) -> None:
    """The clusters that run, as a table."""
    rows = [tuple("-" if value is None else str(value) for value in summary(each).values()) for each in found]
    _columns(tuple(name.replace("_", " ") for name in summary(found[0])), rows)


def fate(cluster: ClusterStatus) -> str:
    """What happens to the data when the cluster ends."""
    if cluster.data is None:
        return f"all of its data, in {cluster.directory}, are deleted"
    if not datadir.holds_cluster(Path(cluster.data)):
        return (
            f"{cluster.data}, where its data were kept, is not there any more: it was moved or deleted while the "
            "cluster ran; if it was moved, start the cluster again from its new place: aurora-router cluster up --data "
            "DIR"
        )
    again = f"aurora-router cluster up --data {shlex.quote(cluster.data)}"
    return f"its data are kept in {cluster.data}; start it again with: {again}"


def how_to_connect(cluster: LocalCluster, *, detached: bool) -> None:
    """Lines to paste, and how it ends."""
    status = cluster.status()
    for target, clients in connections(cluster).items():
        line()
        line(f"{target}:")
        for client in ("sqlalchemy", "psycopg", "psql", "iam", "pymysql", "mariadb"):
            if client in clients:
                line(f"  {client.ljust(10)}  {clients[client]}")
    line()
    if (iam := status.iam) is not None:
        line(f"These keys, also in the file, sign IAM tokens that count for {iam.token_lifetime:g} s:")
        line(f"  export AWS_ACCESS_KEY_ID={iam.access_key_id} AWS_SECRET_ACCESS_KEY={iam.secret_access_key}")
        line(f"  {iam.credentials_file}")
        line()
    for text in durability(status):
        line(text)
    if detached:
        line(f"It runs in the background; end it with: aurora-router cluster down --name {cluster.key}")
    else:
        line(f"Ctrl-C ends it. From another terminal: aurora-router cluster status --name {cluster.key}")


def durability(cluster: ClusterStatus) -> list[str]:
    """What outlives the cluster, and what does not."""
    if cluster.engine == "mysql":
        return ["Its data are deleted when it ends."]
    if cluster.data is None:
        return ["Its data are deleted when it ends; to keep them, start it with --data DIR."]
    lines = [f"Its data are kept in {cluster.data}."]
    if (kind := files.file_system(Path(cluster.data))) in {"tmpfs", "ramfs"}:
        lines.append(f"That directory is on {kind}: it outlives the cluster, but not a restart of this machine.")
    return lines
