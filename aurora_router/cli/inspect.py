"""``topology URL`` and ``explain HOST-or-URL``: what the router sees, what it would do, and what it did last."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from aurora_router.cli import output
from aurora_router.cli.certificates import find_expiries
from aurora_router.cli.inspected import add_directory, read_processes
from aurora_router.model.endpoint import EndpointKind
from aurora_router.router import Router

if TYPE_CHECKING:
    import argparse

    from aurora_router.model.endpoint import Endpoint
    from aurora_router.model.instance import Instance
    from aurora_router.model.view import View

_CONNINFO = re.compile(r"^[\w+]+://|=")


def read_target(text: str) -> str:
    """A conninfo: as given, or one with a bare host."""
    return text if _CONNINFO.search(text) else f"host={text}"


PROXIES = (EndpointKind.PROXY, EndpointKind.PROXY_ENDPOINT)
PINNING = (
    "pass prepare_threshold=None: a prepared statement, SET, LISTEN, a temporary table and an advisory lock pin a "
    "session, and RDS Proxy no longer shares its server connection"
)
PUBLIC_ROOTS = "for sslmode=verify-full set sslrootcert=system: the certificates of RDS Proxy are public ones"
ROOTS_OF_RDS = (
    "for sslmode=verify-full set sslrootcert to the file of RDS's own roots, which sslrootcert=system does not have: "
    "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem"
)
ROOTS_ELSEWHERE = (
    "for sslmode=verify-full set sslrootcert to the file of RDS's own roots for this partition, which "
    "sslrootcert=system does not have"
)


def advise(endpoint: Endpoint) -> tuple[str, ...]:
    """What to set for a name of AWS, beside the routing: certificates, and what pins the sessions of a proxy."""
    if endpoint.partition in {None, "test"}:
        return ()
    if endpoint.kind in PROXIES:
        return (PUBLIC_ROOTS, PINNING)
    return (ROOTS_OF_RDS if endpoint.partition == "aws" else ROOTS_ELSEWHERE,)


class Topology:
    """Ask a cluster for its topology and print it."""

    name = "topology"
    help = "ask a cluster for its instances, roles and lag"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("target", metavar="URL", help="a URL or conninfo, or a bare host name")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Ask, and print."""
        router = Router(read_target(args.target))
        view = router.topology()
        if args.json:
            facts, expiries = view_as_json(view), find_expiries(router, view.instances)
            for each in facts["instances"]:
                end = expiries.get(each["id"])
                each["certificate_expires"] = None if end is None else end.isoformat()
            output.say_json(facts)
            return 0
        rows = [_row(each) for each in view.instances.values()]
        output.table(("instance", "role", "zone", "lag ms", "cpu %"), rows)
        output.say(f"writer: {view.writer or 'none known'}; evidence: {view.token}")
        for id_, drain in sorted(view.drains.items()):
            output.say(f"{id_} is drained{f': {drain.reason}' if drain.reason else ''}")
        return 0


class Explain:
    """Say how a host or URL is routed, and why."""

    name = "explain"
    help = "say what kind of endpoint a host is, which role it gives and how it is routed"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        parser.add_argument("target", metavar="HOST-or-URL", nargs="?", help="a host name, a URL or a conninfo")
        parser.set_defaults(last_word="target")
        last = "say where the last connects of running processes went, and why (needs an inspection socket)"
        parser.add_argument("--last", action="store_true", help=last)
        add_directory(parser)
        parser.add_argument("--connect", action="store_true", help="ask the cluster too, and show the choice")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Decide, and say why."""
        if args.last:
            return _explain_last(args)
        if args.target is None:
            output.complain("aurora-router explain: give a host name, a URL or a conninfo, or --last")
            return 2
        router = Router(read_target(args.target))
        if args.connect:
            router.topology()
        explanation = router.explain()
        facts: dict[str, Any] = {
            "host": explanation.endpoint.host,
            "kind": explanation.endpoint.kind.value,
            "cluster or instance": explanation.endpoint.label,
            "domain": explanation.endpoint.domain,
            "region": explanation.endpoint.region,
            "partition": explanation.endpoint.partition,
            "role": explanation.role.value,
            "connects to": explanation.mode.value,
        }
        advice = advise(explanation.endpoint)
        if args.json:
            more = {"reasons": explanation.reasons, "candidates": explanation.candidates, "advice": advice}
            output.say_json({**facts, **more})
            return 0
        width = max(map(len, facts))
        for name, value in facts.items():
            if value:
                output.say(f"{name.ljust(width)}  {value}")
        for title, lines in (
            ("because", explanation.reasons),
            ("candidates", explanation.candidates),
            ("advice", advice),
        ):
            for number, line in enumerate(lines):
                output.say(f"{(title if number == 0 else '').ljust(width)}  {line}")
        return 0


def _explain_last(args: argparse.Namespace) -> int:
    processes = read_processes(args.dir)
    connects = [
        {"process": each["process"], "program": each["program"], "cluster": cluster["name"], **connect}
        for each in processes
        for cluster in each["clusters"]
        for connect in cluster["connects"]
    ]
    connects.sort(key=lambda each: each["at"])
    if args.json:
        output.say_json(connects)
        return 0
    for each in connects:
        at = time.strftime("%H:%M:%S", time.localtime(each["at"]))
        where = each["instance"] or "the given name"
        output.say(f"{at}  {each['program']} {each['process']}, {each['cluster']} -> {where} ({each['role']})")
        output.say(f"          {each['why']}")
    return 0


def view_as_json(view: View) -> dict[str, Any]:
    """A view as plain values."""
    return {
        "writer": view.writer,
        "epoch": view.epoch,
        "token": view.token,
        "drains": [{"instance": id_, "reason": each.reason} for id_, each in sorted(view.drains.items())],
        "instances": [
            {"id": each.id, "role": each.role.value, "zone": each.zone, "lag_seconds": each.lag, "cpu": each.cpu}
            for each in view.instances.values()
        ],
    }


def _row(instance: Instance) -> tuple[str, ...]:
    lag = "" if instance.lag is None else f"{instance.lag * 1000:.1f}"
    cpu = "" if instance.cpu is None else f"{instance.cpu:.1f}"
    return (instance.id, instance.role.value, instance.zone or "", lag, cpu)
