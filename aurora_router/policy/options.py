"""Every option, once: its type, its default, its profile values, how it is read, what the documentation says of it.

An option is a key with the prefix ``aurora_`` in a conninfo, a URL's query or the keywords of ``connect``. Such keys
never reach libpq; one that is unknown is refused by name. Tables in the documentation and ``--help`` come from
`describe`, so they cannot differ from what is parsed.

Precedence: an explicit option wins over ``aurora_profile``, which wins over the default.
"""

from __future__ import annotations

import enum
import re
from dataclasses import MISSING, field, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from aurora_router.errors import InvalidOption, redact
from aurora_router.forks import IMPORTING
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy import option_parsers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aurora_router.policy.candidate import Candidate
    from aurora_router.policy.hosts import HostPort, InstanceHosts

PREFIX = "aurora_"
PROFILE = "aurora_profile"
OWN_ZONE = "own"
"""Stands for the zone of this process among those of ``aurora_zones``."""
AUTO_SOURCE = "auto"
"""Stands for the topology sources that come with the library."""


class Balance(str, enum.Enum):
    """How one instance is chosen of several that suit; `policy.choosers` states what each of them promises."""

    RANDOM = "random"
    ROUND_ROBIN = "round_robin"
    WEIGHTED = "weighted"
    LEAST_CONNECTIONS = "least_connections"
    TWO_CHOICES = "two_choices"
    FASTEST = "fastest"


BALANCE_GROUP = "aurora_router.balance"
"""The group of entry points: name -> a `BalanceFunction`."""


class BalanceFunction(Protocol):
    """What chooses among instances that suit equally, in the place of a built-in strategy."""

    def __call__(self, candidates: Sequence[Candidate], /) -> Candidate | str | Iterable[Candidate | str]:
        """Return a candidate, its id, or several in the order in which to try them."""
        ...


@frozen
class CustomBalance:
    """A user's function in the place of a strategy; `policy.custom_balance` calls it.

    Attributes:
        name: what it is called in messages.
        function: orders the candidates.
    """

    name: str
    function: BalanceFunction

    @property
    def value(self) -> str:
        """The name, as strategies have it."""
        return self.name


def is_strategy(value: object) -> bool:
    """Whether a value of ``aurora_balance`` names a built-in strategy."""
    if isinstance(value, Balance):
        return True
    return isinstance(value, str) and value.strip().lower().replace("-", "_") in list(Balance)


def _read_balance(value: object) -> Balance | CustomBalance:
    return value if isinstance(value, CustomBalance) else option_parsers.choice(Balance)(value)


class ReaderFallback(str, enum.Enum):
    """What the role ``reader`` does while no reader suits."""

    WRITER = "writer"
    ERROR = "error"


class TlsDirect(str, enum.Enum):
    """Whether a dial begins with TLS at once; `policy.direct_tls` has the theory."""

    AUTO = "auto"
    OFF = "off"


class OutcomeMethod(str, enum.Enum):
    """How ``run_transaction`` determines the outcome of a COMMIT without an answer; `policy.outcome` has the theory."""

    AUTO = "auto"
    LOG = "log"
    WITNESS = "witness"
    OFF = "off"


class CausalMethod(str, enum.Enum):
    """What a causal token is made of; `policy.causal` has the theory."""

    AUTO = "auto"
    LOG = "log"
    WITNESS = "witness"
    DURABLE_LSN = "durable_lsn"


class OptionDoc(NamedTuple):
    """What a person should know of one option.

    Attributes:
        name: the key, with its prefix.
        accepts: the accepted values, in words.
        default: the default, as it would be written.
        profiles: values in the named profiles that differ from the default, as they would be written.
        example: a value.
        description: what it does and why the default is what it is.
    """

    name: str
    accepts: str
    default: str
    profiles: Mapping[str, str]
    example: str
    description: str


def _about(read: Callable[[object], Any], accepts: str, example: str, description: str) -> dict[str, Any]:
    return {"read": read, "accepts": accepts, "example": example, "description": description}


