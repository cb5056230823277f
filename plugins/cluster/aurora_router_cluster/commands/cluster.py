"""``aurora-router cluster …``: start a local cluster, look at it, change it, end it."""

from __future__ import annotations

import argparse
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import datadir, limits
from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.client.command import COMMANDS
from aurora_router_cluster.commands import api, faults, history, live, nodes, show
from aurora_router_cluster.errors import ClusterError, explain_os_error
from aurora_router_cluster.options import ENGINES, FLAVOURS, KEYWORDS, PACES
from aurora_router_cluster.registry import NAME_VARIABLE, default_key, explain_left

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.client.command import Command


NAME_HELP = "which cluster (default: $AURORA_ROUTER_CLUSTER, or the one of this user and working directory)"
API_HELP = "serve AWS's RDS API for all clusters of this user, or print how to reach it where it runs"
CLIENTS = ("aurora-router", "sqlalchemy", "psql")


class ClusterCommand:
    """The sub-command; an object for the entry point group ``aurora_router.commands``."""

    name = "cluster"
    help = "run a local cluster that behaves like Aurora, and change it while it runs"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the sub-commands and their arguments."""
        commands = parser.add_subparsers(required=True, metavar="ACTION")

        def add(name: str, run: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
            child = commands.add_parser(name, help=text, description=text)
            child.add_argument("--name", help=NAME_HELP)
            child.add_argument("--json", action="store_true", help="print JSON")
            child.set_defaults(action=run)
            return child

        _configure_up(add("up", _up, "start a cluster; it stays in the foreground and ends with Ctrl-C"))
        add("status", _status, "show the instances, their roles, zones and lag")
        listing = commands.add_parser(
            "list",
            help="list the clusters of this user that run",
            description="list the clusters of this user that run",
        )
        listing.add_argument("--json", action="store_true", help="print JSON")
        listing.set_defaults(action=_list)
        serving = commands.add_parser("api", help=API_HELP, description=API_HELP)
        serving.add_argument("--json", action="store_true", help="print JSON")
        api.configure(serving)
        serving.set_defaults(action=api.run)
        _configure_url(add("url", _url, "print URLs to connect with"))
        restarting = add("restart", _restart, "restart an instance in order, or start one that is down")
        restarting.add_argument("instance", help="its name")
        for command in sorted(COMMANDS.values(), key=lambda each: "." in each.path):  # the cluster's own come first
            child = add(command.action, partial(_run, command), command.text)
            for argument in command.arguments:
                argument.add_to(child)
        history.configure(add)
        breaking = add("fault", _fault, "break something on purpose, heal it, or list what is broken")
        breaking.formatter_class = argparse.RawDescriptionHelpFormatter
        faults.configure(breaking)
        add(
            "down",
            _down,
            "end a cluster; its data are deleted, unless it was started with --data",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Do it; 0: done, 1: refused or failed, and the reason was printed."""
        try:
            args.action(args)
        except ClusterError as error:
            sys.stderr.write(f"aurora-router cluster: {error}\n")
            return 1
        except BrokenPipeError:
            raise  # of standard output: the program that reads it has ended, and wants no more
        except OSError as error:
            sys.stderr.write(f"aurora-router cluster: {explain_os_error(error)}\n")
            return 1
        except (MemoryError, RuntimeError) as error:
            if (limit := limits.explain(error)) is None:
                raise
            sys.stderr.write(f"aurora-router cluster: {limit}\n")
            return 1
        return 0


def _configure_url(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--role", default="writer", metavar="ROLE",
        help="writer, reader, instance:NAME or custom:LABEL (default: %(default)s)")  # fmt: skip
    parser.add_argument("--for", dest="client", choices=CLIENTS,
        help="print the URL for one kind of client only, ready for $(...)")  # fmt: skip


