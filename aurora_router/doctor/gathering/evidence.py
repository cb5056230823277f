"""Evidence about assumptions: the doctor's facts, and what all instances answer at two moments."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from aurora_router.doctor.assumptions import Evidence, Look
from aurora_router.doctor.facts import Application
from aurora_router.doctor.gathering.gather import AT_ONCE, gather
from aurora_router.doctor.gathering.servers import dial
from aurora_router.doctor.gathering.setup import read_setup
from aurora_router.flow.runtime import Target

if TYPE_CHECKING:
    from aurora_router.doctor.facts import Server
    from aurora_router.runtime.connect_args import ConnectArgs

APART_SECONDS = 2.5
"""Between two looks: longer than rows may be old."""


def gather_evidence(conninfo: str) -> Evidence:
    """Collect what shows whether the assumptions hold. Harmless, as the doctor is."""
    facts = gather(conninfo, Application())
    _, args = read_setup(conninfo, Application())
    if args is None or not facts.instances:
        return Evidence(facts)
    first = _look_at_all(args, facts.instances)
    time.sleep(APART_SECONDS)
    return Evidence(facts, (first, _look_at_all(args, facts.instances)))


def _look_at_all(args: ConnectArgs, servers: tuple[Server, ...]) -> tuple[Look, ...]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return tuple(look for look in pool.map(lambda each: _look(args, each), servers) if look is not None)


def _look(args: ConnectArgs, server: Server) -> Look | None:
    addresses = () if server.address is None else (server.address,)
    found = dial(args, Target(server.name, server.host, server.port, addresses), asks=True)
    session = found.server.session
    if session is None or found.answer is None:
        return None
    return Look(session.instance or server.name, session.standby, time.time(), found.answer.rows)
