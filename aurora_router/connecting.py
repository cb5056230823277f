"""What a connect of psycopg needs of this library: one import, with the first connect, in the place of fifteen.

Each ``import`` statement in a function costs half a microsecond at every call, also of what was imported long ago.
"""

from __future__ import annotations

from aurora_router.flow.connect import connect as route_connection
from aurora_router.model.instance import Role
from aurora_router.placement import Placement
from aurora_router.policy.hang_detection import UNLIMITED, Limits
from aurora_router.runtime.blocking import run
from aurora_router.runtime.connect_args import limit_args, opening, opening_async, read_connect_args
from aurora_router.runtime.dns import names_of
from aurora_router.runtime.libpq import NO_LOGIN, dial_params, make_conninfo, reported_standby
from aurora_router.runtime.libpq_runtimes import BlockingRuntime, EventLoopRuntime
from aurora_router.runtime.registry import REGISTRY
from aurora_router.runtime.session_cache import SESSIONS
from aurora_router.runtime.sockets import end_of, identify_connected

__all__ = [
    "NO_LOGIN",
    "REGISTRY",
    "SESSIONS",
    "UNLIMITED",
    "BlockingRuntime",
    "EventLoopRuntime",
    "Limits",
    "Placement",
    "Role",
    "dial_params",
    "end_of",
    "identify_connected",
    "limit_args",
    "make_conninfo",
    "names_of",
    "opening",
    "opening_async",
    "read_connect_args",
    "reported_standby",
    "route_connection",
    "run",
]