def _configure_up(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", metavar="DIR",
        help="keep the cluster's data in DIR (made if missing) when it ends, and start the cluster that is there; the "
        "options that it was made with need not be repeated (default: the data are deleted when it ends)")  # fmt: skip
    add("--readers", type=int, metavar="N",
        help="readers to begin with, 0 to 15 (default: 2; with --data as many as there were)")  # fmt: skip
    add("--flavour", choices=FLAVOURS, help="storage under it (default: quorum)")
    add("--engine", choices=ENGINES,
        help="postgresql, or mysql: MariaDB servers with semi-synchronous replication, without the quorum storage "
        "(default: postgresql)")  # fmt: skip
    add("--mysql", metavar="DIR", help="directory of MariaDB's programs, for the engine mysql (default: search)")
    add("--postgres", metavar="DIR", help="directory of PostgreSQL's server binaries, 14 to 18 (default: search)")
    add("--domain", help="what follows the name in an instance's host name, e.g. c9akciq32.us-east-1.rds.amazonaws.com")
    add("--port", type=int, help="port of all instances (default: any free one)")
    add("--address", help="address of the first instance, e.g. 127.1.0.1 (default: random ones of 127.0.0.0/8)")
    add("--dns-port", type=int, help="port of the name server (default: any free one)")
    add("--dns-ttl", type=int, metavar="SECONDS", help="time to live of its records (default: 5)")
    add("--pace", choices=PACES,
        help="how long a failover takes: as fast as it can, or as on Amazon Aurora (default: fast)")  # fmt: skip
    add("--detection", type=float, metavar="SECONDS",
        help="from the loss of a writer until a failover begins (default: 0; --pace aws: 5)")  # fmt: skip
    add("--promotion", type=float, metavar="SECONDS",
        help="that a promotion takes at least (default: 0; --pace aws: 5)")  # fmt: skip
    add("--dns-delay", type=float, metavar="SECONDS",
        help="how long the cluster name lags behind a failover (default: 0; --pace aws: 3)")  # fmt: skip
    add("--restart-readers", action=argparse.BooleanOptionalAction,
        help="let all readers restart in a failover (default: no; --pace aws: yes)")  # fmt: skip
    add("--directory", metavar="DIR",
        help="where the instances' files go, deleted when it ends (default: tmpfs where there is room)")  # fmt: skip
    add("--detect", type=float, metavar="SECONDS", help="heartbeat interval (default: 0.2)")
    add("--auto", action=argparse.BooleanOptionalAction,
        help="fail over and restart by itself; otherwise only watch, and do so on request (default: yes)")  # fmt: skip
    add("--tls", action="store_const", const=True, help="serve TLS, with certificates of a CA of the cluster's own")
    add("--api", action="store_const", const=True,
        help="serve it by the RDS API on this machine, which is started where none runs (cluster api)")  # fmt: skip
    add("--instance-class", metavar="CLASS", help="that the RDS API shows of its instances (default: db.r6g.large)")
    add("--auto-scale", metavar="MIN..MAX",
        help="add readers and remove them again, as many as the load needs; with one of the next two")  # fmt: skip
    add("--target-connections", type=float, metavar="N", help="connections per reader that --auto-scale aims at")
    add("--target-cpu", type=float, metavar="PERCENT", help="processor use of the readers that --auto-scale aims at")
    add("--scale-period", type=float, metavar="SECONDS", help="between two looks at the load (default: 1; Aurora: 60)")
    add("--scale-out-cooldown", type=float, metavar="SECONDS", help="between two additions (default: 5; Aurora: 300)")
    add("--scale-in-cooldown", type=float, metavar="SECONDS",
        help="from the last change until a reader is removed (default: 5; Aurora: 300)")  # fmt: skip
    add("--scale-drain", type=float, metavar="SECONDS",
        help="that the sessions of a removed reader get (default: 60; Aurora: 180)")  # fmt: skip
    add("--serverless", metavar="MIN..MAX",
        help="capacity of each instance in ACU, which follows its load, e.g. 0.5..16; 0: it may pause")  # fmt: skip
    add("--pause-after", type=float, metavar="SECONDS",
        help="without a user's session after which instances pause (default with a minimum of 0: 300)")  # fmt: skip
    add("--resume", type=float, metavar="SECONDS",
        help="that a paused instance needs for its first connection (default: 12)")  # fmt: skip
    add("--iam", action="store_const", const=True,
        help="let users with the role rds_iam log in by IAM token alone; serves TLS, too")  # fmt: skip
    add("--iam-token-lifetime", type=float, metavar="SECONDS", help="how long a token counts (default: 900)")
    nodes.configure_up(parser)
    add(
        "--faults",
        action="store_const",
        const=True,
        help="put a relay in front of the instances, for faults of the network",
    )
    add("--retention", type=float, metavar="SECONDS",
        help="how far it can be set back, or restored from (default: 300)")  # fmt: skip
    add("--settings", action="append", metavar="NAME=VALUE", type=_setting,
        help="a server setting for all instances; may be repeated")  # fmt: skip
    add("--detach", action="store_true", help="return when it is ready, and leave it running until `cluster down`")


