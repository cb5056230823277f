"""What the processes that serve a cluster have in common: the command line, the secret on standard input, the end."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import ClusterError
from aurora_router_cluster.postgres.launcher import die_with_parent
from aurora_router_cluster.storage.core.errors import StorageError
from aurora_router_cluster.storage.disk.errors import LogFailedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Serve = Callable[[argparse.Namespace, str, asyncio.Event], Awaitable[None]]


def address(text: str) -> tuple[str, int]:
    """``host:port`` as a pair.

    Raises:
        ValueError: it is none.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(text)
    return host.strip("[]"), int(port)


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """A command line with what all of them take."""
    made = argparse.ArgumentParser(prog=prog, description=f"{description} The secret is the first line of stdin.")
    made.set_defaults(prog=prog)
    made.add_argument("--parent", type=int, metavar="PID", help="end with this process, our parent")
    return made


def run(args: argparse.Namespace, serve: Serve) -> int:
    """Read the secret and serve until a signal ends it.

    Returns:
        0: asked to end; 1: it could not go on, and said why on standard error.
    """
    if args.parent is not None:
        die_with_parent(args.parent)
    secret = sys.stdin.readline().rstrip("\n")
    if not secret:
        sys.stderr.write(f"{args.prog}: the first line of standard input has to be the cluster's secret\n")
        return 1
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        asyncio.run(_until_signal(args, serve, secret))
    except (ClusterError, StorageError, LogFailedError, OSError) as error:
        sys.stderr.write(f"{args.prog} cannot run: {error}\n")
        return 1
    return 0


async def _until_signal(args: argparse.Namespace, serve: Serve, secret: str) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await serve(args, secret, ended)