_DEFAULT_ROLE = (
    "Which instances may serve the connection. By default the endpoint's kind decides: a reader endpoint gives "
    "readers, an instance or custom endpoint its own instances, anything else the writer. `prefer-reader` takes the "
    "writer while no reader suits."
)
_INSTANCE = "The one instance to connect to, whatever its role, found by the cluster's topology."
_BALANCE = (
    "How one reader is chosen of several that suit. The default counts the connections that this process has on each, "
    "so that a pool's prefill spreads evenly, a reader that joins fills up first, and ties are broken at random so "
    "that many processes do not start on the same one. Another name is that of an entry point of the group "
    "`aurora_router.balance`; a callable is passed as `balance=`."
)
_WEIGHTS = (
    "The readers' shares with `aurora_balance=weighted`; one that is not named has the weight 1, 0 is none. By default "
    "the sizes of the instances' classes, where `aurora_attributes` knows all of them: `db.r6g.2xlarge` has twice the "
    "share of `db.r6g.xlarge`. Else all shares are equal."
)
_MAX_LAG = (
    "The highest replica lag of a reader. It is a promise, by the servers' own figures: a reader is used if its last "
    "known lag plus the age of that figure is within the bound, or if it answers on the new connection that its lag "
    "is; one whose lag is unknown is not. With a bound of 2 s or more the monitor looks every half of it, so that "
    "connects need not ask; with a smaller one, or without the monitor, a connect asks the reader when the figure is "
    "too old: one round trip. A reader that lagged too far is tried again after a second. A standby of plain "
    "PostgreSQL lags by the time since its last replayed transaction at most, and by the time since the writer was "
    "asked at most if it has replayed what the writer had then; that it has replayed all that it received proves "
    "nothing, since its upstream may be cut off. So with an idle primary it is the writer's figure that has to be "
    "fresh: the monitor sees to that, or a connect that asks all hosts of a list. Proxy endpoints are handed on, "
    "whatever the bound. By default there is none, as at Aurora's reader endpoint."
)
_TLS_DIRECT = (
    "With `auto`, TLS begins with the first byte of a dial, which saves a round trip, where an earlier session of this "
    "process showed that the server is PostgreSQL 17 or later. A refusal (of a proxy, or after a downgrade) is "
    "remembered for that address and port, and dialled as usual at once. Needs libpq 17 and `sslmode=require`, "
    "`verify-ca` or `verify-full`. Where `sslnegotiation` is given, that counts."
)
_ZONES = (
    "Availability zones to prefer: tiers separated by `,`, equal zones joined by `+`. Instances elsewhere come last. "
    "While the readers of a tier have more connections than 1.05 times the mean of all, a growing part of the connects "
    "goes on to the next one; see [Balancing](balancing.md#zones-and-when-a-busy-one-overflows). The monitor asks each "
    "reader for that once a minute. "
    "`own` is the zone of this process, which `aurora_attributes=rds` finds out: by the variable `AURORA_ZONE` (a "
    "name, or an id such as `euw1-az1`), the metadata of an ECS task, or those of an EC2 instance. Until it is known, "
    "`own` is no zone."
)
_REBALANCE = (
    "Let pools recycle connections, so that readers that join get their share, and those that leave lose theirs, as "
    "`aurora_balance`, the zones and the lag bound say: at most a tenth of the connections per second, after a random "
    "pause of up to five seconds, and only connections that are not in use. Counts for pools of `aurora_router.pool`, "
    "SQLAlchemy and Django."
)
_ZONE_MAP = "The instances' zones, which no SQL source reports, and `aurora_attributes` may not know."
_FALLBACK = (
    "What the role `reader` does while no reader suits: take the writer, as Aurora's own reader endpoint does in a "
    "cluster without readers, or raise an error."
)
_INSTANCE_HOST = (
    "Where instances are dialled when their names do not follow from the host: a template with `{id}`, or a map. For "
    "clusters behind an IP, a tunnel, private DNS or a load balancer."
)
_CREDENTIALS = (
    "The provider that gives user and password at each dial: `iam` signs IAM tokens, `secret` reads AWS Secrets "
    "Manager, `env` reads variables or a file, any other name is looked up among the entry points of the group "
    "`aurora_router.credentials`. A callable is passed as `credentials=`."
)
_ATTRIBUTES = (
    "What describes the cluster beside SQL, in the background: `rds` asks the RDS API for zones, classes and promotion "
    "tiers of the instances, and for the members of custom endpoints. It is optional: where the API does not answer, "
    "or does not permit it, connections are routed by SQL and DNS. Another name is looked up among the entry points of "
    "the group `aurora_router.attributes`."
)
_RDS_AT = "The URL of the RDS API in place of the region's own: a VPC endpoint, or that of a local cluster."
_IAM_HOST = (
    "The name that IAM tokens are signed for where another one is dialled: a tunnel's, an address, one of your own, or "
    "a custom endpoint. With the name of a cluster endpoint, an instance gets a token for its own name in the same "
    "domain. The port is 5432, with a custom endpoint the one that is dialled, unless it is given."
)
_AWS_REGION = (
    "The region of IAM tokens and of the RDS API where the name that is dialled does not say it, as that of a global "
    "database; the region of a secret that is named without its ARN, or with the ARN, that of the replica to read. By "
    "default that of the environment (`AWS_REGION`, `AWS_DEFAULT_REGION`, the profile)."
)
_AWS_PROFILE = (
    "The profile of the AWS configuration whose credentials sign requests, in place of `AWS_PROFILE`; it may assume a "
    "role. Without one, botocore's whole chain counts: environment, files, web identity, container, instance."
)
_STORED_IN = (
    "The secret of AWS Secrets Manager with user and password: its ARN, or its name. Nothing else in it counts, nor "
    "does a user that is given beside it."
)
_SECRETS_AT = "The URL of Secrets Manager in place of the region's own: a VPC endpoint, or a server for tests."
_ENV_USER = (
    "The environment variable with the user, for `aurora_credentials=env`. By default `AURORA_USER`, and where that is "
    "not set, the user that is named otherwise."
)
_ENV_WORD = "The environment variable with the password, for `aurora_credentials=env`. By default `AURORA_PASSWORD`."
_FILE = (
    "The file with the password, for `aurora_credentials=env`, in place of a variable: of Docker or Kubernetes. It is "
    "read again every 10 s, and when the server rejects what was in it."
)
_DNS = "The only name server to ask, in place of the system's resolver; the port is 53 when not given."
_TRUST = (
    "Accept, under `sslmode=verify-full`, a server name that was learned by following your own CNAME. Off, "
    "because a name server, or an attacker that answers in its place, could then name another server."
)
_SOURCE = (
    "How the topology is asked for; `auto` recognises Aurora, and RDS Multi-AZ DB clusters (`multi_az`), on the first "
    "connection. Other names are those of entry points of the group `aurora_router.sources`; several are tried in "
    "their order until a server answers."
)
_PATRONI = (
    "Where `aurora_source=patroni` asks Patroni's REST API: the URLs of some members. By default port 8008 of the "
    "hosts that are given, without TLS."
)
_PATRONI_LOGIN = "A file with `user:password`, where Patroni's REST API, or a proxy before it, asks for it."
_PATRONI_CA = "The certificates that those of Patroni's REST API are verified by; by default the system's."
_PATRONI_CERT = "This client's certificate and key, in one file, where Patroni's REST API asks for one."
_CLUSTER = "A name for the cluster in messages, which also keeps it apart from others."
_CONNECT_TIMEOUT = (
    "How long one dial of one instance may take, all of its addresses together. 5 s is ample for TLS across regions "
    "and short enough to try several instances within `aurora_failover_timeout`. libpq's `connect_timeout` and "
    "`PGCONNECT_TIMEOUT` mean the same, in whole seconds and at least 2; this option wins over both."
)
_FAILOVER_TIMEOUT = (
    "How long a connect keeps looking for a suitable instance. Failovers of Aurora typically end within 30 s, 60 s "
    "is the longest time quoted; a shorter default would turn failovers that end well into errors. A process that "
    "starts during an outage waits as long, if the name resolves and something answers or refuses. 0: one round. Use "
    "less in a server that ends requests after 30 s: `aurora_profile=web`."
)
_DNS_TIMEOUT = "How long a name server may take to answer before the system's resolver is asked."
_QUARANTINE = (
    "How long an instance that failed is only a last resort; doubled by each further failure up to 30 s, cleared by a "
    "success. 0: never."
)
_REFRESH = "How often the topology is read in normal operation."
_MONITOR = (
    "Look after the cluster in the background, in the one thread of the process that does so for all clusters: the "
    "topology stays fresh, hung instances are noticed, a new writer is found by asking all instances at once. Off: "
    "each connect finds out by itself, and a hang ends when the operating system gives up."
)
_AUTO_PAUSE = (
    "After how long without connections the instances pause: `SecondsUntilAutoPause` of Aurora Serverless v2 with a "
    "minimum of 0 ACU. A connect then waits up to 45 s, within `aurora_failover_timeout`, for an instance that may "
    "have paused, and its silence is no hang; the monitor asks only instances to which this process is connected, so "
    "that it keeps none awake. By default what `aurora_attributes=rds` reports counts; 0: they do not pause."
)
_HANG_GRACE = (
    "How long a statement may wait for the server before the server is asked for a sign of life, which costs the "
    "statement nothing. With 1 s hardly any statement causes such a question."
)
_PING_TIMEOUT = (
    "How long that sign of life may take, a dial included, before the instance is taken for hung and the sockets of "
    "its connections are shut down. With 1 s a hang is noticed within 2.25 s, and the connections to a server that "
    "stops for half a second, or that is under full load, are not cut."
)
_OUTCOME = (
    "How `run_transaction` determines the outcome of a COMMIT that got no answer: by the position in the log, by a "
    "witness row (`aurora-router outcome install URL`), or not at all. `auto` takes the witness where it is "
    "installed, else the log position where the server offers it."
)
_TERMINATE = (
    "Whether `run_transaction` terminates its own backend if that still waits for a statement a second after its "
    "connection was lost. Otherwise the server notices the loss only by its keep-alive, after hours."
)
_ATTEMPTS = "How many attempts `run_transaction` makes at most, the first one included."
_TRANSACTION_TIMEOUT = (
    "How long `run_transaction` keeps starting new attempts. Twice the failover timeout, so that a transaction which "
    "meets a failover gets a second chance after it."
)