def _setting(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is no setting; want NAME=VALUE, e.g. work_mem=8MB")
    return name.strip(), value.strip()


def _up(args: argparse.Namespace) -> None:
    given = {each: getattr(args, each, None) for each in KEYWORDS}
    options: dict[str, Any] = {each: value for each, value in given.items() if value is not None}
    if "settings" in options:
        options["settings"] = dict(options["settings"])
    name = args.name or os.environ.get(NAME_VARIABLE)
    if name is None and args.data:
        name = datadir.name_of(Path(args.data))  # by which scripts found it before
    cluster = LocalCluster.start(name, key=None if name else default_key(), detach=args.detach, **options)
    status = cluster.status()
    with cluster:
        if args.json:
            _print_json({**status.as_dict(), "connect": show.connections(cluster), **_api_facts(cluster, args)})
        else:
            show.status(status, picture=args.detach or not live.possible())
            if args.api and (access := cluster.api) is not None:
                show.line("\n".join(["", *api.describe(access, cluster.region)]))
            show.how_to_connect(cluster, detached=args.detach)
        if not args.detach:
            try:
                if live.possible() and not args.json:
                    live.watch(cluster, show.instance_table)
                cluster.wait()
            except KeyboardInterrupt:
                show.line(f"stopping; {show.fate(status)}")
    if not args.detach and Path(status.directory).exists():
        sys.stderr.write(f"aurora-router cluster: {explain_left([Path(status.directory)])}\n")


def _api_facts(cluster: LocalCluster, args: argparse.Namespace) -> dict[str, Any]:
    access = cluster.api if args.api else None
    return {"api": api.facts(access, cluster.region)} if access is not None else {}


def _status(args: argparse.Namespace) -> None:
    cluster = LocalCluster.attach(args.name)
    status = cluster.status()
    if args.json:
        _print_json({**status.as_dict(), "connect": show.connections(cluster)})
    else:
        show.status(status)


def _list(args: argparse.Namespace) -> None:
    found = [each.status() for each in LocalCluster.running()]
    if args.json:
        _print_json({"clusters": [show.summary(each) for each in found]})
    elif found:
        show.clusters(found)
    else:
        show.line("no cluster of yours is running; start one with: aurora-router cluster up")


def _url(args: argparse.Namespace) -> None:
    urls = show.urls(LocalCluster.attach(args.name), args.role)
    if args.json:
        _print_json(urls if args.client is None else {args.client: urls[args.client]})
    elif args.client is not None:
        show.line(urls[args.client])
    else:
        for client, url in urls.items():
            show.line(f"{client.ljust(13)}  {url}")


def _run(command: Command, args: argparse.Namespace) -> None:
    """Do what an entry of the table says."""
    show.result(args, *command.run(LocalCluster.attach(args.name), args))


def _restart(args: argparse.Namespace) -> None:
    cluster = LocalCluster.attach(args.name)
    if cluster.instance(args.instance).pid is None:
        cluster.start_instance(args.instance)
    else:
        cluster.restart(args.instance)
    show.result(args, f"{args.instance} is restarted", {"restarted": args.instance})


def _fault(args: argparse.Namespace) -> None:
    words, facts = faults.run(LocalCluster.attach(args.name), args)
    show.result(args, "\n".join(words), facts)


def _down(args: argparse.Namespace) -> None:
    cluster = LocalCluster.attach(args.name)
    status = cluster.status()
    if not args.json:
        show.line(f"ending the cluster {status.key}; {show.fate(status)}")
    cluster.down()
    facts = {"ended": status.key, "deleted": status.directory, "kept": status.data}
    if status.data is not None and not datadir.holds_cluster(Path(status.data)):
        facts["kept"] = None
    text = f"the cluster {status.key} has ended"
    if Path(status.directory).exists():
        facts["deleted"] = None
        text += f"; {explain_left([Path(status.directory)])}"
    show.result(args, text, facts)


def _print_json(facts: dict[str, Any]) -> None:
    show.line(json.dumps(facts, indent=2))


cluster = ClusterCommand()
