"""A cluster as the RDS API describes it: zones, classes and tiers of its instances, members of its custom endpoints.

Theory (Amazon RDS API Reference). The API knows a cluster by its identifier, which its endpoints' names begin with; a
custom endpoint or an instance says there of which cluster it is. Identifiers are unique within an account and a region
only, so what is found counts only if it has the name by which users connect. Describing calls are throttled per
account and region, without a published limit: one question is two calls at most, or three the first time, and what
fails is tried again by `policy.describe_schedule` alone, not by botocore.

The API names zones as the account of the *cluster* does. Where this process runs in another account, its zone is found
by its id: EC2's API has the ids that go with the names, asked once.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from aurora_router.attributes import (
    Attributes,
    CustomEndpoint,
    Description,
    DescriptionFailed,
    EndpointKind,
    EndpointType,
    Question,
)
from aurora_router_aws import sdk
from aurora_router_aws.zone import NOWHERE, VARIABLE, OwnZone, find_own_zone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ONCE = {"mode": "standard", "total_max_attempts": 1}
"""How often botocore tries."""
SERVERLESS = "db.serverless"
"""The class of instances whose capacity follows the load."""
DEFAULT_PAUSE = 300.0
"""``SecondsUntilAutoPause`` where it is not given."""
USABLE = frozenset({"available", "modifying"})
"""The status of a custom endpoint that takes connections, with the members that it says."""


@dataclass(frozen=True, slots=True)
class RdsApi:
    """A source of attributes that asks the RDS API.

    Attributes:
        region: where the name that users connect by does not say it; None: the environment's.
        profile: of the AWS configuration; None: the environment's, or none.
        endpoint: URL of the API in place of the region's own.
        credentials: a hook that returns botocore's credentials, in the place of its chain.
    """

    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None
    credentials: Callable[[], sdk.Credentials] | None = field(default=None, repr=False)

    options: ClassVar[frozenset[str]] = frozenset({"rds_endpoint", "aws_region", "aws_profile"})

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> RdsApi:
        """Make it of the options of a connection."""
        return cls(options.get("aws_region"), options.get("aws_profile"), options.get("rds_endpoint"))

    def __call__(self, question: Question) -> Description:
        """Describe a cluster.

        Raises:
            DescriptionFailed: it is not permitted, the API does not answer, or has no such cluster.
        """
        own = find_own_zone() if question.own_zone else NOWHERE
        try:
            return sdk.attempt("describe the cluster by the RDS API", lambda: self._describe(question, own))
        except sdk.Failed as failed:
            raise DescriptionFailed(str(failed), lasting=failed.lasting, own_zone=own.name) from None
        except DescriptionFailed as failed:
            failed.own_zone = own.name
            raise

    def _describe(self, question: Question, own: OwnZone) -> Description:
        region = question.endpoint.region or self.region or sdk.find_region(self.profile)
        if region is None:
            raise DescriptionFailed(
                f"{question.endpoint.host} does not say its region, nor does the environment: set aurora_aws_region or "
                "AWS_REGION for aurora_attributes=rds",
                lasting=True,
            )
        client = sdk.find_client("rds", region, self.endpoint, self.profile, self.credentials, ONCE)
        cluster = question.cluster or _find_cluster(client, question)
        of_cluster = [{"Name": "db-cluster-id", "Values": [cluster]}]
        rows = list(_pages(client, "describe_db_instances", "DBInstances", Filters=of_cluster))
        if not rows:
            raise DescriptionFailed(f"the RDS API in {region} lists no instance of the cluster {cluster}")
        endpoints = None
        if question.endpoints:
            found = _pages(client, "describe_db_cluster_endpoints", "DBClusterEndpoints", DBClusterIdentifier=cluster)
            endpoints = dict(map(_read_endpoint, filter(_is_usable, found)))
        pause = _find_pause(client, cluster) if any(row.get("DBInstanceClass") == SERVERLESS for row in rows) else None
        described = Description(cluster, dict(map(_read_instance, rows)), endpoints, auto_pause=pause)
        return self._locate(described, own, region, _account_of(rows[0])) if question.own_zone else described

    def _locate(self, described: Description, own: OwnZone, region: str, account: str | None) -> Description:
        """The description with the zone of this process, as the account of the cluster names it, or with advice."""
        is_same = account is None or own.account is None or own.account == account
        if own.name is not None and is_same:
            return replace(described, own_zone=own.name)
        if own.id is None:
            where = "is not known"
            if own.name is not None:
                where = f"is {own.name}, but the cluster is in another account, which may have another name for it"
            text = f"the zone of this process {where}: set {VARIABLE} to the name that the cluster's account has for it"
            return replace(described, advice=f"{text}, or to its id; until then aurora_zones=own prefers none")
        try:
            names = sdk.attempt("find the names of the zones by the EC2 API", lambda: self._names_of_zones(region))
        except sdk.Failed as failed:
            text = f"the zone of this process is {own.id}, and its name in the account of the cluster is not known"
            return replace(described, advice=f"{text} ({failed}): permit ec2:DescribeAvailabilityZones")
        return replace(described, own_zone=names.get(own.id))

    def _names_of_zones(self, region: str) -> Mapping[str, str]:
        """The names of zones in the account of the cluster, by id; asked once."""
        key = region, self.profile, self.credentials
        if key not in _zones:
            client = sdk.find_client("ec2", region, None, self.profile, self.credentials, ONCE)
            found = client.describe_availability_zones()["AvailabilityZones"]
            _zones[key] = {each["ZoneId"]: each["ZoneName"] for each in found}
        return _zones[key]


_zones: dict[tuple[object, ...], Mapping[str, str]] = {}
"""What `RdsApi._names_of_zones` has found: few, since a process has few accounts and regions."""


def _find_cluster(client: Any, question: Question) -> str:
    """The identifier of the cluster that a name belongs to.

    Raises:
        DescriptionFailed: what is there under that identifier has another name.
    """
    endpoint, kind = question.endpoint, question.endpoint.kind
    if kind in {EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER}:
        found = client.describe_db_clusters(DBClusterIdentifier=endpoint.label)["DBClusters"]
        names = [name for each in found for name in (each.get("Endpoint"), each.get("ReaderEndpoint"))]
    elif kind is EndpointKind.CLUSTER_CUSTOM:
        found = client.describe_db_cluster_endpoints(DBClusterEndpointIdentifier=endpoint.label)["DBClusterEndpoints"]
        names = [each.get("Endpoint") for each in found]
    else:
        name = endpoint.label if kind is EndpointKind.INSTANCE else min(question.instances, default=None)
        if name is None:
            raise DescriptionFailed(f"no instance of {endpoint.host} is known yet")
        found = client.describe_db_instances(DBInstanceIdentifier=name)["DBInstances"]
        names = [each.get("Endpoint", {}).get("Address") for each in found]
    known = {name.lower() for name in names if name}
    if not found:
        raise DescriptionFailed(
            f"the RDS API has nothing of the name {endpoint.host}: check the account and the region", lasting=True
        )
    if endpoint.partition is not None and endpoint.host not in known:
        raise DescriptionFailed(
            f"what the RDS API has as {endpoint.label} is {' and '.join(sorted(known)) or 'without a name'}, and not "
            f"{endpoint.host}: the AWS credentials are those of another account, or of another cluster's",
            lasting=True,
        )
    cluster: str = found[0].get("DBClusterIdentifier") or ""
    if not cluster:
        raise DescriptionFailed(f"{endpoint.host} belongs to no cluster, says the RDS API", lasting=True)
    return cluster


def _pages(client: Any, operation: str, key: str, **given: Any) -> Iterator[Any]:
    """All rows of an operation."""
    for page in client.get_paginator(operation).paginate(**given):
        yield from page[key]


def _find_pause(client: Any, cluster: str) -> float | None:
    """After how many seconds without connections the instances of a serverless cluster pause; None: they do not."""
    found = client.describe_db_clusters(DBClusterIdentifier=cluster)["DBClusters"]
    limits: Mapping[str, Any] = (found[0].get("ServerlessV2ScalingConfiguration") or {}) if found else {}
    if limits.get("MinCapacity") != 0:
        return None
    return float(limits.get("SecondsUntilAutoPause") or DEFAULT_PAUSE)


def _read_instance(row: Mapping[str, Any]) -> tuple[str, Attributes]:
    return row["DBInstanceIdentifier"].lower(), Attributes(
        zone=row.get("AvailabilityZone"),
        instance_class=row.get("DBInstanceClass"),
        tier=row.get("PromotionTier"),
    )


def _account_of(row: Mapping[str, Any]) -> str | None:
    """The account that an instance is in."""
    parts = str(row.get("DBInstanceArn", "")).split(":")
    return parts[4] if len(parts) > 4 else None


def _is_usable(row: Mapping[str, Any]) -> bool:
    """Whether a row is about a custom endpoint that takes connections."""
    return row.get("EndpointType") == "CUSTOM" and row.get("Status") in USABLE


def _read_endpoint(row: Mapping[str, Any]) -> tuple[str, CustomEndpoint]:
    static, excluded = (frozenset(each.lower() for each in row.get(key) or ()) for key in _LISTS)
    kinds = {each.value: each for each in EndpointType}
    kind = kinds.get(str(row.get("CustomEndpointType")).lower(), EndpointType.ANY)
    return row["DBClusterEndpointIdentifier"].lower(), CustomEndpoint(kind, static, excluded)


_LISTS = ("StaticMembers", "ExcludedMembers")
