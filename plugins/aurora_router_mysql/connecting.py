"""What a connect of PyMySQL needs of this library: one import, with the first connect, in the place of nine.

Each ``import`` statement in a function costs half a microsecond at every call, also of what was imported long ago.
"""

from __future__ import annotations

from aurora_router.flow.connect import connect as route_connection
from aurora_router.model.instance import Role
from aurora_router.placement import Placement
from aurora_router.policy.hang_detection import UNLIMITED, Limits
from aurora_router.runtime.blocking import run
from aurora_router.runtime.registry import REGISTRY
from aurora_router.runtime.sockets import identify_connected
from aurora_router_mysql.dial import Dial
from aurora_router_mysql.runtimes import BlockingRuntime

__all__ = [
    "REGISTRY",
    "UNLIMITED",
    "BlockingRuntime",
    "Dial",
    "Limits",
    "Placement",
    "Role",
    "identify_connected",
    "route_connection",
    "run",
]
