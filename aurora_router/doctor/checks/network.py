"""Reaching servers and logging in."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from aurora_router.doctor.facts import Wire
from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.doctor.reason import Reason, reason_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts, Server
    from aurora_router.doctor.finding import Problem

_FIREWALL = (
    "Check the port, that the instance runs, and that security groups, network ACLs and routes permit this host."
)
_WIRES = {
    Wire.UNREACHABLE: ("cannot be reached", _FIREWALL),
    Wire.REFUSED: ("refuses connections: nothing listens there", _FIREWALL),
    Wire.SILENT: (
        "accepts connections and sends nothing",
        "The server hangs, or a proxy in between has no server: look at that host, or at the proxy's log.",
    ),
    Wire.FOREIGN: ("is no PostgreSQL server", "Check host and port: another service listens there."),
}


def _place(server: Server) -> str:
    where = f"{server.address}:{server.port}" if server.address else f"{server.host or 'the local socket'}"
    return server.name if where in server.name else f"{server.name} ({where})"


def _find_unreached(facts: Facts) -> Iterator[Problem]:
    whole = not any(facts.sessions)
    for wire, (what, remedy) in _WIRES.items():
        there = [each for each in facts.servers if each.wire is wire]
        if there:
            more = next((each.wire_text for each in there if each.wire_text), "")
            yield error(
                f"{join_short(map(_place, there))} {what}" + (f" ({more})" if more else ""),
                "No connection is possible from here."
                if whole
                else "The instance cannot serve this host, and a failover to it would end the writes of this host.",
                remedy,
            )


_LOGIN = {
    Reason.PASSWORD: (
        "the server rejects the credentials",
        "Connects fail at once, and so does the monitor.",
        "Correct user and password; with IAM tokens the policy (rds-db:connect), `GRANT rds_iam`, aurora_iam_host.",
    ),
    Reason.NO_PASSWORD: (
        "no password is given, and the server wants one",
        "Connects fail at once.",
        "Give it in the URL, PGPASSWORD or a password file, or set aurora_credentials.",
    ),
    Reason.NOT_PERMITTED: (
        "the server does not permit this user, database or address",
        "Connects fail at once.",
        "Correct pg_hba.conf, `GRANT CONNECT ON DATABASE`, or `ALTER ROLE … LOGIN`; on Aurora, rds.force_ssl.",
    ),
    Reason.NEEDS_TLS: (
        "the server accepts no connection without TLS",
        "Connects fail at once.",
        "Set sslmode=verify-full and sslrootcert.",
    ),
    Reason.DATABASE: (
        "there is no such database",
        "Connects fail at once.",
        "Correct dbname; without one, libpq takes the user's name.",
    ),
    Reason.FULL: (
        "no connection slot is left",
        "New connections are refused until others end, also those of the monitor.",
        "Make pools smaller, or raise the limit of the server, role or database; pg_stat_activity lists the sessions.",
    ),
    Reason.STARTING: (
        "the server starts or stops",
        "It serves no connection now.",
        "Repeat the examination in a moment.",
    ),
}


def _find_login(facts: Facts) -> Iterator[Problem]:
    by_reason: dict[Reason, list[Server]] = defaultdict(list)
    for each in facts.servers:
        if each.failure is not None:
            by_reason[reason_of(each.failure)].append(each)
    for reason, servers in by_reason.items():
        if reason in _LOGIN:
            what, meaning, remedy = _LOGIN[reason]
            failure = servers[0].failure
            assert failure is not None
            yield error(f"{join_short(map(_place, servers))}: {what} ({_short(failure.text)})", meaning, remedy)


def _short(text: str) -> str:
    return text.splitlines()[-1].rpartition("FATAL:")[2].strip() if text else ""


def _find_provider(facts: Facts) -> Iterator[Problem]:
    options = facts.setup.options
    if options is None or options.credentials is None:
        return
    failed = next((each.failure for each in facts.servers if each.failure and "provider" in each.failure.text), None)
    if failed is not None:
        yield error(
            f"aurora_credentials={options.credentials} gives no credentials: {failed.text.splitlines()[0]}",
            "Neither connects nor the monitor can log in.",
            "docs/howto-credentials.md lists what each provider needs; `aws sts get-caller-identity` shows whether AWS "
            "credentials are found here.",
        )


def _find_slow_dials(facts: Facts) -> Iterator[Problem]:
    options = facts.setup.options
    if options is None or not options.monitor:
        return
    slow = [each for each in facts.servers if each.session is not None and each.seconds > options.ping_timeout / 2]
    if slow:
        worst = max(each.seconds for each in slow)
        yield warning(
            f"connecting to {join_short(map(_place, slow))} takes up to {worst:.2f} s, and a ping may take "
            f"{options.ping_timeout:g} s (aurora_ping_timeout)",
            "A little more delay, and the monitor takes a healthy instance for hung, and cuts its connections.",
            "Find what makes a login slow (log_hostname, LDAP, a distant region), or set aurora_ping_timeout to "
            f"{max(2, round(worst * 4))}.",
        )


CHECKS = (
    Check("unreachable", "addresses where no PostgreSQL server answers", _find_unreached),
    Check("login", "logins that are rejected, databases that are missing, no free connection slot", _find_login),
    Check("credentials", "a provider of credentials that fails", _find_provider),
    Check("slow-dial", "connects so slow that the monitor's pings may fail", _find_slow_dials),
)
