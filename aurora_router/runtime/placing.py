"""What `connection.py` needs at the first connect; imported then, so that importing the library costs little."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router import native
from aurora_router.flow.connect import connect
from aurora_router.flow.probe import Access
from aurora_router.model.instance import Role
from aurora_router.observe import logger
from aurora_router.policy.hang_detection import UNLIMITED, Limits
from aurora_router.runtime import blocking, eventloop, sockets
from aurora_router.runtime.connect_args import ConnectArgs, read_connect_args
from aurora_router.runtime.libpq import NO_LOGIN, dial_params, reported_standby
from aurora_router.runtime.monitor import MONITOR
from aurora_router.runtime.registry import REGISTRY
from aurora_router.runtime.session_cache import SESSIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from psycopg import pq

    from aurora_router.flow.runtime import ConnectResult, Wanted

__all__ = [
    "NO_LOGIN",
    "attend",
    "bounded",
    "dial_params",
    "place_async",
    "place_blocking",
    "read_connect_args",
    "shortened",
    "take",
]

LOOK_SECONDS = 0.02
"""A connection's socket is looked at once in so many seconds at most: a busy pool checks out far more often."""

BlockingT = TypeVar("BlockingT", bound=blocking.Closes)
AwaitedT = TypeVar("AwaitedT", bound=eventloop.Closes)
ErrorT = TypeVar("ErrorT", bound=BaseException)


def place_blocking(open_: Callable[..., BlockingT], call: ConnectArgs) -> ConnectResult[BlockingT]:
    """Put a connection on the right instance, blocking; see `flow.connect.connect`.

    Args:
        open_: ``open_(target, seconds)``, or ``open_(target, seconds, login)`` with what a provider gives.
        call: the call of ``connect``.
    """
    runtime = blocking.BlockingRuntime(call.opening(open_), call.names)
    return blocking.run(connect(runtime, REGISTRY.find, call.request, call.sources))


async def place_async(open_: Callable[..., Awaitable[AwaitedT]], call: ConnectArgs) -> ConnectResult[AwaitedT]:
    """Put a connection on the right instance, on the running event loop; see `flow.connect.connect`."""
    runtime = eventloop.EventLoopRuntime(call.opening_async(open_), call.names)
    return await connect(runtime, REGISTRY.find, call.request, call.sources)


def shortened(error: ErrorT) -> ErrorT:
    """An error that leaves the library: without the traceback of its inner parts, which is logged at DEBUG.

    What it was raised from goes along likewise; what was handled meanwhile is let go of, with its frames.
    """
    logger.debug("connect failed", exc_info=error)
    following: BaseException | None = error
    seen: set[int] = set()
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        following.__traceback__ = None
        cause = following.__cause__
        following.__context__ = cause
        following.__suppress_context__ = True
        following = cause
    return error


def bounded(call: ConnectArgs, until: float | None, wanted: Wanted | None = None) -> ConnectArgs:
    """A call whose connect ends at `until` at the latest, on the monotonic clock; None: by its own options alone.

    It ends before that when it is not `wanted` any more.
    """
    if until is None:
        return call
    options, left = call.request.options, max(0.1, until - time.monotonic())
    if left < options.failover_timeout:
        options = replace(options, failover_timeout=left)
    return replace(call, request=replace(call.request, options=options, wanted=wanted))


def take(params: dict[str, Any]) -> pq.abc.PGconn | None:
    """The monitor's session for these parameters, if it has one to give; see `runtime.session_cache`."""
    return SESSIONS.take(params)


def attend(connection: Any, placed: ConnectResult[Any], call: ConnectArgs) -> None:
    """Count a connection for its instance, and have the monitor look after it unless that was declined."""
    options, pgconn = call.request.options, connection.pgconn
    connection.reported = reported_standby(pgconn)
    connection.process = os.getpid()
    connection.sound = soundness(connection, placed)
    connection.limits = Limits(options.hang_grace, options.ping_timeout) if options.monitor else UNLIMITED
    if placed.instance is None:
        return
    placed.track()
    if options.monitor and placed.route is not None:
        connection.guard = native.new_rlock()
        connection.was_writer = placed.role is Role.WRITER
        connection.direct = placed.route.direct
        connection.socket_id = sockets.identify(pgconn.socket)
        access = Access(call.request, placed.route, call.sources, call.params)
        MONITOR.attend(placed.cluster, access, call.names)


def soundness(connection: Any, placed: ConnectResult[Any]) -> Callable[[], bool]:
    """Return a function that says whether a connection may still be used, by what is known here.

    One function, that looks where it has to and no further: a pool asks at every checkout. That the server has not
    ended the connection, and reports the role that it reported first, may be `LOOK_SECONDS` old.
    """
    pgconn, reported, owner = connection.pgconn, connection.reported, connection.process
    cluster, instance, generation = placed.cluster, placed.instance, placed.generation
    ended, now, process = sockets.end_of(pgconn.socket), time.monotonic, os.getpid
    looked = now()

    def sound() -> bool:
        nonlocal looked
        if process() != owner:
            return False
        if instance is not None:
            known = cluster.view.instances.get(instance)
            if known is None or known.generation != generation:
                return False
        if now() - looked > LOOK_SECONDS:
            if ended() or reported_standby(pgconn) is not reported:
                return False
            looked = now()
        return True

    return sound
