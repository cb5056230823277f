"""Reading the inspection sockets of other processes; see `runtime.inspection`."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router.errors import AuroraRouterError
from aurora_router.policy.inspection import FORMAT

if TYPE_CHECKING:
    import argparse

VARIABLE = "AURORA_ROUTER_INSPECT"
SECONDS = 2.0
"""How long one process may take to answer."""
LARGEST = 16 << 20
"""Bytes of an answer; more is no snapshot of ours."""


class NothingToInspect(AuroraRouterError):
    """There is no directory, or no process in it answers."""


def add_directory(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names the directory."""
    about = f"directory of the inspection sockets; default: {VARIABLE}"
    parser.add_argument("--dir", metavar="DIR", default=os.environ.get(VARIABLE), help=about)


def read_processes(directory: str | None) -> list[dict[str, Any]]:
    """Return what each process shows, by process id. Sockets of dead processes are removed.

    Raises:
        NothingToInspect: there is nothing to read.
    """
    if not directory:
        raise NothingToInspect(
            f"no directory is given: start the application with {VARIABLE}=DIR, and give the same DIR here (--dir DIR, "
            "or the variable)"
        )
    if not Path(directory).is_dir():
        raise NothingToInspect(f"there is no directory {directory}: start the application with {VARIABLE}={directory}")
    sockets = sorted(Path(directory).glob("*.sock"), key=lambda path: (len(path.name), path.name))
    found = [snapshot for path in sockets if (snapshot := _read(path)) is not None]
    if not found:
        raise NothingToInspect(
            f"no process can be inspected in {directory}: a process has a socket there while it has connections, if it "
            f"was started with {VARIABLE}={directory} and its connections have a monitor (aurora_monitor=on)"
        )
    return found


def _read(path: Path) -> dict[str, Any] | None:
    """What a process shows; None: it does not answer, or in a form that is newer than this program."""
    data = bytearray()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(SECONDS)
        try:
            client.connect(str(path))
            while (part := client.recv(65536)) and len(data) < LARGEST:
                data += part
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                path.unlink()  # its process was killed
            return None
        except OSError:
            return None
    try:
        snapshot = json.loads(data)
    except ValueError:
        return None
    return snapshot if isinstance(snapshot, dict) and snapshot.get("format") == FORMAT else None
