"""``aurora-router cluster api``: the RDS API in the foreground, or how to reach the one that runs."""

from __future__ import annotations

import contextlib
import json
import signal
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.client import api
from aurora_router_cluster.commands import show
from aurora_router_cluster.dns import names

if TYPE_CHECKING:
    import argparse

    from aurora_router_cluster.client.api import ApiAccess


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("--port", type=int, help="port to listen on (default: the one that it had before, or any)")
    parser.add_argument("--region", default=names.REGION, help="region to print (default: %(default)s)")


def run(args: argparse.Namespace) -> None:
    """Print how to reach the API that runs; where none does, serve until Ctrl-C."""
    api.check_installed()
    with contextlib.ExitStack() as starting, contextlib.ExitStack() as serving:
        directory = starting.enter_context(api.starting_alone())
        access = api.find()
        if access is not None:
            _print(access, args)
            return
        from aurora_router_cluster.api import process  # noqa: PLC0415 - an extra, and slow to import

        access = serving.enter_context(process.serving(directory, args.port))
        starting.close()
        with contextlib.suppress(KeyboardInterrupt):
            _print(access, args)
            signal.pause()


def _print(access: ApiAccess, args: argparse.Namespace) -> None:
    if args.json:
        show.line(json.dumps(facts(access, args.region), indent=2))
    else:
        for text in describe(access, args.region):
            show.line(text)


def facts(access: ApiAccess, region: str) -> dict[str, Any]:
    """For ``--json``."""
    return {"url": access.url, "region": region, "environment": access.environment(region)}


def describe(access: ApiAccess, region: str) -> list[str]:
    """Lines to paste."""
    exports = [f"  export {name}={value}" for name, value in access.environment(region).items()]
    return [f"RDS API at {access.url}, for boto3 and the AWS CLI:", *exports]
