"""``aurora-router demo``: a real cluster on this machine, and connections being routed to it, in a few seconds."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.table import Table
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import create_async_engine

import aurora_router
from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.errors import ClusterError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from aurora_router_cluster.commands.demo_failover import Count, FailoverRun

INSTANCE_ID = "SELECT current_setting('cluster_name')"
CONNECTIONS = 300
BAR = 40  # characters of the longest bar


class Demo:
    """The sub-command."""

    name = "demo"
    help = "start a real local cluster and watch connections being routed to it"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("--readers", type=int, default=2, help="readers to begin with (default: 2)")
        parser.add_argument("--connections", type=int, default=CONNECTIONS, help="reader connections to spread")
        parser.add_argument("--plot", type=Path, metavar="FILE", help="save the failovers as a picture (SVG)")
        parser.add_argument("--json", type=Path, metavar="FILE", help="write what the failovers came to there")
        parser.add_argument("--postgres", metavar="DIR", help="directory of PostgreSQL's binaries")

    def run(self, args: argparse.Namespace) -> int:
        """Play it; 1 when the cluster cannot be started, and says why."""
        screen = Console(highlight=False, soft_wrap=True)
        logging.getLogger("aurora_router").addHandler(logging.NullHandler())  # the demo itself prints what happens
        previous = signal.signal(signal.SIGTERM, _interrupt)
        try:
            for file in filter(None, (args.plot, args.json)):
                file.open("a").close()  # rather now than when everything has been shown
            _play(screen, args)
        except ClusterError as error:
            sys.stderr.write(f"aurora-router demo: {error}\n")
            return 1
        except OSError as error:
            sys.stderr.write(f"aurora-router demo: a file can't be written: {error}; name another one\n")
            return 1
        finally:
            signal.signal(signal.SIGTERM, previous)
        return 0


demo = Demo()


def _interrupt(_signal: int, _frame: Any) -> NoReturn:
    raise KeyboardInterrupt


def _play(screen: Console, args: argparse.Namespace) -> None:
    started = time.monotonic()
    screen.print("[bold]A cluster:[/] one writer, readers in other zones, a name server; real PostgreSQL")
    with LocalCluster.start(readers=args.readers, postgres=args.postgres) as cluster:
        status = cluster.status()
        screen.print(
            f"  PostgreSQL {status.version}, {status.flavour} storage, ready after {time.monotonic() - started:.2f} s"
        )
        _show_topology(screen, cluster)
        _connect_in_four_ways(screen, cluster)
        _spread(screen, cluster, args.connections)
        _fail_over(screen, cluster, args)
        stopping = time.monotonic()
    screen.print(
        f"[bold]Stopped[/] in {time.monotonic() - stopping:.2f} s; nothing is left running "
        f"({time.monotonic() - started:.1f} s in all)"
    )


def _show_topology(screen: Console, cluster: LocalCluster) -> None:
    view = aurora_router.Router(cluster.conninfo("writer")).topology()
    table = Table("instance", "role", "zone", "lag", "address", box=None, pad_edge=True)
    for each in cluster.instances:
        seen = view.instances[each.name]
        lag = "" if seen.lag is None else f"{seen.lag * 1000:.0f} ms"
        table.add_row(each.name, seen.role.value, each.zone, lag, f"{each.host}:{each.port}")
    screen.print("[bold]Its topology[/], as aurora_replica_status() shows it over one connection")
    screen.print(table)


def _connect_in_four_ways(screen: Console, cluster: LocalCluster) -> None:
    screen.print("[bold]Four ways in[/], to the writer and to readers, by name")
    ways = [
        ("psycopg", "writer", _by_psycopg(cluster.conninfo("writer"))),
        ("psycopg, async", "reader", asyncio.run(_by_async_psycopg(cluster.conninfo("reader")))),
        ("SQLAlchemy", "writer", _by_engine(cluster.url("writer"))),
        ("SQLAlchemy, async", "reader", asyncio.run(_by_async_engine(cluster.url("reader")))),
    ]
    for way, target, landed in ways:
        screen.print(f"  {way:<18} {cluster.endpoint(target)} -> [cyan]{landed}[/]")


def _by_psycopg(conninfo: str) -> str:
    with aurora_router.connect(conninfo) as conn:
        return _only(conn.execute(INSTANCE_ID).fetchone())


async def _by_async_psycopg(conninfo: str) -> str:
    async with await aurora_router.AsyncConnection.connect(conninfo) as conn:
        return _only(await (await conn.execute(INSTANCE_ID)).fetchone())


def _by_engine(url: str) -> str:
    engine = create_engine(url)
    try:
        with engine.connect() as conn:
            return str(conn.execute(text(INSTANCE_ID)).scalar_one())
    finally:
        engine.dispose()


async def _by_async_engine(url: str) -> str:
    engine = create_async_engine(url)
    try:
        async with engine.connect() as conn:
            return str((await conn.execute(text(INSTANCE_ID))).scalar_one())
    finally:
        await engine.dispose()


def _only(row: tuple[Any, ...] | None) -> str:
    assert row is not None
    return str(row[0])


def _spread(screen: Console, cluster: LocalCluster, number: int) -> None:
    router = aurora_router.Router(cluster.conninfo("reader"))
    with ExitStack() as open_ones:
        started = time.monotonic()
        counts = Counter(_open(router, open_ones) for _ in range(number))
        took = time.monotonic() - started
        screen.print(f"[bold]{number} reader connections[/] by least_connections, in {took:.1f} s")
        _bars(screen, counts)
        added = cluster.add_reader()
        router.topology()
        further = number // max(1, len(counts))
        screen.print(f"[bold]{added.name} joins[/] in {added.zone}; of {further} further connections it gets")
        _bars(screen, Counter(_open(router, open_ones) for _ in range(further)))


def _fail_over(screen: Console, cluster: LocalCluster, args: argparse.Namespace) -> None:
    """Lose the writer twice under clients that write, and count their commits."""
    from aurora_router_cluster.commands.demo_failover import WORDS, Clients  # noqa: PLC0415 - not before it is their turn

    played = []
    with Clients(cluster) as clients:
        for fault in WORDS:
            act = clients.act(fault)
            played.append(act)
            screen.print(f"[bold]{act.former}, the writer, is {WORDS[fault]}[/] while clients write")
            for at, what in act.events:
                screen.print(f"  {at * 1e3:7.0f} ms  {what}")
            screen.print(
                f"  no ack for [cyan]{(act.first_ack - act.last_ack) * 1e3:.0f} ms[/]{_describe_resolved(act)}"
            )
            _await_whole(cluster, act.former)
    count = clients.count()
    good = count.lost == count.doubled == 0
    screen.print(f"[bold {'green' if good else 'red'}]{count}[/]")
    if args.json is not None:
        args.json.write_text(json.dumps(_figures(played, count), indent=2) + "\n", encoding="utf-8")
    if args.plot is not None:
        from aurora_router_cluster.commands.failover_svg import draw  # noqa: PLC0415

        args.plot.write_text(draw(played, count), encoding="utf-8")
        screen.print(f"Their picture: {args.plot}")
    if not good:
        raise ClusterError("commits were lost or doubled: this is a bug of aurora_router, please report it")


def _figures(played: Sequence[FailoverRun], count: Count) -> dict[str, dict[str, Any]]:
    """What the failovers came to: each figure's name, with its value, unit, bound (if it has one) and verdict."""

    def figure(value: float, unit: str, bound: float | None = None) -> dict[str, Any]:
        return {"value": value, "unit": unit, "bound": bound, "ok": bound is None or value <= bound}

    return {
        **{f"{act.fault}: time without a commit": figure(act.first_ack - act.last_ack, "s") for act in played},
        "commits acknowledged": figure(count.acknowledged, ""),
        "commits lost": figure(count.lost, "", 0),
        "commits doubled": figure(count.doubled, "", 0),
        "commits left unknown": figure(count.unknown, ""),
    }


def _describe_resolved(act: FailoverRun) -> str:
    return f"; commits whose answer was lost, and found to be there: {act.resolved}" if act.resolved else ""


def _await_whole(cluster: LocalCluster, former: str) -> None:
    """Let a former writer come back as a reader."""
    if cluster.instance(former).frozen:
        return  # it was the last act
    deadline = time.monotonic() + 10.0
    while any(each.state != "available" for each in cluster.instances) and time.monotonic() < deadline:
        time.sleep(0.05)


def _open(router: aurora_router.Router, open_ones: ExitStack) -> str:
    conn = router.connect()
    open_ones.callback(conn.close)
    assert conn.placement is not None
    return conn.placement.instance or "?"


def _bars(screen: Console, counts: Mapping[str, int]) -> None:
    longest = max(counts.values())
    for name, count in sorted(counts.items()):
        screen.print(f"  {name:<8} {'█' * max(1, round(BAR * count / longest))} {count}")
