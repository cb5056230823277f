"""Loopback addresses and ports for the instances.

All instances of an Aurora cluster have the same port, so each instance gets a loopback address of its own
(``127.x.y.z``, drawn at random: clusters side by side do not meet) and one port that is free on all of them.
Systems that have only ``127.0.0.1`` (macOS) get distinct ports instead; names alone then do not lead to an
instance, the port has to be given too.
"""

from __future__ import annotations

import ipaddress
import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import AddressInUseError

if TYPE_CHECKING:
    from collections.abc import Collection

PORTS = range(20_000, 32_000)  # below what systems hand out to outgoing connections
ATTEMPTS = 200


@dataclass(frozen=True, slots=True)
class Address:
    """Where an instance listens."""

    host: str
    port: int


class Allocator:
    """Hands out addresses that are free at that moment.

    Args:
        port: the port that all instances shall have; None: any that is free.
        before: the port that they had before, taken again if it is free and `port` is None.
        shared: put all instances on 127.0.0.1 with distinct ports; None: only where the system has no others.
        first: the first instance's address; the following ones count upwards. None: random.

    Raises:
        AddressInUseError: `port` was asked for and is taken.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        shared: bool | None = None,
        first: str | None = None,
        before: int | None = None,
    ) -> None:
        self._random = random.Random()  # noqa: S311 - to avoid each other, not to be secret
        self.shared = not _bindable("127.83.1.1", 0) if shared is None else shared
        self._first = ipaddress.IPv4Address(first) if first else None
        self._fixed = port is not None
        if port is None and before is not None and _bindable("0.0.0.0", before):  # noqa: S104 - as in `_free_port`
            self.port = before
        else:
            self.port = port if port is not None else self._free_port()
        if self.shared and port is not None:
            raise AddressInUseError(
                f"this system has only 127.0.0.1, where {port} cannot be the port of all instances: leave the port out"
            )

    def take(self, taken: Collection[Address], before: Address | None = None) -> Address:
        """Return an address that is free and not among `taken`: `before`, if it is and has the port of all.

        Raises:
            AddressInUseError: none was found, or the one asked for is taken.
        """
        if before is not None and before not in taken and (self.shared or before.port == self.port):
            if _bindable(before.host, before.port):
                return before
            if self._first is not None:
                raise AddressInUseError(
                    f"{before.host}:{before.port}, where an instance of this cluster was, is taken, or not an address "
                    "of this machine; end what listens there"
                )
        return self._next_after_first(taken) if self._first is not None else self.take_any(taken)

    def take_any(self, taken: Collection[Address]) -> Address:
        """Return a random address that is free and not among `taken`.

        Raises:
            AddressInUseError: none was found.
        """
        for _ in range(ATTEMPTS):
            address = self._draw()
            if address not in taken and _bindable(address.host, address.port):
                return address
        raise AddressInUseError(
            f"port {self.port} is taken on {ATTEMPTS} loopback addresses in a row, so probably on all of them "
            "(a server that listens on 0.0.0.0?); "
            + ("choose another one, or none" if self._fixed else "stop that server, or name another port")
        )

    def _draw(self) -> Address:
        if self.shared:
            return Address("127.0.0.1", self._random.choice(PORTS))
        high, middle, low = self._random.randrange(64, 128), self._random.randrange(256), self._random.randrange(1, 255)
        return Address(f"127.{high}.{middle}.{low}", self.port)

    def _next_after_first(self, taken: Collection[Address]) -> Address:
        assert self._first is not None
        host = self._first
        while Address(str(host), self.port) in taken:
            host += 1
        if not _bindable(str(host), self.port):
            raise AddressInUseError(f"{host}:{self.port} is taken, or not an address of this machine; choose another")
        return Address(str(host), self.port)

    def _free_port(self) -> int:
        for _ in range(ATTEMPTS):
            port = self._random.choice(PORTS)
            if _bindable("0.0.0.0", port):  # noqa: S104 - asks whether anybody has the port anywhere
                return port
        raise AddressInUseError(f"no free port found between {PORTS.start} and {PORTS.stop}")


def _bindable(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True
