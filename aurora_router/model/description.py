"""What is known of a cluster beside the answers to SQL: attributes of its instances, members of its custom endpoints.

Theory (Amazon RDS API Reference: DescribeDBInstances, DescribeDBClusterEndpoints). A description says nothing about
roles: the servers report those themselves. It is kept by the instance's id, whether or not SQL has listed that instance
yet, so an instance that joins has its attributes at once. Whether an instance is a member of a custom endpoint follows
from the endpoint's lists *and* the role by SQL, so a failover changes it at the moment at which the role does.
"""

from __future__ import annotations

import enum
from dataclasses import field
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.instance import Role

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.model.instance import Instance


@frozen
class Attributes:
    """What an instance is, whatever its role. None: not known.

    Attributes:
        zone: the name of its availability zone, ``eu-west-1a``; names differ between accounts.
        instance_class: ``db.r6g.large``.
        tier: its promotion tier, 0..15; the lowest is promoted first.
    """

    zone: str | None = None
    instance_class: str | None = None
    tier: int | None = None


UNKNOWN = Attributes()
MEMBERS_SECONDS = 900.0
"""How long the members of custom endpoints count that were read last: then DNS alone decides."""


class EndpointType(enum.Enum):
    """Which instances a custom endpoint takes; the value is what RDS calls it, in lower case."""

    ANY = "any"
    READER = "reader"
    WRITER = "writer"


@frozen
class CustomEndpoint:
    """Which instances are members of a custom endpoint.

    Attributes:
        type: which ones it takes where it has no list of its own.
        static: the ids of its members; empty: all but `excluded` that the type takes, also those that join later.
        excluded: ids of instances that are none.
    """

    type: EndpointType = EndpointType.ANY
    static: frozenset[str] = frozenset()
    excluded: frozenset[str] = frozenset()

    def has_member(self, instance: Instance) -> bool:
        """Whether an instance is a member in its present role; one whose role is not known may be.

        A list of members counts whatever the role. Without one, the type decides: the writer is no member of an
        endpoint for readers.
        """
        if self.static:
            return instance.id.lower() in self.static
        if instance.id.lower() in self.excluded:
            return False
        if self.type is EndpointType.READER:
            return instance.role is not Role.WRITER
        return self.type is EndpointType.ANY or instance.role is not Role.READER


NO_MEMBERS = CustomEndpoint(static=frozenset({""}))
"""Stands for a custom endpoint whose members are not known: no instance is one."""


@frozen
class Description:
    """An observation: a whole description of a cluster, which takes the place of the one before.

    Attributes:
        cluster: the cluster's own id there; None: it was not found.
        instances: attributes by instance id, in lower case.
        endpoints: the custom endpoints that can be used, by name, in lower case; None: they were not asked for.
        own_zone: the name that the zone of this process has among those of the instances; None: not known.
        advice: what people can change so that more is known; None: nothing.
        auto_pause: after how many seconds without connections instances pause; None: they do not.
    """

    cluster: str | None = None
    instances: Mapping[str, Attributes] = field(default_factory=lambda: MappingProxyType({}))
    endpoints: Mapping[str, CustomEndpoint] | None = None
    own_zone: str | None = None
    advice: str | None = None
    auto_pause: float | None = None