_CAUSAL = (
    "What a causal token is made of. `auto` takes the position in the log where the server offers it and the user may "
    "read `pg_stat_wal_receiver`, else a witness row (`aurora-router outcome install URL`); after `run_transaction` "
    "that wrote one, that row. `durable_lsn` takes the figure of the same name in `aurora_replica_status()`: it costs "
    "no write, and rests on an assumption about Aurora that its documentation does not confirm."
)
_CAUSAL_WAIT = (
    "How long a read with a causal token waits for a reader that is behind, before it goes to the writer. Aurora's "
    "readers are behind by less than 0.1 s as a rule; a read that has waited for half a second is better off with the "
    "writer. 0: no reader is waited for."
)

_PASTED = r"(?i)://|@|pass\w*\s*="
"""What no option has, and a URL or a conninfo that may hold a password does."""
_PASTED_IN = {
    "aurora_instance_host": "://",  # an abstract socket begins with @
    "aurora_secret": "://",  # the name of a secret may have an @ in it
    "aurora_secret_endpoint": r"(?i)@|pass\w*\s*=",
    "aurora_rds_endpoint": r"(?i)@|pass\w*\s*=",
    "aurora_patroni": r"(?i)@|pass\w*\s*=",
}
"""The same for options that may have a part of it."""
_VPC_ENDPOINT = "https://vpce-0a1b.secretsmanager.eu-west-1.vpce.amazonaws.com"
_RDS_NAME = "mydb.cluster-c9akciq32.eu-west-1.rds.amazonaws.com"
_HOSTS = "a template {id}…[:port], or id=host[:port],…"
_SECONDS = "seconds, 0 or more"
_POSITIVE = "seconds, more than 0"


