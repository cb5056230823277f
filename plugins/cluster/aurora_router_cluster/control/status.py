"""What a cluster looks like from outside: typed, and as JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from aurora_router_cluster.errors import SupervisorError
from aurora_router_cluster.faults.catalog import Fault


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance.

    Attributes:
        name: its identifier, e.g. ``demo-1``.
        role: ``writer`` or ``reader``, as the control plane has it.
        state: ``creating``, ``available``, ``unreachable`` (does not answer), ``stopped``, ``restarting`` or
            ``deleting``; ``paused`` (without users) or ``resuming``, see `control.pausing`.
        zone: availability zone.
        tier: promotion tier, 0 (first to be promoted) to 15.
        endpoint: its host name.
        host: the address that it listens on.
        port: its port.
        pid: process id of its postmaster; None: not running.
        socket_directory: directory of its Unix socket.
        lag_ms: replica lag in milliseconds; None: the writer, or unknown.
        lsn: log position written (writer) or replayed (reader), bytes; None: unknown.
        cpu: percent of the machine's processors.
        frozen: every process of it is stopped, by `freeze`.
        instance_class: what kind of machine it stands for.
        created: when it was made, seconds since the epoch.
        autoscaled: it was made by auto-scaling, which may remove it.
        capacity: of a serverless instance, in ACU; None: it is none.
        connections: sessions of clients; None: unknown.
    """

    name: str
    role: str
    state: str
    zone: str
    tier: int
    endpoint: str
    host: str
    port: int
    pid: int | None
    socket_directory: str
    lag_ms: float | None
    lsn: int | None
    cpu: float | None
    frozen: bool
    instance_class: str = ""
    created: float = 0.0
    autoscaled: bool = False
    capacity: float | None = None
    connections: int | None = None


ENDPOINT_KINDS = ("READER", "ANY")
"""Kinds of custom endpoints."""


InstanceName: TypeAlias = str | InstanceStatus | None
"""How an instance is named: by its name, or by its status. None is refused: ``writer`` is None if there is none now."""


@dataclass(frozen=True, slots=True)
class CustomEndpoint:
    """A custom endpoint.

    Attributes:
        label: the first part of its host name.
        endpoint: its host name.
        members: instances that it leads to; with `exclude`, all but these.
        exclude: see `members`.
        kind: ``READER``: it leads to those of them that are readers at present; ``ANY``: to all.
    """

    label: str
    endpoint: str
    members: tuple[str, ...]
    exclude: bool
    kind: str = "ANY"

    def leads_to(self, name: str, *, writes: bool) -> bool:
        """Whether an instance is a member at present; `writes`: it is the writer."""
        return (name in self.members) != self.exclude and not (writes and self.kind == "READER")


@dataclass(frozen=True, slots=True)
class IamStatus:
    """What is needed to log in by IAM token.

    Attributes:
        user: a user that is granted ``rds_iam``.
        region: the region that tokens are signed for.
        access_key_id: the key that signs them.
        secret_access_key: its secret.
        credentials_file: a file with both, for ``AWS_SHARED_CREDENTIALS_FILE``.
        token_lifetime: seconds that a token counts.
    """

    user: str
    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    credentials_file: str
    token_lifetime: float


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """A cluster.

    Attributes:
        name: its label, e.g. ``demo``.
        key: what `LocalCluster.attach` finds it by; the label unless another was running.
        domain: what follows the label in an instance's name.
        flavour: kind of volume, ``direct`` or ``quorum``; ``replication`` of the engine mysql.
        version: the server's version.
        port: the port of all instances (of the writer where they differ).
        dns: ``address:port`` of its name server.
        writer_endpoint: cluster endpoint.
        reader_endpoint: reader endpoint.
        writer: name of the writer; None: there is none at this moment.
        epoch: number of writers so far.
        instances: all of them, in the order of their making.
        custom_endpoints: see `CustomEndpoint`.
        cnames: names of others that lead to ours.
        certificate_authority: path of the CA's certificate in PEM; None: no TLS.
        supervisor: process id of the supervisor.
        started_in: working directory of the process that started it.
        directory: of the instances' files, which are deleted when it ends.
        data: directory in which its data are kept when it ends; None: they are deleted, too.
        activity: what is being done to it as a whole: ``available`` (nothing), ``failing-over``, ``backtracking``.
        created: when it was started, seconds since the epoch.
        volume: the status of the volume.
        faults: the faults in force.
        iam: how to log in by IAM token; None: all users log in by password.
        scaling: how the number of readers follows the load: ``least``, ``most``, ``metric``, ``target``, and at the
            last look ``mean``, ``readers`` and how many are ``wanted``; None: it does not.
        serverless: the capacity of each instance, ``least`` and ``most``, in ACU, and ``pause_after``, in seconds
            (None: they do not pause); None: they have classes.
        engine: ``postgresql`` or ``mysql``.
    """

    name: str
    key: str
    domain: str
    flavour: str
    version: str
    port: int
    dns: str
    writer_endpoint: str
    reader_endpoint: str
    writer: str | None
    epoch: int
    instances: tuple[InstanceStatus, ...]
    custom_endpoints: tuple[CustomEndpoint, ...]
    cnames: dict[str, str]
    certificate_authority: str | None
    supervisor: int
    volume: dict[str, Any]
    faults: tuple[Fault, ...] = ()
    started_in: str = ""
    directory: str = ""
    data: str | None = None
    activity: str = "available"
    created: float = 0.0
    iam: IamStatus | None = None
    scaling: dict[str, Any] | None = None
    serverless: dict[str, float | None] | None = None
    engine: str = "postgresql"

    def as_dict(self) -> dict[str, Any]:
        """As nested dicts and lists that JSON can hold."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ClusterStatus:
        """The inverse of `as_dict` (lists for tuples are fine).

        Raises:
            SupervisorError: it is of a supervisor of another version of this package.
        """
        try:
            instances = tuple(InstanceStatus(**item) for item in data["instances"])
            custom = tuple(
                CustomEndpoint(**{**item, "members": tuple(item["members"])}) for item in data["custom_endpoints"]
            )
            faults = tuple(Fault(**item) for item in data["faults"])
            iam = IamStatus(**data["iam"]) if data.get("iam") is not None else None
            return cls(**{**data, "instances": instances, "custom_endpoints": custom, "faults": faults, "iam": iam})
        except (TypeError, KeyError) as error:
            raise SupervisorError(
                f"the cluster {data.get('key')!r} is of another version of aurora-router, whose status this one "
                f"does not understand ({error}); use that version, or end the process {data.get('supervisor')}"
            ) from None


@dataclass(frozen=True, slots=True)
class Failover:
    """What a failover or switchover did.

    Attributes:
        former: the writer before; None: there was none.
        writer: the writer after.
        epoch: number of writers so far, this one included.
        planned: the former writer was alive and stopped in order.
        phases: phase -> its duration in seconds, in order: ``stop`` or ``fence``, ``pace`` (what the pace adds),
            ``replay``, ``promote``, ``attach``.
    """

    former: str | None
    writer: str
    epoch: int
    planned: bool
    phases: dict[str, float]

    @property
    def seconds(self) -> float:
        """The duration of all phases together."""
        return sum(self.phases.values())

    def as_dict(self) -> dict[str, Any]:
        """As a dict that JSON can hold."""
        return asdict(self)
