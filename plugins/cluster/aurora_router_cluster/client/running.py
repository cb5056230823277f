"""A cluster that runs, as a Python object: looked at, connected to, and changed."""

from __future__ import annotations

import abc
import secrets
import urllib.parse
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import errors
from aurora_router_cluster.client.command import command, option, positional
from aurora_router_cluster.client.faults import Faults
from aurora_router_cluster.client.nodes import StorageNodes
from aurora_router_cluster.control.status import ClusterStatus, Failover, InstanceStatus
from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import UnknownEndpointError
from aurora_router_cluster.postgres import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router_cluster.control.status import InstanceName

OURS = "postgresql+aurora"
ROLES = {"writer": "read-write", "reader": "prefer-standby"}
"""Target -> libpq's ``target_session_attrs``; the reader endpoint leads to the writer, too, if there is no reader."""
BEFORE_QUERY = ("user", "password", "host", "port", "dbname")


class RunningCluster(abc.ABC):
    """A running cluster, wherever its supervisor is; safe to use from several threads."""

    user = settings.USER
    password = settings.PASSWORD
    dbname = settings.DATABASE

    def __init__(self) -> None:
        self._first = self.status()
        self.nodes = StorageNodes(self._ask)

    @abc.abstractmethod
    def _ask(self, command: str, **arguments: object) -> Any:
        """Send a request to the supervisor; returns its answer.

        Raises:
            ClusterError: whatever it answered, as its own class, or that it did not.
        """

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its label, the first part of its endpoints."""
        return self._first.name

    @property
    def domain(self) -> str:
        """What follows the name in an instance's endpoint."""
        return self._first.domain

    @property
    def port(self) -> int:
        """The port of all instances (the writer's, where the system has one loopback address only)."""
        return self._first.port

    @property
    def dns(self) -> str:
        """``address:port`` of its name server, for ``aurora_dns``."""
        return self._first.dns

    def status(self) -> ClusterStatus:
        """Everything about it, as of now."""
        return ClusterStatus.from_dict(self._ask("status"))

    @property
    def instances(self) -> tuple[InstanceStatus, ...]:
        """Its instances, as of now."""
        return self.status().instances

    def instance(self, name: str) -> InstanceStatus:
        """The instance `name`, as of now.

        Raises:
            UnknownInstanceError: there is none.
        """
        return _instance(self.status(), name)

    @property
    def writer(self) -> str | None:
        """Name of the writer, as of now."""
        return self.status().writer

    @property
    def readers(self) -> tuple[str, ...]:
        """Names of the readers, as of now."""
        return tuple(one.name for one in self.instances if one.role == "reader")

    # -- how to connect ------------------------------------------------------------------------------------

    def endpoint(self, target: str = "writer") -> str:
        """The host name of a target.

        Args:
            target: ``writer``, ``reader``, ``instance:NAME`` or ``custom:LABEL``.

        Raises:
            UnknownEndpointError: another word.
        """
        own = names.Names(self.name, self.domain)
        kind, _, which = target.partition(":")
        if target == "writer":
            return own.writer
        if target == "reader":
            return own.reader
        if kind in {"instance", "custom"} and which:
            return own.instance(which) if kind == "instance" else own.custom(which)
        raise UnknownEndpointError(
            f"unknown target {target!r}; there are writer, reader, instance:NAME and custom:LABEL"
        )

    def conninfo(self, target: str = "writer", **extra: object) -> str:
        """A conninfo string for aurora_router, with our name server in it.

        Args:
            target: see `endpoint`.
            **extra: further keys; a value of None takes a key away.
        """
        return _conninfo({**self._keys(target), **self._routing(), **extra})

    def mysql_keywords(self, target: str = "writer", **extra: object) -> dict[str, Any]:
        """The keywords of ``aurora_router_mysql.connect``, with our name server among them.

        Args:
            target: see `endpoint`.
            **extra: further keywords; a value of None takes one away.

        Raises:
            RequestError: it is no cluster of the engine mysql.
        """
        if self._first.engine != "mysql":
            raise errors.RequestError(f"the cluster {self.name} is PostgreSQL: use conninfo() or url()")
        keys = {"database" if name == "dbname" else name: value for name, value in self._keys(target).items()}
        return {name: each for name, each in {**keys, **self._routing(), **extra}.items() if each is not None}

    def iam_conninfo(self, target: str = "writer", **extra: object) -> str:
        """A conninfo string for aurora_router with IAM tokens, which the keys in `ClusterStatus.iam` have to sign.

        Args:
            target: see `endpoint`.
            **extra: further keys; a value of None takes a key away.

        Raises:
            RequestError: the cluster was started without IAM.
        """
        first = self._first
        if first.iam is None:
            raise errors.RequestError(f"the cluster {first.name} has no IAM; start one with --iam (iam=True)")
        login = {"user": first.iam.user, "password": None, "aurora_credentials": "iam"}
        tls = {"sslmode": "verify-full", "sslrootcert": first.certificate_authority}
        return self.conninfo(target, **{**login, **tls, **extra})

    def plain_conninfo(self, target: str = "writer", **extra: object) -> str:
        """A conninfo string for libpq alone: the host name for TLS and, as `hostaddr`, its present address."""
        return _conninfo({**self._plain_keys(target), **extra})

    def url(self, target: str = "writer", driver: str = OURS, **query: object) -> str:
        """A SQLAlchemy URL: for our dialect with our name server in it, for another one with the present address.

        Args:
            target: see `endpoint`.
            driver: dialect and driver.
            **query: further parameters; a value of None takes one away.
        """
        ours = driver.startswith(OURS)
        keys = {**self._keys(target), **self._routing()} if ours else self._plain_keys(target)
        where = "{user}:{password}@{host}:{port}/{dbname}".format(**keys)
        further = {name: value for name, value in keys.items() if name not in BEFORE_QUERY}
        chosen = {name: str(value) for name, value in {**further, **query}.items() if value is not None}
        tail = f"?{urllib.parse.urlencode(chosen, safe=':')}" if chosen else ""
        return f"{driver}://{where}{tail}"

    def libpq_url(self, target: str = "writer") -> str:
        """A URL for libpq's own clients (psql, pg_dump), which survives a failover.

        It lists the present addresses of all instances and the role that is wanted: a new connection goes to whichever
        instance has that role by then. An instance that is added later is not in it.

        Args:
            target: see `endpoint`; of an instance or a custom endpoint the addresses alone.

        Raises:
            UnknownEndpointError: there is no such target, or it leads nowhere at present.
        """
        status, chosen = self.status(), self._instances_of_target(target)
        if not chosen:
            raise UnknownEndpointError(f"{target!r} leads to no instance at present; see cluster status")
        names_ = {one.name: one.endpoint for one in chosen}
        hosts = ",".join(f"{one.host}:{one.port}" for one in chosen)
        query: dict[str, str] = {}
        if target in ROLES:
            query["target_session_attrs"] = ROLES[target]
        if status.certificate_authority is not None:
            hosts = ",".join(f"{names_[one.name]}:{one.port}" for one in chosen)
            query["hostaddr"] = ",".join(one.host for one in chosen)
            query |= {"sslmode": "verify-full", "sslrootcert": status.certificate_authority}
        tail = f"?{urllib.parse.urlencode(query, safe=':,/')}" if query else ""
        return f"postgresql://{self.user}:{self.password}@{hosts}/{self.dbname}{tail}"

    def _instances_of_target(self, target: str) -> list[InstanceStatus]:
        """The instances that a target may lead to, now or after a failover, the most likely ones first."""
        status = self.status()
        self.endpoint(target)
        kind, _, which = target.partition(":")
        if kind == "instance":
            return [_instance(status, which)]
        if kind == "custom":
            return _members(status, which)
        return sorted(status.instances, key=lambda one: one.role != ("reader" if target == "reader" else "writer"))

    def _keys(self, target: str) -> dict[str, object]:
        port = self.port
        if target.startswith("instance:"):
            port = self.instance(target.partition(":")[2]).port
        return {
            "host": self.endpoint(target), "port": port, "user": self.user, "password": self.password,
            "dbname": self.dbname,
        }  # fmt: skip

    def _plain_keys(self, target: str) -> dict[str, object]:
        return {**self._keys(target), "hostaddr": self.address(target)}

    def _routing(self) -> dict[str, object]:
        """What our driver needs to find the instances, and to verify them."""
        return {"aurora_dns": self.dns}

    def address(self, target: str = "writer") -> str:
        """The address that a target leads to now, without asking the name server.

        Raises:
            UnknownEndpointError: there is no such target.
            UnknownInstanceError: there is no such instance, or no writer at this moment.
        """
        return self._instance_of_target(target).host

    def _instance_of_target(self, target: str) -> InstanceStatus:
        """The instance that a target leads to now."""
        status = self.status()
        self.endpoint(target)
        kind, _, which = target.partition(":")
        if kind == "instance":
            return _instance(status, which)
        if kind == "custom":
            return _member(status, which)
        readers = [one for one in status.instances if one.role == "reader" and one.state == "available"]
        if target == "reader" and readers:
            return secrets.choice(readers)
        return _instance(status, status.writer or "(no writer)")

    # -- how it is changed ---------------------------------------------------------------------------------

    @command(
        "add-reader",
        "add a reader",
        positional("name", "its name (default: the next number)", metavar="instance", nargs="?"),
        option("zone", "availability zone (default: in turn)"),
        option("tier", "promotion tier, 0 first to 15 last (default: 1)", type=int, default=1),
        option("instance_class", "class that the RDS API shows of it (default: the cluster's)"),
        report=lambda done, **_: (
            f"{done.name} reads in {done.zone}: {done.endpoint}",
            {"added": done.name, "zone": done.zone},
        ),
    )
    def add_reader(
        self,
        name: str | None = None,
        *,
        zone: str | None = None,
        tier: int = 1,
        instance_class: str | None = None,
    ) -> InstanceStatus:
        """Add a reader; returns when it shows what was durable when it was started.

        Raises:
            TooManyReadersError: there are fifteen.
            NameTakenError: the name is in use, or cannot be one.
            RequestError: unknown zone, tier or class.
        """
        added = self._ask("add_reader", name=name, zone=zone, tier=tier, instance_class=instance_class)
        return self.instance(added)

    def set_tier(self, name: InstanceName, tier: int) -> None:
        """Change the promotion tier of an instance; the next failover goes by it.

        Raises:
            UnknownInstanceError: there is none of that name.
            RequestError: unknown tier.
        """
        self._ask("set_tier", name=name, tier=tier)

    @command(
        "remove",
        "remove a reader",
        positional("name", "its name", metavar="instance"),
        option("drain", "seconds that its sessions get, 0 to 100 (default: 0)", type=float, default=0.0),
        report=lambda _, name, **__: (f"{name} is removed", {"removed": name}),
    )
    def remove(self, name: InstanceName, *, drain: float = 0.0) -> None:
        """Remove a reader; see `ControlPlane.remove`.

        Raises:
            UnknownInstanceError: there is none of that name.
            WriterRequiredError: it is the writer.
            RequestError: `drain` is out of range.
        """
        self._ask("remove", name=name, drain=drain)

    def restart(self, name: InstanceName) -> None:
        """Restart an instance in order; returns when it answers again."""
        self._ask("restart", name=name)

    def start_instance(self, name: InstanceName) -> None:
        """Start an instance that is down; returns when it answers."""
        self._ask("start", name=name)

    @command(
        "failover",
        "make a reader the writer",
        positional("target", "which (default: the best by promotion tier, then by log)", metavar="instance", nargs="?"),
        report=lambda done, **_: (_describe_failover(done), done.as_dict()),
    )
    def failover(self, target: InstanceName = None) -> Failover:
        """Make a reader the writer; returns when it takes writes (the former writer comes back on its own).

        Raises:
            FailoverImpossibleError: no reader, or not that one, can be promoted.
        """
        return Failover(**self._ask("failover", target=target))

    def kill(self, name: InstanceName, *, hold: bool = False) -> None:
        """SIGKILL to every process of an instance; `hold`: it is not restarted until `start_instance`."""
        self._ask("kill", name=name, hold=hold)

    def freeze(self, name: InstanceName) -> None:
        """Stop every process of an instance, as a host that hangs."""
        self._ask("freeze", name=name)

    def thaw(self, name: InstanceName) -> None:
        """Let a frozen instance go on."""
        self._ask("thaw", name=name)

    @property
    def faults(self) -> Faults:
        """What can be broken, and healed again."""
        return Faults(self._ask)

    def create_custom_endpoint(
        self, label: str, members: Sequence[InstanceName], *, exclude: bool = False, kind: str | None = None
    ) -> str:
        """Create a custom endpoint of `members` (or of all instances but these); returns its host name.

        `kind` is ``READER`` (of those the readers alone) or ``ANY``; None: ``READER`` with `exclude`, else ``ANY``.
        """
        answer: str = self._ask(
            "create_custom_endpoint", label=label, members=list(members), exclude=exclude, kind=kind
        )
        return answer

    def modify_custom_endpoint(
        self,
        label: str,
        members: Sequence[InstanceName] | None = None,
        *,
        exclude: bool = False,
        kind: str | None = None,
    ) -> None:
        """Change the members or the kind of a custom endpoint; None: as before."""
        given = None if members is None else list(members)
        self._ask("modify_custom_endpoint", label=label, members=given, exclude=exclude, kind=kind)

    def delete_custom_endpoint(self, label: str) -> None:
        """Delete a custom endpoint."""
        self._ask("delete_custom_endpoint", label=label)

    def add_cname(self, name: str, target: str) -> None:
        """Make the cluster's name server say that `name` is an alias of the host name `target`."""
        self._ask("add_cname", name=name, target=target)