@frozen(kw_only=True)
class Options:
    """The options of one connection; times are in seconds. `describe` documents each.

    Raises:
        InvalidOption: values contradict each other.
    """

    role: WantedRole | None = field(
        default=None,
        metadata=_about(
            option_parsers.choice(WantedRole), "writer, reader, prefer-reader, any", "reader", _DEFAULT_ROLE
        ),
    )
    instance: str | None = field(
        default=None, metadata=_about(option_parsers.text, "an instance's id", "demo-2", _INSTANCE)
    )
    balance: Balance | CustomBalance = field(
        default=Balance.LEAST_CONNECTIONS,
        metadata=_about(
            _read_balance,
            ", ".join(each.value for each in Balance) + ", the name of an entry point, a callable",
            "random",
            _BALANCE,
        ),
    )
    weights: tuple[tuple[str, int], ...] = field(
        default=(), metadata=_about(option_parsers.weights, "id=whole number,…", "demo-2=3,demo-3=1", _WEIGHTS)
    )
    max_lag: float | None = field(default=None, metadata=_about(option_parsers.seconds, _SECONDS, "5", _MAX_LAG))
    zones: tuple[frozenset[str], ...] = field(
        default=(),
        metadata=_about(option_parsers.zone_tiers, "own, zone+zone,zone,…", "own,eu-west-1b", _ZONES),
    )
    zone_map: tuple[tuple[str, str], ...] = field(
        default=(),
        metadata=_about(option_parsers.zone_table, "id=zone,…", "demo-1=eu-west-1a,demo-2=eu-west-1b", _ZONE_MAP),
    )
    tls_direct: TlsDirect = field(
        default=TlsDirect.OFF, metadata=_about(option_parsers.choice(TlsDirect), "auto, off", "auto", _TLS_DIRECT)
    )
    rebalance: bool = field(default=True, metadata=_about(option_parsers.truth, "on, off", "off", _REBALANCE))
    reader_fallback: ReaderFallback = field(
        default=ReaderFallback.WRITER,
        metadata=_about(option_parsers.choice(ReaderFallback), "writer, error", "error", _FALLBACK),
    )
    instance_host: InstanceHosts | None = field(
        default=None, metadata=_about(option_parsers.instance_hosts, _HOSTS, "{id}.db.internal", _INSTANCE_HOST)
    )
    credentials: str | None = field(
        default=None, metadata=_about(option_parsers.text, "the name of a provider", "iam", _CREDENTIALS)
    )
    attributes: str | None = field(
        default=None, metadata=_about(option_parsers.text, "the name of a source", "rds", _ATTRIBUTES)
    )
    rds_endpoint: str | None = field(
        default=None, metadata=_about(option_parsers.http_url, "a URL", "http://127.0.0.1:8000", _RDS_AT)
    )
    iam_host: HostPort | None = field(
        default=None, metadata=_about(option_parsers.rds_name, "a name of RDS[:port]", _RDS_NAME, _IAM_HOST)
    )
    secret: str | None = field(
        default=None, metadata=_about(option_parsers.text, "an ARN, or a name", "prod/orders/db", _STORED_IN)
    )
    secret_endpoint: str | None = field(
        default=None, metadata=_about(option_parsers.http_url, "a URL", _VPC_ENDPOINT, _SECRETS_AT)
    )
    aws_region: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a region", "eu-west-1", _AWS_REGION)
    )
    aws_profile: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a profile", "orders", _AWS_PROFILE)
    )
    env_user: str | None = field(
        default=None, metadata=_about(option_parsers.text, "the name of a variable", "DB_USER", _ENV_USER)
    )
    env_password: str | None = field(
        default=None, metadata=_about(option_parsers.text, "the name of a variable", "DB_PASSWORD", _ENV_WORD)
    )
    password_file: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a path", "/run/secrets/db", _FILE)
    )
    dns: HostPort | None = field(
        default=None, metadata=_about(option_parsers.name_server, "an IP address[:port]", "127.0.0.1:5300", _DNS)
    )
    trust_cname: bool = field(default=False, metadata=_about(option_parsers.truth, "on, off", "on", _TRUST))
    source: tuple[str, ...] = field(
        default=(AUTO_SOURCE,),
        metadata=_about(option_parsers.names, "auto, built-in sources, names of entry points", "postgresql", _SOURCE),
    )
    patroni: tuple[str, ...] | None = field(
        default=None, metadata=_about(option_parsers.http_urls, "URLs", "https://pg1:8008,https://pg2:8008", _PATRONI)
    )
    patroni_login: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a path", "/etc/patroni/login", _PATRONI_LOGIN)
    )
    patroni_ca: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a path", "/etc/patroni/ca.pem", _PATRONI_CA)
    )
    patroni_cert: str | None = field(
        default=None, metadata=_about(option_parsers.text, "a path", "/etc/patroni/client.pem", _PATRONI_CERT)
    )
    cluster: str | None = field(default=None, metadata=_about(option_parsers.text, "any text", "orders", _CLUSTER))
    connect_timeout: float = field(
        default=5.0, metadata=_about(option_parsers.positive_seconds, _POSITIVE, "2", _CONNECT_TIMEOUT)
    )
    failover_timeout: float = field(
        default=60.0, metadata=_about(option_parsers.seconds, _SECONDS, "30", _FAILOVER_TIMEOUT)
    )
    dns_timeout: float = field(
        default=1.0, metadata=_about(option_parsers.positive_seconds, _POSITIVE, "0.5", _DNS_TIMEOUT)
    )
    quarantine: float = field(default=1.0, metadata=_about(option_parsers.seconds, _SECONDS, "5", _QUARANTINE))
    refresh: float = field(default=30.0, metadata=_about(option_parsers.positive_seconds, _POSITIVE, "10", _REFRESH))
    monitor: bool = field(default=True, metadata=_about(option_parsers.truth, "on, off", "off", _MONITOR))
    auto_pause: float | None = field(
        default=None, metadata=_about(option_parsers.seconds, _SECONDS, "300", _AUTO_PAUSE)
    )
    hang_grace: float = field(
        default=1.0, metadata=_about(option_parsers.positive_seconds, _POSITIVE, "0.5", _HANG_GRACE)
    )
    ping_timeout: float = field(
        default=1.0, metadata=_about(option_parsers.positive_seconds, _POSITIVE, "2", _PING_TIMEOUT)
    )
    outcome: OutcomeMethod = field(
        default=OutcomeMethod.AUTO,
        metadata=_about(option_parsers.choice(OutcomeMethod), "auto, log, witness, off", "witness", _OUTCOME),
    )
    outcome_terminate: bool = field(default=True, metadata=_about(option_parsers.truth, "on, off", "off", _TERMINATE))
    transaction_attempts: int = field(
        default=5, metadata=_about(option_parsers.count, "a whole number, 1 or more", "3", _ATTEMPTS)
    )
    transaction_timeout: float = field(
        default=120.0, metadata=_about(option_parsers.seconds, _SECONDS, "30", _TRANSACTION_TIMEOUT)
    )
    causal: CausalMethod = field(
        default=CausalMethod.AUTO,
        metadata=_about(option_parsers.choice(CausalMethod), "auto, log, witness, durable_lsn", "durable_lsn", _CAUSAL),
    )
    causal_wait: float = field(default=0.5, metadata=_about(option_parsers.seconds, _SECONDS, "1", _CAUSAL_WAIT))

    def __post_init__(self) -> None:
        if self.weights and isinstance(self.balance, Balance) and self.balance is not Balance.WEIGHTED:
            raise InvalidOption(
                f"{PREFIX}weights has no effect with {PREFIX}balance={self.balance.value}: "
                f"remove it, or set {PREFIX}balance=weighted"
            )
        if self.attributes is not None and not self.monitor:
            raise InvalidOption(
                f"{PREFIX}attributes has no effect with {PREFIX}monitor=off, since it is asked in the background: "
                "remove one of them"
            )
        if self.prefers_own_zone and self.attributes is None:
            raise InvalidOption(
                f"{PREFIX}zones={OWN_ZONE} needs {PREFIX}attributes=rds, which finds out the zone of this process"
            )

    @property
    def prefers_own_zone(self) -> bool:
        """Whether the zone of this process counts."""
        return any(OWN_ZONE in tier for tier in self.zones)


