"""Whether the connections that the application wants can be had, also after a failover."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts, Session
    from aurora_router.doctor.finding import Problem

OF_MONITOR = 1
"""Sessions that the monitor of one process has with an instance."""
NEARLY = 0.9
"""More than this share of a limit leaves no room for a deployment or an operator."""


def _limits(session: Session) -> Iterator[tuple[int, str]]:
    yield session.connections, "max_connections, without those that are reserved"
    if session.role_limit is not None:
        yield session.role_limit, "the limit of the role"
    if session.database_limit is not None:
        yield session.database_limit, "the limit of the database"


def _find_too_many(facts: Facts) -> Iterator[Problem]:
    application = facts.setup.application
    limits = [
        (limit, f"{why} at {server.name}") for server, session in facts.sessions for limit, why in _limits(session)
    ]
    if application.pool_size is None or not limits:
        return
    wanted = application.processes * (application.pool_size + OF_MONITOR)
    limit, why = min(limits)
    if wanted <= limit * NEARLY:
        return
    yield (error if wanted > limit else warning)(
        f"{application.processes} processes with {application.pool_size} connections each, and one for each monitor, "
        f"are {wanted}; {limit} can be had ({why})",
        "After a failover all of them go to one instance. What does not fit is refused (53300).",
        f"Make the pools smaller ({max(1, int(limit * NEARLY) // application.processes - OF_MONITOR)} each), raise the "
        "limit, or put a pooler in between.",
    )


def _find_unequal(facts: Facts) -> Iterator[Problem]:
    writers = [session.connections for _, session in facts.sessions if not session.standby]
    small = {
        server.name: session.connections
        for server, session in facts.sessions
        if session.standby and writers and session.connections < max(writers)
    }
    if small:
        yield warning(
            f"readers accept fewer connections than the writer ({max(writers)}): "
            f"{join_short(f'{name} {count}' for name, count in small.items())}",
            "After a failover to one of them, connections that fit now are refused.",
            "Use one instance class and one parameter group, or size pools for the smallest.",
        )


def _find_idle_limit(facts: Facts) -> Iterator[Problem]:
    limited = {
        server.name: session.settings["idle_session_timeout"]
        for server, session in facts.sessions
        if session.settings.get("idle_session_timeout", "0") != "0"
    }
    if limited:
        yield warning(
            f"idle_session_timeout is {join_short(limited.values())} at {join_short(limited)}",
            "The server ends idle connections of pools, and sessions of the monitor, all the time.",
            "ALTER ROLE … SET idle_session_timeout = 0 for this user; let the pool's max_idle do it.",
        )


CHECKS = (
    Check("pool-size", "pools that are larger than the limits of a server (with --pool-size)", _find_too_many),
    Check("unequal-limits", "readers that accept fewer connections than the writer", _find_unequal),
    Check("idle-limit", "a server that ends idle connections", _find_idle_limit),
)