def _describe_failover(done: Failover) -> str:
    phases = ", ".join(f"{phase} {seconds * 1e3:.0f} ms" for phase, seconds in done.phases.items())
    return f"{done.writer} is the writer now, {done.former} was ({phases})"


def _instance(status: ClusterStatus, name: str) -> InstanceStatus:
    for instance in status.instances:
        if instance.name == name:
            return instance
    known = ", ".join(one.name for one in status.instances)
    raise errors.UnknownInstanceError(f"the cluster {status.name} has no instance {name!r}; it has {known}")


def _members(status: ClusterStatus, label: str) -> list[InstanceStatus]:
    """Those that the custom endpoint `label` leads to."""
    for custom in status.custom_endpoints:
        if custom.label == label:
            return [
                one
                for one in status.instances
                if one.state == "available" and custom.leads_to(one.name, writes=one.role == "writer")
            ]
    raise UnknownEndpointError(f"there is no custom endpoint {label!r}")


def _member(status: ClusterStatus, label: str) -> InstanceStatus:
    """One of those that the custom endpoint `label` leads to."""
    if members := _members(status, label):
        return secrets.choice(members)
    raise UnknownEndpointError(f"no member of the custom endpoint {label!r} is available")


def _conninfo(keys: dict[str, object]) -> str:
    def quote_value(value: object) -> str:
        text = str(value)
        plain = text and all(character not in " '\\" for character in text)
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        return text if plain else f"'{escaped}'"

    return " ".join(f"{name}={quote_value(value)}" for name, value in keys.items() if value is not None)
