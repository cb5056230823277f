"""The supervisor's process: one event loop, one cluster (`supervised_cluster`).

Run as ``python -m aurora_router_cluster.supervisor OPTIONS`` (JSON of `options.ClusterOptions`). It prints one
line of JSON when the cluster is ready, ``{"ready": key}``, or when it could not be made, ``{"error": class,
"message": text}``. A cluster with an owner ends when standard input does or when the owner is gone; any cluster ends
with SIGTERM, SIGINT or the request ``down``. A killed one is cleaned up by its reaper.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import datadir, limits, reaper
from aurora_router_cluster.datadir import DataDirectory
from aurora_router_cluster.errors import BinariesError, ClusterError, SupervisorError, explain_os_error
from aurora_router_cluster.faults.relay_client import BEAT, FOLDER
from aurora_router_cluster.options import FIXED, ClusterOptions
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.registry import ClusterDirectory, explain_left, make_run_directory, sweep_leftovers
from aurora_router_cluster.rpc import starter
from aurora_router_cluster.supervised_cluster import SupervisedCluster

if TYPE_CHECKING:
    from aurora_router_cluster.mysql.cluster import MySqlCluster

log = logging.getLogger(__name__)

OWNER_CHECK = 0.5  # seconds; only for owners whose pipe is held open by a forked child of theirs


async def serve(
    options: ClusterOptions,
    home: ClusterDirectory,
    run: Path,
    data: DataDirectory | None = None,
    threads: ThreadPoolExecutor | None = None,
) -> None:
    """Start a cluster, say so, and serve it until its end; what blocks is done in `threads`."""
    loop = asyncio.get_running_loop()
    if threads is not None:
        loop.set_default_executor(threads)
    cluster = _make_cluster(options, home, run, data)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, cluster.ended.set)
    if options.owner is not None:
        loop.add_reader(0, _owner_spoke, cluster.ended)
    starting = loop.create_task(cluster.start())
    ending = loop.create_task(cluster.ended.wait())
    limit = watch_for_limits(loop)
    try:
        first: set[asyncio.Future[Any]] = {starting, ending, limit}
        await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.wait({starting})
            if limit.done():
                raise limit.result()
        await starting
        starter.report({"ready": home.key})
        while not cluster.ended.is_set() and options.owner in {None, os.getppid()}:
            await asyncio.wait({ending}, timeout=OWNER_CHECK)
    except asyncio.CancelledError:
        log.info("ended while starting")
    finally:
        ending.cancel()
        await cluster.close()


def _make_cluster(
    options: ClusterOptions, home: ClusterDirectory, run: Path, data: DataDirectory | None
) -> SupervisedCluster | MySqlCluster:
    if options.engine == "mysql":
        try:
            from aurora_router_cluster.mysql.cluster import MySqlCluster  # noqa: PLC0415 - an extra
        except ModuleNotFoundError as error:
            raise BinariesError(
                f"the engine mysql needs PyMySQL ({error}): pip install 'aurora-router-cluster[mysql]'"
            ) from None

        return MySqlCluster(options, home, run)
    return SupervisedCluster(options, home, run, data)


def watch_for_limits(loop: asyncio.AbstractEventLoop) -> asyncio.Future[BaseException]:
    """A future with the first error in a callback of `loop` that is a limit of the machine (`limits.explain`).

    asyncio logs such an error and goes on; what waits for the callback, as the start of a cluster, waits forever.
    """
    met: asyncio.Future[BaseException] = loop.create_future()

    def on_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is None or limits.explain(error) is None or met.done():
            loop.default_exception_handler(context)
        else:
            met.set_result(error)

    loop.set_exception_handler(on_error)
    return met


def _owner_spoke(ended: asyncio.Event) -> None:
    if not os.read(0, 4096):
        asyncio.get_running_loop().remove_reader(0)
        ended.set()


def main(arguments: list[str]) -> int:
    """Run a supervisor; the exit status is 0 after an end in order.

    A failure is reported when everything has been cleaned up: the starter may then end us at once.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # until the event loop has handlers of its own
    left: list[Path] = []
    try:
        _supervise(ClusterOptions.from_json(arguments[0]), left)
    except Exception as error:  # it becomes the one line that the starter waits for
        if isinstance(error, ClusterError):
            log.warning("%s: %s", type(error).__name__, error)
        else:
            log.exception("it failed")
        kind, text = explain_failure(error)
        starter.report({"error": kind, "message": f"{text}; {explain_left(left)}" if left else text})
        return 1
    return 0


def explain_failure(error: Exception) -> tuple[str, str]:
    """What is said of a cluster that could not be started: the class of the error for its starter, and a sentence."""
    if isinstance(error, ClusterError):
        return type(error).__name__, str(error)
    what = "the cluster could not be started"
    if (limit := limits.explain(error)) is not None:
        return SupervisorError.__name__, f"{what}: {limit}"
    if isinstance(error, (OSError, LookupError)):
        met = isinstance(error, OSError) and error.errno is not None  # else it is a sentence of ours
        text = f"{what}: {explain_os_error(error)}" if met and isinstance(error, OSError) else str(error)
        return SupervisorError.__name__, text
    place = "".join(traceback.format_tb(error.__traceback__)[-1:]).strip().replace("\n", " ")
    text = f"{what}, by a fault of aurora-router: {type(error).__name__}: {error} ({place}); please report it"
    return SupervisorError.__name__, text


def _supervise(options: ClusterOptions, left: list[Path]) -> None:
    """Be the supervisor; run directories that could not be deleted are added to `left`."""
    with contextlib.suppress(OSError):
        sweep_leftovers()
    home = ClusterDirectory(options.key)
    home.claim()
    guard = data = None
    threads = ThreadPoolExecutor(thread_name_prefix="copying")
    try:
        starter.log_to(home.log)
        if options.data is not None:
            data = DataDirectory.claim(Path(options.data), home.key, Account.default())
            datadir.choose(data.path, {name: getattr(options, name) for name in FIXED})  # it may have changed just now
        run = _run_directory(options)
        home.record(run, data.storage if data is not None else None, wants_api=options.api)
        guard = _start_reaper(run, home.key)
        asyncio.run(serve(options, home, run, data, threads))
    finally:
        # asyncio ends the threads by one more thread, which the machine may refuse: then they write to what is deleted
        threads.shutdown(cancel_futures=True)
        if data is not None:
            data.close()  # first: a process that sees the cluster gone may start it again
        left += home.release()
        if left:
            log.warning("%s", explain_left(left))
        if guard is not None:
            guard.communicate(reaper.IN_ORDER)


def _run_directory(options: ClusterOptions) -> Path:
    explicit = Path(options.directory) if options.directory else None
    name = f"/{options.name}-{options.readers + 1}"
    socket = (f"/{FOLDER}/{BEAT}" if options.faults else "") + "/.s.PGSQL.65535"
    return make_run_directory(explicit, options.readers + 1, Account.default(), len(os.fsencode(name + socket)))


def _start_reaper(run: Path, key: str) -> subprocess.Popen[bytes]:
    packages = Path(__file__).parent.parent
    command = [sys.executable, "-I", "-S", str(Path(reaper.__file__)), str(run), key, str(packages)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
