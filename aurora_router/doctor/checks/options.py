"""What was given: refused, contradictory, without effect, or taken from the environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.model.endpoint import EndpointKind, WantedRole
from aurora_router.policy.route import CHOOSING, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Problem

OLD_LIBPQ, OLD_SERVER = 140000, 140000
"""Before these versions no server reports its role when a session begins."""
_CHOICE = ("aurora_balance", "aurora_weights", "aurora_max_lag", "aurora_zones", "aurora_reader_fallback")
"""Options that say which of several readers is taken."""
_MONITORED = ("aurora_hang_grace", "aurora_ping_timeout", "aurora_refresh")
_PLACES = {"host": "PGHOST", "hostaddr": "PGHOSTADDR", "target_session_attrs": "PGTARGETSESSIONATTRS"}
"""What decides where a connection goes -> the variable that says it where the URL does not."""


def _find_refused(facts: Facts) -> Iterator[Problem]:
    if facts.setup.refusal is not None:
        yield error(
            f"what was given is refused: {facts.setup.refusal}",
            "No connect is possible with it; nothing else was examined.",
            "Correct the parameter that the message names; docs/options.md lists all options.",
        )


def _find_environment(facts: Facts) -> Iterator[Problem]:
    setup = facts.setup
    for name, variable in _PLACES.items():
        value = setup.environment.get(variable)
        if value and not setup.given.get(name) and "service" not in setup.given:
            yield warning(
                f"{name} is not given, and the environment says {variable}={value}",
                "Where the connections go depends on the environment of each process: with another one, the same URL "
                "leads elsewhere."
                + (" An address is dialled as it is: no other instance is found." if name == "hostaddr" else ""),
                f"Put {name}={value} into the URL if it is meant, else `unset {variable}`.",
            )


def _find_fixed_address(facts: Facts) -> Iterator[Problem]:
    setup = facts.setup
    if setup.given.get("hostaddr") and len(setup.request.given if setup.request else ()) == 1:
        yield warning(
            f"hostaddr={setup.given['hostaddr']} is given",
            "That address alone is dialled: after a failover it is the former writer's. No other is found.",
            "Remove hostaddr; the driver resolves the name itself. For a tunnel set aurora_instance_host.",
        )


def _find_attributes(facts: Facts) -> Iterator[Problem]:
    wanted, options = facts.setup.given.get("target_session_attrs"), facts.setup.options
    if wanted is None or options is None:
        return
    if facts.setup.given.get("aurora_role") or facts.setup.given.get("aurora_instance"):
        mine = "aurora_role" if facts.setup.given.get("aurora_role") else "aurora_instance"
        yield warning(
            f"target_session_attrs={wanted} and {mine}={facts.setup.given[mine]} are both given",
            f"{mine} wins, and target_session_attrs has no effect.",
            "Remove target_session_attrs.",
        )


def _find_role_of_endpoint(facts: Facts) -> Iterator[Problem]:
    options = facts.setup.options
    if options is None or facts.setup.kind is not EndpointKind.CLUSTER_READER:
        return
    if options.role is WantedRole.WRITER and options.instance is None:
        yield warning(
            "the reader endpoint is given, and the role writer",
            "The first connect of each process dials a reader in vain, and during an outage of the readers no name "
            "leads to the writer.",
            "Give the cluster endpoint (the name with .cluster- in place of .cluster-ro-).",
        )


def _find_without_effect(facts: Facts) -> Iterator[Problem]:
    setup, route, options = facts.setup, facts.setup.route, facts.setup.options
    if route is None or options is None:
        return
    if route.mode is Mode.THROUGH:
        moot = [name for name in ("aurora_role", "aurora_instance_host", *_CHOICE) if name in setup.given]
        why = f"the {route.endpoint.kind.value} does its own routing"
    elif route.mode not in CHOOSING:
        moot, why = [name for name in _CHOICE if name in setup.given], f"it is dialled by {route.mode.value}"
    elif route.role is WantedRole.WRITER:
        moot, why = [name for name in _CHOICE if name in setup.given], "there is one writer"
    else:
        moot, why = [], ""
    if moot:
        yield warning(
            f"without effect: {join_short(moot)}",
            f"{why[0].upper()}{why[1:]}, so there is nothing to choose.",
            "Remove them, or give an endpoint and a role for which one of several readers is chosen.",
        )
    if "load_balance_hosts" in setup.given and route.mode is not Mode.THROUGH:
        yield warning(
            f"without effect: load_balance_hosts={setup.given['load_balance_hosts']}",
            "The driver chooses the instance and gives libpq one address.",
            "Remove it; use aurora_balance=random.",
        )


def _find_monitor(facts: Facts) -> Iterator[Problem]:
    options = facts.setup.options
    if options is None or options.monitor:
        return
    moot = [name for name in _MONITORED if name in facts.setup.given]
    more = f" {join_short(moot)} have no effect." if moot else ""
    yield warning(
        "aurora_monitor=off",
        "Hung instances are not noticed, and each connect has to find a new writer by itself." + more,
        "Remove aurora_monitor=off.",
    )


def _find_timeouts(facts: Facts) -> Iterator[Problem]:
    options = facts.setup.options
    if options is None:
        return
    dial, whole, pool = options.connect_timeout, options.failover_timeout, facts.setup.application.pool_timeout
    if 0 < whole <= dial:
        yield warning(
            f"one dial may take {dial:g} s, and a whole connect {whole:g} s (aurora_failover_timeout)",
            "One instance that does not answer uses up the time in which others could be tried.",
            f"Set connect_timeout (or aurora_connect_timeout) to {max(2, int(whole / 4)):g} or less.",
        )
    elif dial >= pool:
        yield warning(
            f"one dial may take {dial:g} s, and a checkout from the pool {pool:g} s",
            "One instance that does not answer makes the pool time out before another one is tried.",
            "Set connect_timeout (or aurora_connect_timeout) to 5 or less.",
        )


def _find_passfile(facts: Facts) -> Iterator[Problem]:
    path = facts.setup.exposed_passfile
    if path is not None:
        yield error(
            f"the password file {path} can be read by its group or by others",
            "libpq ignores it, so no password is sent.",
            f"chmod 600 {path}",
        )


def _find_versions(facts: Facts) -> Iterator[Problem]:
    here = facts.setup.versions
    if here.libpq < OLD_LIBPQ:
        yield warning(
            f"libpq {here.libpq // 10000} is old (psycopg {here.psycopg})",
            "It knows neither all parameters nor the role that a server reports.",
            "pip install 'psycopg[binary]', or install the system's current libpq.",
        )
    versions = {server.name: session.version // 10000 for server, session in facts.sessions}
    if len(set(versions.values())) > 1:
        yield warning(
            f"the servers run different major versions: {join_short(f'{name}: {v}' for name, v in versions.items())}",
            "They are no instances of one cluster, or an upgrade is under way.",
            "Check the list of hosts; wait for the end of the upgrade.",
        )
    old = [server.name for server, session in facts.sessions if 0 < session.version < OLD_SERVER]
    if old:
        yield warning(
            f"PostgreSQL before version 14: {join_short(old)}",
            "The server does not report its role, so each connect asks for it: one round trip more.",
            "Upgrade the cluster.",
        )


CHECKS = (
    Check("refused", "parameters and options that are unknown, malformed, or contradict each other", _find_refused),
    Check("environment", "variables of libpq that decide where connections go", _find_environment),
    Check("fixed-address", "an address that is dialled whatever instance is there", _find_fixed_address),
    Check("session-attributes", "target_session_attrs that has no effect", _find_attributes),
    Check("reader-endpoint", "the reader endpoint where the writer is wanted", _find_role_of_endpoint),
    Check("no-effect", "options that do nothing for such a name or role", _find_without_effect),
    Check("monitor-off", "a monitor that is turned off, and options of it", _find_monitor),
    Check("timeouts", "one dial that may take longer than the connect, or the pool's checkout", _find_timeouts),
    Check("password-file", "a password file that libpq ignores", _find_passfile),
    Check("versions", "versions of libpq and of the servers", _find_versions),
)
