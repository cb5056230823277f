"""What the processes on other hosts have in common: the command line, the secret on standard input, the end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import ClusterError
from aurora_router_cluster.postgres.launcher import die_with_parent
from aurora_router_cluster.storage.nodeserver import address

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A command line with what all of them take."""
    made = argparse.ArgumentParser(prog=prog, description=f"{description} The secret is the first line of stdin.")
    made.add_argument(
        "--listen", type=address, required=True, metavar="HOST:PORT", help="where the control plane calls"
    )
    made.add_argument("--parent", type=int, metavar="PID", help="end with this process, our parent")
    return made


def run(args: argparse.Namespace, serve: Callable[[argparse.Namespace, str, asyncio.Event], Awaitable[None]]) -> int:
    """Read the secret and serve until a signal says that it is enough.

    Returns:
        0: asked to end; 1: it could not go on, and said why on standard error.
    """
    if args.parent is not None:
        die_with_parent(args.parent)
    secret = sys.stdin.readline().rstrip("\n")
    if not secret:
        sys.stderr.write("the first line of standard input has to be the cluster's secret\n")
        return 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_until_told(args, serve, secret))
    except (ClusterError, OSError) as error:
        sys.stderr.write(f"cannot run: {error}\n")
        return 1
    return 0


async def _until_told(
    args: argparse.Namespace, serve: Callable[[argparse.Namespace, str, asyncio.Event], Awaitable[None]], secret: str
) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await serve(args, secret, ended)
