"""``doctor URL``: what is set up wrongly, what it means, and what to do."""

from __future__ import annotations

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

from aurora_router.cli import output
from aurora_router.cli.inspect import read_target

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.doctor.assumptions import Evidence
    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Finding

HEALTHY, WARNINGS, ERRORS = 0, 1, 2
"""Exit status, as monitoring plugins have it."""


class Doctor:
    """Examine a setup from here, harmlessly, and report what is wrong."""

    name = "doctor"
    help = "examine names, TLS, logins, rights, roles, pools and options, and say what to do"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.description = (
            "Examine a setup from this host, harmlessly. Exit status: 0 nothing found, 1 warnings, 2 errors or a wrong "
            "command line."
        )
        parser.add_argument(
            "target", metavar="URL", help="as the application has it: a URL or conninfo, or a bare host"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")
        about = "check instead what is believed of Amazon Aurora, and print a report that can be sent to the authors"
        parser.add_argument("--assumptions", action="store_true", help=about)
        parser.add_argument("--pool-size", type=_count, metavar="N", help="most connections of one process")
        parser.add_argument("--processes", type=_count, default=1, metavar="N", help="processes with such a pool")
        seconds = "how long a checkout from the pool may wait; default: 30, as psycopg_pool and SQLAlchemy have it"
        parser.add_argument("--pool-timeout", type=float, default=30.0, metavar="SECONDS", help=seconds)
        prepares = "as the application passes it to psycopg: a number, or none; default: 5, as psycopg has it"
        parser.add_argument("--prepare-threshold", default="5", metavar="N", help=prepares)

    def run(self, args: argparse.Namespace) -> int:
        """Gather the facts, examine them, and print what was found."""
        if args.assumptions:
            return _report_assumptions(args)
        # What examines is loaded by this command alone.
        from aurora_router.doctor.checks import CHECKS, examine  # noqa: PLC0415
        from aurora_router.doctor.facts import Application  # noqa: PLC0415
        from aurora_router.doctor.finding import Level  # noqa: PLC0415
        from aurora_router.doctor.gathering.gather import gather  # noqa: PLC0415

        application = Application(
            pool_size=args.pool_size,
            processes=args.processes,
            pool_timeout=args.pool_timeout,
            prepares=args.prepare_threshold.lower() != "none",
        )
        facts = gather(read_target(args.target), application)
        found = examine(facts)
        if args.json:
            output.say_json({"findings": [_as_json(each) for each in found], "facts": _summary(facts)})
        else:
            _print(facts, found, len(CHECKS))
        if any(each.problem.level is Level.ERROR for each in found):
            return ERRORS
        return WARNINGS if found else HEALTHY


def _report_assumptions(args: argparse.Namespace) -> int:
    """Print a report about the assumptions, in which no id, no host and no address of the cluster is."""
    from aurora_router.doctor.assumptions import Verdict, judge_all  # noqa: PLC0415 - see above
    from aurora_router.doctor.gathering.evidence import gather_evidence  # noqa: PLC0415

    evidence = gather_evidence(read_target(args.target))
    if not evidence.looks:
        output.complain("aurora-router doctor: the instances cannot be asked; aurora-router doctor URL says why")
        return ERRORS
    judged, names = judge_all(evidence), _names_to_hide(evidence)
    rows = [(each.code, found.verdict.value, _hide(found.evidence, names)) for each, found in judged]
    versions = evidence.facts.setup.versions
    servers = sorted({session.version for _, session in evidence.sessions})
    if args.json:
        keys = ("code", "verdict", "evidence")
        about = {"driver": versions.driver, "psycopg": versions.psycopg, "libpq": versions.libpq, "servers": servers}
        output.say_json({**about, "assumptions": [dict(zip(keys, row, strict=True)) for row in rows]})
    else:
        output.say(f"aurora-router {versions.driver}, psycopg {versions.psycopg}, libpq {versions.libpq}")
        output.say(f"{len(evidence.sessions)} instances, PostgreSQL {', '.join(map(str, servers))}")
        output.table(("assumption", "holds", "evidence"), rows)
        for each, found in judged:
            if found.verdict is Verdict.FALSE:
                output.say(f"false here: {each.belief} What the driver does: {each.otherwise}")
        output.say("docs/assumptions.md has all of them")
    return WARNINGS if any(found.verdict is Verdict.FALSE for _, found in judged) else HEALTHY


def _names_to_hide(evidence: Evidence) -> dict[str, str]:
    """What is not to be in a report that is sent -> what stands for it."""
    hidden: dict[str, str] = {}
    for number, each in enumerate(evidence.facts.instances, 1):
        for name in (each.host, each.address, each.instance):
            if name:
                hidden.setdefault(name, f"instance {number}")
    given = [name for each in evidence.facts.given for name in (each.name, each.host)]
    for number, name in enumerate([*given, *(each.host for each in evidence.facts.names)], 1):
        if name:
            hidden.setdefault(name, f"endpoint {number}")
    return hidden


def _hide(text: str, names: Mapping[str, str]) -> str:
    for name in sorted(names, key=len, reverse=True):  # a name may be the beginning of another one
        text = text.replace(name, names[name])
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _as_json(finding: Finding) -> dict[str, str]:
    problem = finding.problem
    return {
        "code": finding.code,
        "level": problem.level.value,
        "what": problem.what,
        "meaning": problem.meaning,
        "remedy": problem.remedy,
    }


def _summary(facts: Facts) -> dict[str, Any]:
    """The facts that people ask for first, as plain values."""
    setup, topology, connected = facts.setup, facts.topology, facts.connected
    return {
        "versions": dataclasses.asdict(setup.versions),
        "connects_to": None if setup.route is None else setup.route.mode.value,
        "role": None if setup.route is None else setup.route.role.value,
        "source": None if topology is None else topology.source,
        "servers": [
            {
                "name": each.name,
                "host": each.host,
                "address": each.address,
                "port": each.port,
                "wire": None if each.wire is None else each.wire.value,
                "seconds": round(each.seconds, 4),
                "certificate_names": [] if each.certificate is None else list(each.certificate.names),
                "instance": None if each.session is None else each.session.instance,
                "role": None if each.session is None else "reader" if each.session.standby else "writer",
                "server_version": None if each.session is None else each.session.version,
                "error": None if each.failure is None else each.failure.text,
            }
            for each in facts.servers
        ],
        "lag_seconds": {each.id: each.lag for each in (topology.members if topology else ())},
        "connected": None
        if connected is None
        else {
            "instance": connected.instance,
            "role": connected.role,
            "why": connected.reason,
            "error": None if connected.error is None else connected.error.text,
        },
    }


def _print(facts: Facts, found: tuple[Finding, ...], count: int) -> None:
    lags = {each.id: each.lag for each in (facts.topology.members if facts.topology else ())}
    rows = [
        (
            each.name,
            f"{each.address or each.host or 'socket'}",
            "" if each.session is None else "reader" if each.session.standby else "writer",
            "" if each.session is None else f"{each.seconds * 1000:.0f}",
            "" if (lag := lags.get(each.instance or "")) is None else f"{lag * 1000:.1f}",
        )
        for each in facts.servers
    ]
    if rows:
        output.table(("dialled", "address", "role", "connect ms", "lag ms"), rows)
    if facts.connected is not None and facts.connected.error is None:
        output.say(f"a connect leads to {facts.connected.instance or 'the given name'}: {facts.connected.reason}")
    for each in found:
        output.say()
        output.say(f"{each.problem.level.value.upper()} {each.code}: {each.problem.what}")
        output.say(f"  it means: {each.problem.meaning}")
        output.say(f"  do:       {each.problem.remedy}")
    output.say()
    output.say(f"{count} checks, {len(found)} finding{'' if len(found) == 1 else 's'}")