PROFILES: Mapping[str, Options] = MappingProxyType(
    {
        "default": Options(),
        # A service that would rather fail its own request: half of the worst failover, a fresh view.
        # A hang is noticed within 0.44 s; a server that stands still for 0.25 s may be cut off.
        "aggressive": Options(
            connect_timeout=2.0,
            failover_timeout=30.0,
            dns_timeout=0.5,
            quarantine=0.5,
            refresh=10.0,
            hang_grace=0.15,
            ping_timeout=0.25,
            transaction_timeout=60.0,
        ),
        # A request that a server ends after 30 s (gunicorn), with an error instead of a killed worker: 20 s for a
        # failover, a silent instance costs 3 s of them, and what is left is for the request itself.
        "web": Options(connect_timeout=3.0, failover_timeout=20.0, transaction_timeout=10.0),
        # A batch job that would rather wait: ten minutes is what creating a new writer takes without a replica.
        # A hang is noticed within 15.25 s.
        "patient": Options(
            connect_timeout=15.0,
            failover_timeout=600.0,
            dns_timeout=3.0,
            quarantine=2.0,
            refresh=60.0,
            hang_grace=5.0,
            ping_timeout=10.0,
            transaction_timeout=1200.0,
        ),
    }
)
"""Named sets of values; `Options` of the profile ``default`` are the defaults."""

