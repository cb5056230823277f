"""Host names of a cluster, in the grammar of Amazon RDS: ``<label>.[<kind>-]<domain>``.

The domain starts with the account's random label (``xyz``) and goes on with region and service, e.g.
``k3v9q2mxab.eu-test-1.rds.aurora.test`` (the reserved top-level domain ``test``, RFC 6761).
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from aurora_router_cluster.errors import NameTakenError

REGION = "eu-test-1"
ZONES = ("eu-test-1a", "eu-test-1b", "eu-test-1c")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_LABEL = re.compile(r"[a-z](?:-?[a-z0-9])*\Z")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one cluster.

    Attributes:
        cluster: the cluster's label, e.g. ``demo``.
        domain: what follows the label in an instance's name, without a trailing dot, in lower case.
    """

    cluster: str
    domain: str

    @property
    def writer(self) -> str:
        """The cluster endpoint: the writer."""
        return f"{self.cluster}.cluster-{self.domain}"

    @property
    def reader(self) -> str:
        """The reader endpoint: one reader per look-up."""
        return f"{self.cluster}.cluster-ro-{self.domain}"

    def instance(self, name: str) -> str:
        """The endpoint of the instance `name`."""
        return f"{name}.{self.domain}"

    def custom(self, label: str) -> str:
        """The custom endpoint `label`."""
        return f"{label}.cluster-custom-{self.domain}"

    @property
    def region(self) -> str:
        """The AWS region that the domain says; in a domain that is not one of AWS's, its second label."""
        from aurora_router.credentials import region_of  # noqa: PLC0415 - only the RDS API and IAM ask

        return region_of(self.writer) or self.domain.split(".")[1]

    @property
    def zone(self) -> str:
        """The DNS zone that holds all of these names: the domain without its first label."""
        return self.domain.partition(".")[2]


def random_domain() -> str:
    """A domain that no other cluster has."""
    label = "".join(secrets.choice(_ALPHABET) for _ in range(12))
    return f"c{label}.{REGION}.rds.aurora.test"


def check_domain(domain: str) -> str:
    """Return `domain` in lower case without a trailing dot.

    Raises:
        NameTakenError: it is not a domain of at least three labels.
    """
    normal = domain.rstrip(".").lower()
    labels = normal.split(".")
    if len(labels) < 3 or not all(re.fullmatch(r"[a-z0-9](?:[a-z0-9-]{0,50}[a-z0-9])?", label) for label in labels):
        raise NameTakenError(
            f"{domain!r} cannot be a cluster's domain: want <label>.<region>.<service…> such as "
            "'c9akciq32.us-east-1.rds.amazonaws.com', letters, digits and hyphens, labels of at most 52 characters"
        )
    return normal


def check_label(label: str, what: str) -> str:
    """Return `label` if it can name a cluster, an instance or an endpoint.

    Raises:
        NameTakenError: it cannot; the message says what is allowed.
    """
    if len(label) > 63 or not _LABEL.match(label):
        raise NameTakenError(
            f"{label!r} cannot name {what}: 1 to 63 lower-case letters, digits and single hyphens, "
            "starting with a letter and not ending with a hyphen"
        )
    return label
