"""A picture of the cluster's DNS zone: which name means what at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Zone:
    """What the names mean at one moment; host names in lower case without a trailing dot.

    Attributes:
        apex: the zone's own name.
        hosts: host name -> the addresses that it leads to; one is given per answer, in turn. May be empty.
        cnames: host name (in the zone or not) -> host name.
        ttl: time to live of every record, seconds.
        serial: of the SOA.
    """

    apex: str
    hosts: Mapping[str, tuple[str, ...]]
    cnames: Mapping[str, str] = field(default_factory=dict)
    ttl: int = 5
    serial: int = 1

    def with_published_addresses(self, addresses: Mapping[str, str]) -> Zone:
        """The zone as it is answered where hosts are reached by other addresses (inner -> outer) than their own."""
        hosts = {name: tuple(addresses.get(each, each) for each in own) for name, own in self.hosts.items()}
        return replace(self, hosts=hosts)

    def exists(self, name: str) -> bool:
        """Whether the name has records, or lies above one that has (an empty non-terminal)."""
        return (
            name == self.apex
            or name in self.hosts
            or name in self.cnames
            or any(host.endswith(f".{name}") for host in (*self.hosts, *self.cnames))
        )

    def is_below(self, name: str) -> bool:
        """Whether the name is the zone's own or below it."""
        return name == self.apex or name.endswith(f".{self.apex}")