OF_EXTENSIONS = MappingProxyType(
    {
        **dict.fromkeys(("iam_host", "secret", "secret_endpoint", "env_user", "env_password"), "credentials"),
        **dict.fromkeys(("password_file", "aws_region", "aws_profile"), "credentials"),
        "rds_endpoint": "attributes",
        **dict.fromkeys(("patroni", "patroni_login", "patroni_ca", "patroni_cert"), "source"),
    }
)
"""Options, without prefix, that an extension reads -> the option that names it; with any other one they are refused."""

_FIELDS = MappingProxyType({PREFIX + each.name: each for each in fields(Options)})


def split(params: Mapping[str, object]) -> tuple[Options, dict[str, object]]:
    """Part a flat mapping into the options and what is left for libpq.

    Args:
        params: a parsed conninfo, the query of a URL, keyword arguments. Values are text or typed; an ``aurora_`` key
            whose value is None counts as not given.

    Returns:
        The options, and the other items in their order.

    Raises:
        InvalidOption: an ``aurora_`` key is unknown, its value is malformed, or options contradict each other.
    """
    given: dict[str, object] = {}
    rest: dict[str, object] = {}
    for key, value in params.items():
        (given if is_option(key) else rest)[key] = value
    given = {key: value for key, value in given.items() if value is not None}
    base = _profile(given.pop(PROFILE, "default"))
    if not given:
        return base, rest
    explicit = {_find_field(key).name: read_value(key, value) for key, value in given.items()}
    _refuse_contradictions(explicit)
    return replace(base, **explicit), rest


