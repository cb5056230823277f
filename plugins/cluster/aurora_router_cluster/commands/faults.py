"""``aurora-router cluster fault …``: the command line's words for faults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.faults.catalog import KINDS, NODE, NODE_PREFIX

if TYPE_CHECKING:
    import argparse

    from aurora_router_cluster.client.cluster import LocalCluster

HEAL, LIST = "heal", "list"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    width = max(map(len, KINDS))
    lines = [f"{name.ljust(width)}  {'|'.join(kind.targets)}: {kind.does}" for name, kind in KINDS.items()]
    parser.epilog = "\n".join(["kinds of faults and their targets:", *(f"  {line}" for line in lines)])
    add = parser.add_argument
    add("kind", choices=[*KINDS, HEAL, LIST], metavar="KIND", help="a kind of fault, or heal, or list")
    add("target", nargs="?", default="", help="an instance, node:N or zone; for heal a fault's number (default: all)")
    parser.set_defaults(last_word="target")
    add("--hold", action="store_true", help="kill: leave it down until healed")
    add("--latency", type=float, metavar="MS", help="slow: milliseconds added, each way")
    add("--bandwidth", type=float, metavar="KIB", help="slow: KiB per second, each way and connection")
    add("--clients-only", action="store_true", help="partition: control plane and storage still reach the instance")
    add("--heartbeat-only", action="store_true", help="partition: clients and storage still do (a zombie writer)")
    add("--seconds", type=float, help="clock-skew: ahead; negative: behind")
    add("--offset", type=int, help="corrupt: which byte of the node's newest file")
    add("--refuse", action="store_true", help="dns-down: answer SERVFAIL instead of nothing")


def run(cluster: LocalCluster, args: argparse.Namespace) -> tuple[list[str], dict[str, Any]]:
    """Do what was asked; returns it in words, and as facts.

    Raises:
        RequestError: see `client.faults.Faults`.
    """
    faults = cluster.faults
    if args.kind == LIST:
        known = faults.list()
        return [fault.text for fault in known] or ["no fault is in force"], {"faults": [f.as_dict() for f in known]}
    if args.kind == HEAL:
        healed = faults.heal(_number(args.target))
        words = [f"healed: {fault.text}" for fault in healed] or ["no fault was in force"]
        return words, {"healed": [fault.as_dict() for fault in healed]}
    done = faults.inject(args.kind, _target(args), **_parameters(args)).fault
    lasts = f"in force; heal it with: fault heal {done.id}" if done.in_force else "done; nothing is left to heal"
    return [f"{done.text}: {lasts}"], done.as_dict()


def _number(text: str) -> int | None:
    if text in {"", "all"}:
        return None
    if not text.isdigit():
        raise RequestError(f"{text!r} is not a fault's number; `fault list` shows them, `fault heal all` heals all")
    return int(text)


def _target(args: argparse.Namespace) -> str:
    """A bare number is a node where the kind concerns nodes alone."""
    target: str = args.target
    return f"{NODE_PREFIX}{target}" if KINDS[args.kind].targets == (NODE,) and target.isdigit() else target


def _parameters(args: argparse.Namespace) -> dict[str, Any]:
    names = ("hold", "latency", "bandwidth", "clients_only", "heartbeat_only", "seconds", "offset", "refuse")
    given = {name: getattr(args, name) for name in names if getattr(args, name) not in {None, False}}
    if "latency" in given:
        given["latency"] /= 1e3
    return given
