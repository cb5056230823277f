"""What the API serves: the clusters of this user that run, as their supervisors describe them now.

An identifier is unique on AWS within an account and a region. Local clusters may share a label; then their domains
differ, as between two accounts. So each domain has an account number of its own, and an ARN is always unique.
"""

from __future__ import annotations

import contextlib
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from aurora_router_cluster import registry
from aurora_router_cluster.api.errors import ApiError, Fault
from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.control import channel
from aurora_router_cluster.control.status import ClusterStatus, InstanceStatus
from aurora_router_cluster.dns.names import Names
from aurora_router_cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ASK_TIMEOUT = 20.0
"""Seconds that a supervisor has to describe its cluster; one that hangs is left out."""
AT_ONCE = 8
"""Supervisors that are asked at the same time."""
_ID_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Found:
    """A cluster that runs.

    Attributes:
        status: of it, as of now.
    """

    status: ClusterStatus

    @property
    def region(self) -> str:
        """AWS region, from its domain."""
        return Names(self.status.name, self.status.domain).region

    @property
    def arn(self) -> str:
        """Unique among all clusters."""
        return self.arn_of("cluster", self.status.name)

    def arn_of(self, kind: str, name: str) -> str:
        """ARN of a resource of the cluster: ``cluster``, ``db``, ``cluster-endpoint`` or ``cluster-snapshot``."""
        return f"arn:aws:rds:{self.region}:{_account_number(self.status.domain)}:{kind}:{name}"

    def resource_id(self, prefix: str, name: str) -> str:
        """The immutable id of a resource, e.g. ``cluster-ABCD…``."""
        digest = hashlib.sha256(f"{prefix} {name} {self.status.domain}".encode()).digest()
        return f"{prefix}-{''.join(_ID_ALPHABET[byte % 32] for byte in digest[:26])}"

    def ask(self, command: str, **arguments: object) -> Any:
        """Send a request that its supervisor answers at once.

        Raises:
            ClusterError: what it answered, or that it did not.
        """
        return _ask(self.status.key, command, **arguments)

    def ask_for_status(self) -> ClusterStatus:
        """Its status as of now; errors as of `ask`."""
        return _ask_for_status(self.status.key)

    def ask_if_it_answers(self, command: str) -> Any:
        """As `ask`; None: it has ended meanwhile, or is of a version that does not know the request."""
        try:
            return self.ask(command)
        except ClusterError:
            return None

    def attach(self) -> LocalCluster:
        """The cluster as an object.

        Raises:
            ClusterNotFoundError: it has ended.
        """
        return LocalCluster.attach(self.status.key)


class Account:
    """The clusters of this user in one region.

    Args:
        region: which.
    """

    def __init__(self, region: str) -> None:
        self.region = region
        self._found: list[Found] | None = None

    @property
    def clusters(self) -> list[Found]:
        """All of them, as of the first time that this was asked."""
        if self._found is None:
            self._found = [one for one in find_clusters() if one.region == self.region]
        return self._found

    def forget(self) -> None:
        """Ask the supervisors again when the clusters are needed next."""
        self._found = None

    def cluster(self, identifier: str) -> Found:
        """The cluster of that identifier or ARN; case does not matter.

        Raises:
            Fault: there is none.
            ApiError: there are several.
        """
        matching = [one for one in self.clusters if is_called(identifier, one.status.name, one.arn)]
        if not matching:
            raise Fault("DBClusterNotFoundFault", f"DBCluster {identifier} not found.")
        return single(matching, [one.arn for one in matching], identifier)

    def instance(self, identifier: str) -> tuple[Found, InstanceStatus]:
        """The instance of that identifier or ARN, and its cluster; case does not matter.

        Raises:
            Fault: there is none.
            ApiError: there are several.
        """
        matching = [
            (one, instance)
            for one in self.clusters
            for instance in one.status.instances
            if is_called(identifier, instance.name, one.arn_of("db", instance.name))
        ]
        if not matching:
            raise Fault("DBInstanceNotFoundFault", f"DBInstance {identifier} not found.")
        return single(matching, [one.arn_of("db", instance.name) for one, instance in matching], identifier)


_in_creation: dict[str, Found] = {}
"""Key -> a cluster that this process is making, and that does not answer yet."""


@contextlib.contextmanager
def in_creation(status: ClusterStatus) -> Iterator[None]:
    """Show a cluster that is being made among the others, until the block ends."""
    _in_creation[status.key] = Found(status)
    try:
        yield
    finally:
        del _in_creation[status.key]


def is_in_creation(key: str) -> bool:
    """Whether this process is making a cluster of that key."""
    return key in _in_creation


def find_clusters() -> list[Found]:
    """The clusters of this user that run or are being made, in all regions, in the order of their names."""
    described = dict(_in_creation)  # first: one that answers meanwhile takes the place of its former self
    if keys := registry.running():
        with ThreadPoolExecutor(min(AT_ONCE, len(keys)), thread_name_prefix="status") as pool:
            answers = [Found(status) for status in pool.map(_describe, keys) if status is not None]
        described |= {one.status.key: one for one in answers}
    return sorted(described.values(), key=lambda one: (one.status.name, one.arn))


def _describe(key: str) -> ClusterStatus | None:
    try:
        return _ask_for_status(key)
    except ClusterError:  # it starts, ends, hangs, or is of another version
        return None


def _ask_for_status(key: str) -> ClusterStatus:
    return ClusterStatus.from_dict(_ask(key, "status"))


def _ask(key: str, command: str, **arguments: object) -> Any:
    return channel.request(registry.ClusterDirectory(key).socket, command, arguments, ASK_TIMEOUT)


def is_called(wanted: str, name: str, arn: str) -> bool:
    """Whether an identifier or ARN is that of a resource."""
    return wanted.lower() in {name, arn.lower()}


def single(matching: Sequence[T], arns: Sequence[str], identifier: str) -> T:
    """The only one of the resources that an identifier matches.

    Raises:
        ApiError: there are several; the message has their ARNs.
    """
    if len(matching) > 1:
        raise ApiError(
            "InvalidParameterValue",
            f"{len(matching)} clusters on this machine have a resource {identifier}; name it by its ARN: "
            f"{', '.join(arns)}",
        )
    return matching[0]


def _account_number(domain: str) -> str:
    """Twelve digits."""
    number = int.from_bytes(hashlib.sha256(domain.encode()).digest()[:8], "big")
    return f"{number % 10**12:012d}"