def overridden_by(options: Mapping[str, object]) -> dict[str, None]:
    """What has no effect any more once `options` were given closer to the connect, as options that are not given.

    A conninfo, or a router, serves connections of several roles: ``aurora_reader_fallback`` there, and
    ``aurora_role=writer`` here, are no contradiction. (Given in the same place they are: see `split`.)

    Args:
        options: what is given closer, with the prefix; a value of None counts as not given.
    """
    given = {key for key, value in options.items() if value is not None}
    moot = set()
    if PREFIX + "instance" in given:
        moot |= {PREFIX + "role", PREFIX + "reader_fallback"}
    if PREFIX + "role" in given:
        moot |= {PREFIX + "instance"}
        if str(getattr(options[PREFIX + "role"], "value", options[PREFIX + "role"])).strip().lower() != "reader":
            moot |= {PREFIX + "reader_fallback"}
    if is_strategy(options.get(PREFIX + "balance")):
        moot |= {PREFIX + "weights"}
    return dict.fromkeys(sorted(moot - given))


def is_option(key: str) -> bool:
    """Whether a key is for this library, spelled well or not."""
    return key.lower().startswith(PREFIX)


def read_value(key: str, value: object) -> Any:
    """The typed value of one option.

    Raises:
        InvalidOption: the key is unknown or the value malformed.
    """
    metadata = _find_field(key).metadata
    if isinstance(value, str) and re.search(_PASTED_IN.get(key, _PASTED), value):
        raise InvalidOption(f"{key}={redact(value)}: this belongs in the conninfo, the first argument")
    try:
        return metadata["read"](value)
    except ValueError as error:
        accepted = f"accepted: {metadata['accepts']}; for example {key}={metadata['example']}"
        shown = redact(value)
        fault = str(error) if shown == repr(value) else "is not that"
        raise InvalidOption(f"{key}={shown}: {fault} ({accepted})") from None


