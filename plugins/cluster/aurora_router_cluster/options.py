"""What a cluster is started with: one frozen dataclass, handed to the supervisor as JSON."""

from __future__ import annotations

import difflib
import ipaddress
import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.iam import LONGEST_SECONDS
from aurora_router_cluster.postgres.settings import refusal
from aurora_router_cluster.postgres.surfaces import AURORA, RDS_MULTI_AZ
from aurora_router_cluster.scaling.parsing import read_capacity, read_readers
from aurora_router_cluster.scaling.tracking import Metric, ScalingPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aurora_router_cluster.scaling.capacity import CapacityLimits

DEFAULT_CLASS = "db.r6g.large"
DEFAULT_PAUSE = 300.0
"""Seconds, as on Aurora."""
SERVERLESS_CLASS = "db.serverless"


class Flavour(NamedTuple):
    """What a kind of cluster has.

    Attributes:
        keeps_log: whether its storage keeps the log, in nodes of its own.
        waits: whether a commit is acknowledged once it is elsewhere, too.
        surface: its SQL surface, see `postgres.template`.
        readers: how many readers it has, if that is fixed; None: any number.
    """

    keeps_log: bool
    waits: bool
    surface: str = AURORA
    readers: int | None = None


FLAVOURS = {
    "direct": Flavour(keeps_log=False, waits=False),
    "quorum": Flavour(keeps_log=True, waits=True),
    "multi-az": Flavour(keeps_log=False, waits=True, surface=RDS_MULTI_AZ, readers=2),
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a failover takes beyond the cluster's own work, and what it takes along.

    Attributes:
        detection: seconds from when the writer is found lost until a failover begins; a planned one begins at once.
        promotion: seconds that the promotion takes at least, in which there is no writer.
        dns_delay: seconds by which the cluster name lags behind the promotion.
        restart_readers: whether every reader restarts in a failover, the one that is promoted too.
    """

    detection: float = 0.0
    promotion: float = 0.0
    dns_delay: float = 0.0
    restart_readers: bool = False


PACES = {"fast": Pace(), "aws": Pace(detection=5.0, promotion=5.0, dns_delay=3.0, restart_readers=True)}
"""``fast``: as fast as the cluster can; ``aws``: as Amazon Aurora does it (docs/failover.md has the sources)."""
FIXED = ("name", "domain", "flavour", "isolated", "segment_size")
"""What cannot be another when a cluster that was kept (`data`) is started again."""
ENGINES = ("postgresql", "mysql")
OF_MYSQL = (
    "name", "key", "readers", "engine", "mysql", "domain", "port", "address", "dns_port", "dns_ttl", "directory",
    "detect", "auto", "started_in", "owner", "instance_class",
)  # fmt: skip
"""The options that the engine mysql has; with any other one it is refused."""
PACED = ("pace", "detection", "promotion", "dns_delay", "restart_readers")
REMEMBERED = (
    *FIXED, *PACED, "faults", "postgres", "port", "address", "dns_port", "dns_ttl", "tls", "iam", "iam_token_lifetime",
    "retention", "settings", "instance_class", "auto_scale", "target_connections", "target_cpu", "scale_period",
    "scale_out_cooldown", "scale_in_cooldown", "scale_drain", "serverless", "pause_after", "resume",
)  # fmt: skip
"""What need not be said again when it is started again."""
LEAST_SEGMENT = 1 << 20  # bytes: one range of blocks, the unit that is placed


_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str, "bool": bool, "int": int, "float": (int, float), "dict": dict,
}  # fmt: skip


def _check_address(text: str) -> None:
    """Make sure that a first address can be one.

    Raises:
        RequestError: it is no IPv4 address, or stands for more than one.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise RequestError(f"address={text!r} is no IP address; name one, e.g. 127.1.0.1, or leave it out") from None
    if address.version != 4:
        raise RequestError(
            f"address={text!r}: instances have IPv4 addresses only. Each needs an address of its own, since all have "
            "one port, and of IPv6 a machine has one loopback address; name one of 127.0.0.0/8, or leave it out"
        )
    if address.is_unspecified or address.is_multicast or address.is_reserved:
        raise RequestError(f"address={text!r} is not the address of one instance; name one, e.g. 127.1.0.1")


def check_class(instance_class: str) -> None:
    """Make sure that a class of instances has the form that Amazon RDS gives them.

    Raises:
        RequestError: it has not.
    """
    if not re.fullmatch(r"db\.([a-z][a-z0-9-]*\.[a-z0-9-]+|serverless)", instance_class):
        raise RequestError(f"{instance_class!r} is no class of instances; name one such as {DEFAULT_CLASS}")


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """Options of a cluster.

    Attributes:
        name: the cluster's label, e.g. ``demo``.
        key: what it is found by; unique among the running ones.
        readers: number of readers to begin with, 0..15.
        flavour: kind of cluster: ``quorum`` (Aurora, six copies of the log), ``direct`` (Aurora's functions, readers
            stream from the writer) or ``multi-az`` (an RDS Multi-AZ DB cluster: two readers, semi-synchronous).
        engine: ``postgresql``, or ``mysql``: MariaDB servers with semi-synchronous replication, without the storage.
        postgres: directory of PostgreSQL's binaries; None: search.
        mysql: directory of MariaDB's programs, for the engine mysql; None: search.
        domain: what follows the label in an instance's name; None: a random one below ``aurora.test``.
        port: port of all instances; None: any free one.
        address: address of the first instance, the others count upwards; None: random ones of 127.0.0.0/8.
        shared_address: put all instances on 127.0.0.1 with distinct ports; None: only where there is no choice.
        dns_port: port of the name server; 0: any free one.
        dns_ttl: time to live of its records, seconds.
        pace: how long a failover takes, ``fast`` or ``aws``: see `PACES`. The next four, where given, replace what it
            says: `detection`, `promotion`, `dns_delay`, `restart_readers`, see `Pace`.
        directory: existing directory for the instances' files; None: tmpfs where there is room.
        data: directory in which the cluster's data are kept when it ends, and found when it is started again (made if
            missing); None: they are deleted when it ends (``quorum`` only).
        detect: seconds between two heartbeats of the control plane.
        auto: whether the control plane fails over and restarts by itself.
        tls: serve TLS with certificates of a CA of the cluster's own.
        iam: let users with the role ``rds_iam`` log in by IAM token, and by nothing else; TLS is served, too.
        iam_token_lifetime: seconds that a token counts, 900 at most; None: 900, as on Amazon RDS.
        isolated: give each of the six storage nodes a process of its own (``quorum`` only).
        segment_size: bytes of a protection group, at least 1 MiB: the volume is striped over groups of that size
            (Aurora: 10 GB); None: it is one group (``quorum`` only).
        faults: put a relay in front of the instances, so that the network between can be disturbed.
        base_interval: seconds between two bases taken into the storage, below which log is forgotten, if 16 MiB of log
            have come since the last one; 0: none is taken by time (``quorum`` only, as the next two).
        base_bytes: bytes of log after which a base is taken at once; 0: none is taken by size. Unless both are 0, a
            base is taken after 16 promotions, too.
        scrub_interval: seconds between two scrubs of all storage nodes' disks; 0: none.
        retention: seconds that the cluster can be set back, or restored from (``quorum`` only).
        source: data directory that the cluster begins with, see `client.history.ClusterHistory.clone`; None: an empty
            one.
        remote: hosts that the cluster is spread over, see `hosts.hosts.Plan`: ``advertise``, ``instances``, ``nodes``,
            ``name_server`` (``quorum`` only); None: all of it is on this machine.
        api: let the RDS API serve it, which is started where none runs, see `client.api`.
        instance_class: class that the RDS API shows of its instances; it changes nothing in them.
        auto_scale: ``MIN..MAX``, the readers at least and at most, those included that are there at the beginning: a
            number that follows `target_connections` or `target_cpu`, see `scaling.tracking`; None: it does not change.
        target_connections: the mean of the readers' connections that auto-scaling aims at.
        target_cpu: the mean of the readers' use of the machine's processors that it aims at, in percent.
        scale_period: seconds between two looks of auto-scaling (Aurora: 60).
        scale_out_cooldown: seconds between two additions of readers (Aurora: 300).
        scale_in_cooldown: seconds from the last change until a reader is removed (Aurora: 300).
        scale_drain: seconds that the sessions of a reader get that it removes (Aurora: 180).
        serverless: ``MIN..MAX``, the capacity of each instance in ACU, a figure that follows its load, see
            `scaling.capacity`; None: the instances are of `instance_class`.
        pause_after: seconds without a session of a user after which instances pause, where the capacity may be 0; None:
            300, as on Aurora. See `control.pausing`.
        resume: seconds that an instance that has paused needs for its first connection.
        settings: server settings for all instances, name -> value; not those that the cluster owns, see
            `postgres.settings.OWNED`.
        started_in: working directory of the process that started it, shown to people.
        owner: process id that the cluster ends with; None: it stays until it is ended.
    """

    name: str
    key: str
    readers: int = 2
    flavour: str = "quorum"
    engine: str = "postgresql"
    postgres: str | None = None
    mysql: str | None = None
    domain: str | None = None
    port: int | None = None
    address: str | None = None
    shared_address: bool | None = None
    dns_port: int = 0
    dns_ttl: int = 5
    pace: str = "fast"
    detection: float | None = None
    promotion: float | None = None
    dns_delay: float | None = None
    restart_readers: bool | None = None
    directory: str | None = None
    data: str | None = None
    detect: float = 0.2
    auto: bool = True
    tls: bool = False
    iam: bool = False
    iam_token_lifetime: float | None = None
    isolated: bool = False
    segment_size: int | None = None
    faults: bool = False
    base_interval: float = 600.0
    base_bytes: int = 128 << 20
    scrub_interval: float = 3600.0
    retention: float = 300.0
    source: str | None = None
    remote: dict[str, Any] | None = None
    api: bool = False
    instance_class: str = DEFAULT_CLASS
    auto_scale: str | None = None
    target_connections: float | None = None
    target_cpu: float | None = None
    scale_period: float = 1.0
    scale_out_cooldown: float = 5.0
    scale_in_cooldown: float = 5.0
    scale_drain: float = 60.0
    serverless: str | None = None
    pause_after: float | None = None
    resume: float = 12.0
    settings: dict[str, str] = field(default_factory=dict)
    started_in: str = ""
    owner: int | None = None

    def __post_init__(self) -> None:
        self._check_types()
        self._check_engine()
        if self.flavour not in FLAVOURS:
            raise RequestError(f"unknown flavour {self.flavour!r}; there are {', '.join(FLAVOURS)}")
        if not 0.02 <= self.detect <= 60:
            raise RequestError(f"detect={self.detect:g}: a heartbeat interval is 0.02 to 60 seconds")
        if min(self.base_interval, self.base_bytes, self.scrub_interval) < 0:
            raise RequestError("base_interval, base_bytes and scrub_interval cannot be negative; 0 means never")
        if self.pace not in PACES:
            raise RequestError(f"unknown pace {self.pace!r}; there are {', '.join(PACES)}")
        if self.dns_ttl < 0 or min(self.detection or 0, self.promotion or 0, self.dns_delay or 0) < 0:
            raise RequestError("dns_ttl, detection, promotion and dns_delay cannot be negative")
        check_class(self.instance_class)
        self._check_storage()
        self._check_scaling()
        self._check_pausing()
        self._check_settings()
        if self.iam_token_lifetime is not None and not (self.iam and 1 <= self.iam_token_lifetime <= LONGEST_SECONDS):
            raise RequestError(
                f"iam_token_lifetime={self.iam_token_lifetime:g}: with iam, tokens count for 1 to 900 seconds"
            )
        if self.port is not None and not 1 <= self.port <= 65535:
            raise RequestError(f"{self.port} is not a port number (1 to 65535); leave it out for any free one")
        if not 0 <= self.dns_port <= 65535:
            raise RequestError(f"{self.dns_port} is not a port number (0 for any free one, or 1 to 65535)")
        if self.address is not None:
            _check_address(self.address)

    def _check_types(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            wanted = _TYPES[str(each.type).partition(" | ")[0].partition("[")[0]]
            optional = "None" in str(each.type)
            fits = isinstance(value, wanted) and (not isinstance(value, bool) or wanted is bool)
            if not (fits or (optional and value is None)):
                raise RequestError(f"{each.name}={value!r}: want {each.type}, not {type(value).__name__}")
            if isinstance(value, float) and not math.isfinite(value):
                raise RequestError(f"{each.name}={value}: want a number of seconds")

    def _check_engine(self) -> None:
        if self.engine not in ENGINES:
            raise RequestError(f"unknown engine {self.engine!r}; there are {', '.join(ENGINES)}")
        if self.engine == "mysql":
            other = [each.name for each in fields(self) if each.name not in OF_MYSQL and not _is_default(each, self)]
            if other:
                raise RequestError(f"{', '.join(other)}: the engine mysql has none of that; leave it out")
        elif self.mysql is not None:
            raise RequestError("mysql is the directory of MariaDB's programs: it goes with engine 'mysql'")

    def _check_settings(self) -> None:
        for name, value in self.settings.items():
            if (why := refusal(name, value, waits=FLAVOURS[self.flavour].waits)) is not None:
                raise RequestError(why)

    def _check_scaling(self) -> None:
        targets = [each for each in (self.target_connections, self.target_cpu) if each is not None]
        if self.auto_scale is None:
            if targets:
                raise RequestError("target_connections and target_cpu go with auto_scale=MIN..MAX")
        elif len(targets) != 1:
            raise RequestError(f"auto_scale={self.auto_scale!r} needs one of target_connections and target_cpu")
        elif not targets[0] > 0 or (self.target_cpu or 0) > 100:
            raise RequestError("target_connections is above 0, target_cpu above 0 and at most 100 percent")
        elif self.remote is not None:
            raise RequestError("auto_scale goes with instances on this machine: leave out remote")
        elif self.readers > read_readers(self.auto_scale)[1]:
            raise RequestError(
                f"readers={self.readers} is above the maximum of auto_scale={self.auto_scale!r}, and it removes only "
                "readers that it made: begin with fewer"
            )
        self._check_scaling_times()
        if self.serverless is not None:
            read_capacity(self.serverless)
            if self.instance_class not in {DEFAULT_CLASS, SERVERLESS_CLASS}:
                raise RequestError(f"serverless instances are {SERVERLESS_CLASS}: leave out instance_class")

    def _check_pausing(self) -> None:
        limits = self.capacity
        if self.pause_after is not None and (limits is None or limits.least > 0):
            raise RequestError("pause_after goes with a capacity that may be 0, e.g. serverless='0..16'")
        if (self.pause_after is not None and self.pause_after <= 0) or self.resume < 0:
            raise RequestError("pause_after is above 0 seconds, and resume is not negative")
        if self.pauses_after is not None and (not self.keeps_log or self.remote is not None):
            raise RequestError("instances pause with flavour 'quorum', here: leave out flavour 'direct' and remote")

    @property
    def pauses_after(self) -> float | None:
        """Seconds without users after which instances pause; None: they do not."""
        limits = self.capacity
        return None if limits is None or limits.least > 0 else self.pause_after or DEFAULT_PAUSE

    def _check_scaling_times(self) -> None:
        if not 0.05 <= self.scale_period <= 3600:
            raise RequestError(f"scale_period={self.scale_period:g}: want 0.05 to 3600 seconds")
        if min(self.scale_out_cooldown, self.scale_in_cooldown, self.scale_drain) < 0:
            raise RequestError("scale_out_cooldown, scale_in_cooldown and scale_drain cannot be negative")

    @property
    def scaling(self) -> ScalingPolicy | None:
        """How the number of readers follows the load; None: it does not."""
        if self.auto_scale is None:
            return None
        least, most = read_readers(self.auto_scale)
        metric = Metric.CPU if self.target_cpu is not None else Metric.CONNECTIONS
        target = float(self.target_cpu or self.target_connections or 0)
        times = self.scale_period, self.scale_out_cooldown, self.scale_in_cooldown, self.scale_drain
        return ScalingPolicy(least, most, metric, target, *times)

    @property
    def capacity(self) -> CapacityLimits | None:
        """Between which capacities an instance moves; None: it is not serverless."""
        return None if self.serverless is None else read_capacity(self.serverless)

    def _check_storage(self) -> None:
        fixed = FLAVOURS[self.flavour].readers
        if fixed is not None and self.readers != fixed:
            raise RequestError(f"readers={self.readers}: a cluster of flavour {self.flavour!r} has {fixed} readers")
        if not self.keeps_log and (self.isolated or self.segment_size is not None):
            raise RequestError(f"isolated and segment_size are options of flavour 'quorum', not of {self.flavour!r}")
        if self.data is not None and (not self.keeps_log or self.remote is not None):
            raise RequestError(
                "data goes with flavour 'quorum' on this machine, whose storage keeps the log: leave out flavour "
                "'direct' and remote"
            )
        if self.remote is not None and (not self.keeps_log or self.isolated or self.serves_tls or self.faults):
            raise RequestError("remote goes with flavour 'quorum', and not with isolated, tls, iam or faults")
        if self.segment_size is not None and self.segment_size < LEAST_SEGMENT:
            raise RequestError(f"segment_size={self.segment_size}: a segment is at least {LEAST_SEGMENT} (1 MiB)")
        if self.retention < 0:
            raise RequestError(f"retention={self.retention:g}: how far a cluster can be set back cannot be negative")

    @property
    def serves_tls(self) -> bool:
        """Whether the instances serve TLS."""
        return self.tls or self.iam

    @property
    def keeps_log(self) -> bool:
        """Whether the storage keeps the log, in nodes of its own."""
        return FLAVOURS[self.flavour].keeps_log

    @property
    def failover(self) -> Pace:
        """The pace of failovers, with what replaces parts of it."""
        given = {each.name: getattr(self, each.name) for each in fields(Pace)}
        return replace(PACES[self.pace], **{name: value for name, value in given.items() if value is not None})

    def to_json(self) -> str:
        """As one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ClusterOptions:
        """The inverse of `to_json`.

        Raises:
            RequestError: an option that does not exist, or a value out of range.
        """
        data: dict[str, Any] = json.loads(text)
        check_names(data, allowed=_NAMES)
        return cls(**data)


def _is_default(option: Any, options: ClusterOptions) -> bool:
    value = getattr(options, option.name)
    return bool(value == option.default) or (option.name == "settings" and not value)


_NAMES = tuple(each.name for each in fields(ClusterOptions))
KEYWORDS = tuple(each for each in _NAMES if each not in {"name", "key", "started_in", "owner"})
"""What `LocalCluster.start` takes as keywords, beside its own; the options of ``cluster up`` are among them."""


def check_names(options: Iterable[str], *, allowed: Sequence[str] = KEYWORDS) -> None:
    """Make sure that there are such options.

    Raises:
        RequestError: there is none of that name; the nearest ones are named.
    """
    for name in options:
        if name not in allowed:
            near = [each for each in KEYWORDS if each.startswith(name) or each in name.split("_")]
            near = near or difflib.get_close_matches(name, KEYWORDS)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(KEYWORDS)}"
            raise RequestError(f"unknown option of a cluster: {name}; {hint}")
