"""The process of the RDS API.

Run as ``python -m aurora_router_cluster.api.process`` by `client.api.ensure`: it prints one line of JSON when it
serves, ``{"ready": url}``, or when it cannot, ``{"error": class, "message": text}``, and ends with the last cluster
that wants it. ``aurora-router cluster api`` serves in the foreground, until it is interrupted (`serving`).
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from aurora_router_cluster import registry
from aurora_router_cluster.api.server import ApiServer
from aurora_router_cluster.api.service import Service
from aurora_router_cluster.client import api
from aurora_router_cluster.errors import AddressInUseError, ClusterError, SupervisorError, explain_os_error
from aurora_router_cluster.rpc import starter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aurora_router_cluster.client.api import ApiAccess

LOOK = 0.25  # seconds between two looks at which clusters run


def is_wanted() -> bool:
    """Whether a cluster runs that was started to be served."""
    return any(registry.ClusterDirectory(key).wants_api for key in registry.running())


@contextlib.contextmanager
def serving(directory: Path, port: int | None = None) -> Iterator[ApiAccess]:
    """Serve while the block lasts; what starts it holds `api.starting_alone` until the block is entered.

    Args:
        directory: the API's.
        port: to listen on; None: the one that it had before, if that is free, else any.

    Raises:
        AddressInUseError: the port is taken.
    """
    access = api.load_access(directory)
    service = Service({access.access_key: access.secret_key})
    with contextlib.ExitStack() as stack:
        server = _listen(service, access.port if port is None else port, insist=port is not None)
        stack.callback(server.close)
        access = replace(access, port=server.server_address[1])
        api.save_access(directory, access)
        lock = stack.enter_context((directory / "serving.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        server.start()
        yield access


def _listen(service: Service, port: int, *, insist: bool) -> ApiServer:
    try:
        return ApiServer(service, api.HOST, port)
    except AddressInUseError:
        if insist or port == 0:
            raise
        return ApiServer(service, api.HOST, 0)


def serve_while_wanted() -> None:
    """Serve until no cluster wants it, or a signal ends it; the caller holds `api.starting_alone` at the start."""
    directory = registry.state_directory() / api.FOLDER
    log_file = directory / "api.log"
    log_file.unlink(missing_ok=True)  # of one that was killed
    starter.log_to(log_file)
    with contextlib.ExitStack() as stack:
        access = stack.enter_context(serving(directory))
        starter.report({"ready": access.url})
        while True:
            while is_wanted():
                time.sleep(LOOK)
            with api.starting_alone():
                if not is_wanted():  # a cluster that was started meanwhile waits for us
                    stack.close()
                    log_file.unlink(missing_ok=True)
                    return


def main() -> int:
    """Run it; the exit status is 0 after an end in order."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        serve_while_wanted()
    except KeyboardInterrupt:
        return 0
    except ClusterError as error:
        starter.report({"error": type(error).__name__, "message": str(error)})
        return 1
    except OSError as error:
        message = f"the RDS API cannot run: {explain_os_error(error)}"
        starter.report({"error": SupervisorError.__name__, "message": message})
        return 1
    return 0


def _end(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
