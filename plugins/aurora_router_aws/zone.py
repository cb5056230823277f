"""The availability zone that this process runs in: by the environment, by the task of a container, or by the instance.

Sources: Amazon ECS Developer Guide, "Task metadata endpoint version 4"; Amazon EC2 User Guide, "Use IMDS". EKS and
Kubernetes have it as a label of the node, which a pod can be given as a variable (the downward API). Nothing in Lambda
has it. The metadata services are link-local, and answer at once or not at all: from a container with a network of its
own, the instance's is one hop too far by default. So each request has `SECONDS`, and none is made in a connect.

Names of zones differ between accounts, ids do not; so the account counts, too.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import NamedTuple
from urllib.parse import urlsplit

VARIABLE = "AURORA_ZONE"
"""The environment variable with the name or the id of the zone; it counts before all else."""
SECONDS = 1.0
"""How long one request may take."""
_TOKEN = "X-aws-ec2-metadata-token"  # noqa: S105 - the name of a header
_LINK_LOCAL = {"ipv4": "http://169.254.169.254", "ipv6": "http://[fd00:ec2::254]"}
_LARGEST = 65_536
"""How much of an answer is read, in bytes."""


class OwnZone(NamedTuple):
    """A zone; None: not known.

    Attributes:
        name: its name in the account of this process, ``eu-west-1a``.
        id: its id, ``euw1-az1``, which is the same for all accounts.
        account: the account of this process.
    """

    name: str | None = None
    id: str | None = None
    account: str | None = None

    @property
    def is_known(self) -> bool:
        """Whether the name or the id is known."""
        return bool(self.name or self.id)


NOWHERE = OwnZone()
_found = NOWHERE


def find_own_zone() -> OwnZone:
    """Return the zone of this process; `NOWHERE`: nothing has it. What was found is remembered.

    It may ask the metadata service of a container or an instance, so it takes up to five times `SECONDS`.
    """
    global _found  # noqa: PLW0603 - it is the same for the whole process
    given = os.environ.get(VARIABLE, "").strip()
    if given:
        return OwnZone(id=given) if "-az" in given else OwnZone(given)
    found = _found  # without a lock: threads that look at the same time find the same
    if not found.is_known:
        found = _found = _of_task() or _of_instance() or NOWHERE
    return found


def forget() -> None:
    """Look again; also in the child of a fork."""
    global _found  # noqa: PLW0603 - see `find_own_zone`
    _found = NOWHERE


def _of_task() -> OwnZone | None:
    """The zone of a container's task (ECS, Fargate); None: it is in none, or the task does not say it."""
    place = os.environ.get("ECS_CONTAINER_METADATA_URI_V4")
    text = None if place is None else _request(f"{place.rstrip('/')}/task")
    try:
        task = json.loads(text or "{}")
        arn = str(task.get("TaskARN", "")).split(":")
        zone = OwnZone(task.get("AvailabilityZone"), None, arn[4] if len(arn) > 4 else None)
    except (ValueError, AttributeError):
        return None
    return zone if zone.is_known else None


def _of_instance() -> OwnZone | None:
    """The zone of an instance (EC2), by version 2 of its metadata service; None: there is none that answers."""
    if os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        return None
    mode = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").lower()
    base = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or _LINK_LOCAL.get(mode, _LINK_LOCAL["ipv4"])
    base = f"{base.rstrip('/')}/latest"
    token = _request(f"{base}/api/token", "PUT", {f"{_TOKEN}-ttl-seconds": "60"})
    if token is None:
        return None
    header = {_TOKEN: token}
    name = _request(f"{base}/meta-data/placement/availability-zone", headers=header)
    id_ = _request(f"{base}/meta-data/placement/availability-zone-id", headers=header)
    document = _request(f"{base}/dynamic/instance-identity/document", headers=header)
    try:
        account = json.loads(document or "{}").get("accountId")
    except (ValueError, AttributeError):
        account = None
    zone = OwnZone(name, id_, account)
    return zone if zone.is_known else None


def _request(url: str, method: str = "GET", headers: dict[str, str] | None = None) -> str | None:
    """The text at a URL of a metadata service; None: there is none, or no server."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=SECONDS)
    try:
        connection.request(method, parts.path, headers=headers or {})
        response = connection.getresponse()
        text = response.read(_LARGEST).decode()
    except (OSError, http.client.HTTPException, UnicodeDecodeError):
        return None
    finally:
        connection.close()
    return text.strip() or None if response.status == http.client.OK else None


os.register_at_fork(after_in_child=forget)
