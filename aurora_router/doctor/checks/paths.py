"""What lies between this host and the servers: poolers, proxies, load balancers, and what they prevent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.model.endpoint import EndpointKind
from aurora_router.policy.route import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Problem

_PROXIES = frozenset({EndpointKind.PROXY, EndpointKind.PROXY_ENDPOINT})


def _find_prepared(facts: Facts) -> Iterator[Problem]:
    pooled = [server.name for server, session in facts.sessions if session.pooled]
    is_proxy = facts.setup.kind in _PROXIES
    if not facts.setup.application.prepares or not (pooled or is_proxy):
        return
    what = join_short(pooled) if pooled else "RDS Proxy"
    yield warning(
        f"a pooler answers at {what}, and psycopg prepares statements by itself",
        "With transaction pooling the next transaction may get another session, without the prepared statement; RDS "
        "Proxy no longer shares a session that has one.",
        "Pass prepare_threshold=None to connect or in the pool's kwargs (then: doctor --prepare-threshold none).",
    )


def _find_balancer(facts: Facts) -> Iterator[Problem]:
    there, route = facts.ends, facts.setup.route
    if len(there) > 1 and route is not None and route.mode is Mode.NAME:
        yield error(
            f"one address leads to different servers: {join_short(sorted(there))}",
            "A load balancer is in between: a connect for the writer has to dial until it gets there by chance.",
            "Give each instance a port or name of its own there, and list them in aurora_instance_host.",
        )


def _find_silent_hangs(facts: Facts) -> Iterator[Problem]:
    route, setup = facts.setup.route, facts.setup
    if route is None or route.direct or setup.tcp_limited or setup.options is None or not setup.options.monitor:
        return
    hidden = [server.name for server, session in facts.sessions if session.pooled or not session.direct]
    if hidden:
        yield warning(
            f"a pooler, proxy or tunnel is in between at {join_short(hidden)}",
            "The monitor cannot know whether a ping meets what other connections meet, so it never cuts them: a hang "
            "lasts until the operating system gives up, after minutes.",
            "Set tcp_user_timeout=10000 (milliseconds), or connect to the instances directly.",
        )


CHECKS = (
    Check("prepared-statements", "prepared statements behind a pooler", _find_prepared),
    Check("load-balancer", "one address that leads to different servers", _find_balancer),
    Check("hang-detection", "paths on which hangs cannot be noticed", _find_silent_hangs),
)
