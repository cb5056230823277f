"""The name server on a host of its own: the control plane sends it the zone whenever that changes.

Run as ``python -m aurora_router_cluster.hosts.nameserver --listen HOST:PORT --dns HOST:PORT``; the cluster's secret is
the first line of standard input. While the control plane is away it goes on with what it knows.

With ``--outside`` and ``--published`` clients outside of the hosts' network (by a port that is forwarded to
this process) get the addresses at which the hosts are published there.
"""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from typing import TYPE_CHECKING, Any

from aurora_router_cluster.dns.zone import Zone
from aurora_router_cluster.hosts.link import HostLink, HostServer, serving
from aurora_router_cluster.storage import process

if TYPE_CHECKING:
    import argparse
    import asyncio
    from collections.abc import Callable

    from aurora_router_cluster.hosts.hosts import Host

NOTHING = Zone("invalid", {})


class RemoteDns:
    """The control plane's side: what `dns.server.DnsServer` is where it is not the control plane itself.

    Args:
        picture: the zone as of now.
        place: host of the name server.
        secret: the cluster's.
    """

    def __init__(self, picture: Callable[[], Zone], place: Host, secret: str) -> None:
        self._picture = picture
        self._link = HostLink(place.host, place.port, secret, introduced=self.send_zone)
        self.host, self.port = place.host, 0

    async def start(self, timeout: float = 60.0) -> None:
        """Connect and send the zone.

        Raises:
            EngineError: no answer within `timeout` seconds.
        """
        self._link.start()
        await self._link.await_connection(timeout)
        self.port = (await self._link.ask("where", timeout=10.0)).facts["port"]

    def send_zone(self) -> None:
        """Send the zone; it is sent again with every new connection."""
        zone = self._picture()
        facts: dict[str, Any] = {
            "apex": zone.apex,
            "hosts": {name: list(addresses) for name, addresses in zone.hosts.items()},
            "cnames": dict(zone.cnames),
            "ttl": zone.ttl,
            "serial": zone.serial,
        }
        _ = self._link.post("zone", facts)  # the answer is not awaited

    async def close(self) -> None:
        """Leave it with what it knows."""
        await self._link.close()


class _Served:
    """The zone that was sent last."""

    def __init__(self, port: Callable[[], int]) -> None:
        self.zone = NOTHING
        self._port = port

    def take(self, facts: dict[str, Any], _data: bytes) -> None:
        hosts = {name: tuple(addresses) for name, addresses in facts.pop("hosts").items()}
        self.zone = Zone(hosts=hosts, **facts)

    def where(self, _facts: dict[str, Any], _data: bytes) -> dict[str, Any]:
        return {"port": self._port()}


async def serve(args: argparse.Namespace, secret: str, ended: asyncio.Event) -> None:
    """Serve the zone until asked to end."""
    from aurora_router_cluster.dns.server import DnsServer  # noqa: PLC0415 - not in the control plane's start

    served = _Served(lambda: servers[0].port)
    servers = [DnsServer(lambda: served.zone, *args.dns)]
    if args.outside is not None:
        servers.append(DnsServer(lambda: served.zone.with_published_addresses(args.published), *args.outside))
    async with contextlib.AsyncExitStack() as running:
        for server in servers:
            await server.start()
            running.push_async_callback(server.close)
        operations = {"zone": served.take, "where": served.where}
        async with serving(HostServer(secret, operations, dict), *args.listen):
            await ended.wait()


def addresses(text: str) -> dict[str, str]:
    """``INNER=OUTER,…`` as a mapping.

    Raises:
        ValueError: it is none.
    """
    pairs = [tuple(pair.split("=")) for pair in text.split(",")]
    return {str(ipaddress.IPv4Address(inner)): str(ipaddress.IPv4Address(outer)) for inner, outer in pairs}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = process.parser("nameserver", "The name server of a cluster.")
    made.add_argument(
        "--listen", type=process.address, required=True, metavar="HOST:PORT", help="where the control plane calls"
    )
    made.add_argument(
        "--dns", type=process.address, required=True, metavar="HOST:PORT", help="where names are asked for"
    )
    made.add_argument(
        "--outside", type=process.address, metavar="HOST:PORT", help="where they are asked for from outside"
    )
    made.add_argument(
        "--published",
        type=addresses,
        default={},
        metavar="INNER=OUTER,…",
        help="the addresses answered there instead",
    )
    return made


if __name__ == "__main__":
    sys.exit(process.run(parser().parse_args(), serve))
