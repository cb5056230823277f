"""The process of one storage node.

Run as ``python -m aurora_router_cluster.storage.nodeserver --node 3 --directory DIR --listen HOST:PORT``; the cluster's
secret is the first line of standard input, so that no list of processes shows it. It ends with SIGTERM or SIGINT, and
with ``--parent PID`` when that process ends. It works in its directory, by which the reaper finds it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.storage import process
from aurora_router_cluster.storage.reopening import open_node, reopen
from aurora_router_cluster.storage.server import NodeServer

if TYPE_CHECKING:
    import argparse

log = logging.getLogger(__name__)

CARE_SECONDS = 1.0
"""Between two looks at whether a failed disk works again."""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = process.parser("nodeserver", "One storage node.")
    made.add_argument("--node", type=int, required=True, help="its number")
    made.add_argument("--directory", type=Path, required=True, help="of its journal; made if missing")
    where = made.add_mutually_exclusive_group(required=True)
    where.add_argument("--listen", type=process.address, metavar="HOST:PORT", help="where callers connect")
    where.add_argument("--listen-fd", type=int, metavar="FD", help="a bound socket that was inherited")
    made.add_argument("--no-sync", dest="sync", action="store_false", help="do not sync the disk")
    return made


def bind_socket(args: argparse.Namespace) -> socket.socket:
    """The socket to serve on."""
    if args.listen_fd is not None:
        return socket.socket(fileno=args.listen_fd)
    host, port = args.listen
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family)


async def serve(args: argparse.Namespace, secret: str, ended: asyncio.Event) -> None:
    """Serve the node until asked to end."""
    server = NodeServer(await open_node(args.node, args.directory, sync=args.sync), secret)
    caring = asyncio.ensure_future(care(server, args))
    try:
        await server.listen_on(bind_socket(args))
        await ended.wait()
    finally:
        caring.cancel()
        await asyncio.wait({caring})
        await server.close()
        await server.node.close()


async def care(server: NodeServer, args: argparse.Namespace) -> None:
    """Open the node again each time that its disk has failed, as soon as that takes what is written."""
    while True:
        await asyncio.sleep(CARE_SECONDS)
        if not server.node.failed:
            continue
        opened = await reopen(server.node, args.directory, sync=args.sync)
        if opened is not None:
            log.warning("node %d works again: its disk takes what is written", args.node)
            server.exchange(opened)


def main(arguments: list[str]) -> int:
    """Run a node; returns its exit status, see `process.run`."""
    args = parser().parse_args(arguments)
    args.prog = f"nodeserver: node {args.node}"
    args.directory = args.directory.absolute()
    args.directory.mkdir(parents=True, exist_ok=True)
    os.chdir(args.directory)
    return process.run(args, serve)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