def describe() -> list[OptionDoc]:
    """The documentation of every option, in the order of `Options`; ``aurora_profile`` comes first."""
    names = ", ".join(PROFILES)
    about = "A named set of values for the options below; an option given explicitly wins over it."
    docs = [OptionDoc(PROFILE, names, "default", MappingProxyType({}), "patient", about)]
    for key, each in _FIELDS.items():
        assert each.default is not MISSING
        written = {name: getattr(options, each.name) for name, options in PROFILES.items()}
        profiles = {name: _format_value(value) for name, value in written.items() if value != each.default}
        docs.append(
            OptionDoc(
                key,
                each.metadata["accepts"],
                _format_value(each.default),
                MappingProxyType(profiles),
                each.metadata["example"],
                each.metadata["description"],
            )
        )
    return docs


def _format_value(value: object) -> str:
    if value is None or value == ():
        return ""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}"


def find_option(name: str) -> str | None:
    """Return the key of the option that a name without the prefix stands for; None: there is none."""
    key = PREFIX + name.lower()
    return key if key in _FIELDS or key == PROFILE else None


def _find_field(key: str) -> Any:
    """The field of an option."""
    try:
        return _FIELDS[key]
    except KeyError:
        raise InvalidOption(f"unknown option {key}: {_suggestion(key)}") from None


def _suggestion(key: str) -> str:
    with IMPORTING:
        from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it, and it is slow to import

    known = [PROFILE, *_FIELDS]
    names = [each.removeprefix(PREFIX) for each in known]  # the prefix alone would make any two of them alike
    if near := get_close_matches(key.lower().removeprefix(PREFIX), names, n=1):
        return f"did you mean {PREFIX}{near[0]}?"
    return f"the options are {', '.join(known)}"


def _profile(name: object) -> Options:
    found = PROFILES.get(name) if isinstance(name, str) else None
    if found is None:
        raise InvalidOption(f"{PROFILE}={redact(name)}: no such profile (accepted: {', '.join(PROFILES)})")
    return found


def _refuse_contradictions(explicit: Mapping[str, Any]) -> None:
    """Refuse what could only be a misunderstanding; `Options` itself checks what needs no knowledge of the keys."""
    role = explicit.get("role", WantedRole.READER)
    if "instance" in explicit and "role" in explicit:
        raise InvalidOption(f"{PREFIX}instance names the one instance: {PREFIX}role has no effect, remove one of them")
    if "reader_fallback" in explicit and role is not WantedRole.READER:
        raise InvalidOption(
            f"{PREFIX}reader_fallback has no effect with {PREFIX}role={role.value}: "
            f"remove it, or set {PREFIX}role=reader"
        )
