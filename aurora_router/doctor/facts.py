"""What is found out about a setup before it is judged: plain values, without passwords."""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.policy.options import OutcomeMethod

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aurora_router.policy.options import Options
    from aurora_router.policy.route import Request, Route


@frozen(kw_only=True)
class Application:
    """What an application does with the URL, and the URL does not say.

    Attributes:
        pool_size: connections of one process at most; None: not known.
        processes: how many processes have a pool of that size.
        pool_timeout: how long a checkout waits, in seconds; 30 is the default of psycopg_pool and SQLAlchemy.
        prepares: whether psycopg prepares statements by itself (``prepare_threshold`` is not None).
    """

    pool_size: int | None = None
    processes: int = 1
    pool_timeout: float = 30.0
    prepares: bool = True


@frozen(kw_only=True)
class Versions:
    """What runs here; `libpq` as libpq gives it, 180000 for 18.0."""

    driver: str
    psycopg: str
    libpq: int


@frozen(kw_only=True)
class Setup:
    """What was given, and what it means.

    Attributes:
        given: the parameters of the conninfo, our options among them, without passwords.
        environment: libpq's variables that are set, without passwords.
        refusal: why the conninfo or an option is refused; None: it is not.
        request: what it asks for; None: it is refused.
        route: how it is routed; None: it is refused, or the name has no address.
        application: what the application does with it.
        versions: of what runs here.
        roots: the file with the trusted roots, or ``system``; None: libpq's default.
        has_roots: whether that file is there.
        exposed_passfile: the password file, if libpq ignores it because others may read it; else None.
        tcp_limited: whether libpq is given a limit for a silent peer (``tcp_user_timeout``).
    """

    given: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    refusal: str | None = None
    request: Request | None = None
    route: Route | None = None
    application: Application = field(default_factory=Application)
    versions: Versions
    roots: str | None = None
    has_roots: bool = True
    exposed_passfile: str | None = None
    tcp_limited: bool = False

    @property
    def sslmode(self) -> str:
        """How libpq uses TLS; ``prefer`` is its default."""
        return self.given.get("sslmode") or self.environment.get("PGSSLMODE") or "prefer"

    @property
    def options(self) -> Options | None:
        """Our options; None: they are refused."""
        return None if self.request is None else self.request.options

    @property
    def kind(self) -> EndpointKind | None:
        """What the first given host is, as it was written; None: it is refused."""
        return None if self.request is None else parse_endpoint(self.request.first.host or "").kind


@frozen
class Alias:
    """One CNAME record: `ttl` in seconds."""

    name: str
    target: str
    ttl: int


@frozen(kw_only=True)
class Name:
    """What DNS says of a name.

    Attributes:
        host: the name.
        addresses: IPv4 first; empty where there is none.
        aliases: the CNAMEs that were followed, in order.
        ttl: of the address records, in seconds; None: not from DNS.
        error: why it has no address; None: it has one.
        is_silent: whether no name server answered.
        in_hosts_file: whether the hosts file of this machine has it.
    """

    host: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[Alias, ...] = ()
    ttl: int | None = None
    error: str | None = None
    is_silent: bool = False
    in_hosts_file: bool = False


class Wire(enum.Enum):
    """What is at the other end before any login."""

    UNREACHABLE = "no packet gets there"
    REFUSED = "nothing listens"
    SILENT = "accepts connections and sends nothing"
    FOREIGN = "is no PostgreSQL server"
    PLAIN = "a server without TLS"
    TLS = "a server with TLS"


@frozen
class Certificate:
    """A server's certificate: the names and addresses that it is for, and when it begins and ends, in Unix time."""

    names: tuple[str, ...]
    begins: float
    ends: float


@frozen
class Failure:
    """A connection that could not be made: the SQLSTATE if there is one, and the text."""

    sqlstate: str | None
    text: str


@frozen(kw_only=True)
class Session:
    """What a server says of itself.

    Attributes:
        instance: the instance's own id; None: it has none.
        standby: whether it is in recovery.
        end: the server's own address and port; None: a local socket.
        pooled: whether another backend answers than the one that began the session.
        direct: whether the server sees the connection as this process does.
        clock: the server's clock minus ours, in seconds.
        version: as ``server_version_num``.
        connections: ``max_connections`` without those that are reserved.
        role_limit: of connections of the user; None: none.
        database_limit: of connections to the database; None: none.
        settings: of the session, by name.
        system: the system identifier; None: it may not be read.
        reported_standby: what the server reported of its role when the session began; None: it reports none.
        write_refusal: the SQLSTATE with which a standby refuses to write; None: it is none, or refuses nothing.
    """

    instance: str | None = None
    standby: bool = False
    end: tuple[str, int] | None = None
    pooled: bool = False
    direct: bool = True
    clock: float = 0.0
    version: int = 180000
    connections: int = 100
    role_limit: int | None = None
    database_limit: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    reported_standby: bool | None = None
    write_refusal: str | None = None


@frozen(kw_only=True)
class Server:
    """One place that was dialled.

    Attributes:
        name: for people: the host that was given, or the instance's id.
        host: the name that TLS verifies; None: a local socket.
        port: the port.
        address: what was dialled; None: a local socket.
        instance: the instance that is expected there; None: whichever the given name leads to.
        wire: what is at the other end; None: a local socket.
        wire_text: more about it.
        certificate: of the server; None: no TLS, or it could not be read.
        unverified: why ``sslmode=verify-full`` fails, by libpq; None: it passes, or was not tried.
        failure: why there is no session; None: there is one.
        seconds: how long it took to connect.
        session: what it says of itself.
    """

    name: str
    host: str | None = None
    port: int = 5432
    address: str | None = None
    instance: str | None = None
    wire: Wire | None = None
    wire_text: str = ""
    certificate: Certificate | None = None
    unverified: Failure | None = None
    failure: Failure | None = None
    seconds: float = 0.0
    session: Session | None = None


@frozen
class Member:
    """An instance as the topology lists it; None: not known.

    Attributes:
        id: of the instance.
        writer: whether it is marked as the writer.
        lag: in seconds.
        zone: where it is.
        ahead: the time stamp of its row, which its own clock wrote, minus our clock, in seconds. Below zero it may be
            as old as that.
    """

    id: str
    writer: bool
    lag: float | None = None
    zone: str | None = None
    ahead: float | None = None


@frozen(kw_only=True)
class Topology:
    """How a cluster reports its instances.

    Attributes:
        source: which source answered; None: none did.
        is_aurora: whether the server has Aurora's functions, permitted or not.
        refusal: why the topology may not be read; None: it may, or there is none.
        grant: what to do about that, for people.
        members: the instances.
        observer: the instance that answered.
    """

    source: str | None = None
    is_aurora: bool = False
    refusal: Failure | None = None
    grant: str = ""
    members: tuple[Member, ...] = ()
    observer: str | None = None

    @property
    def writer(self) -> str | None:
        """The id of the writer, if one is marked."""
        return next((each.id for each in self.members if each.writer), None)


@frozen(kw_only=True)
class Commits:
    """How the outcome of a COMMIT could be found out.

    Attributes:
        method: as ``aurora_outcome`` says.
        has_table: whether the witness table is there.
        may_use_table: whether this user may use it.
        log_refusal: why the log position cannot be had; None: it can.
    """

    method: OutcomeMethod = OutcomeMethod.AUTO
    has_table: bool = False
    may_use_table: bool = False
    log_refusal: str | None = None


@frozen(kw_only=True)
class Connected:
    """A connect by the driver, as the application does it: the instance, its role, and why; or the error."""

    instance: str | None = None
    role: str | None = None
    reason: str = ""
    error: Failure | None = None


@frozen(kw_only=True)
class Facts:
    """All that was found out.

    Attributes:
        now: when, in Unix time.
        setup: what was given.
        names: what DNS says of the given names, and of the instances'.
        given: the given hosts, each of their addresses.
        repeats: where the first given name led when it was dialled again: the servers' own addresses and ports.
        topology: what the cluster reports; None: no server could be asked.
        instances: the instances, dialled by their own names.
        unlocated: ids of instances of which it is not known where they are dialled.
        commits: how outcomes could be found out; None: the writer was not reached.
        connected: the driver's own connect; None: it was not tried.
    """

    now: float
    setup: Setup
    names: tuple[Name, ...] = ()
    given: tuple[Server, ...] = ()
    repeats: tuple[str, ...] = ()
    topology: Topology | None = None
    instances: tuple[Server, ...] = ()
    unlocated: tuple[str, ...] = ()
    commits: Commits | None = None
    connected: Connected | None = None

    @property
    def ends(self) -> frozenset[str]:
        """Where the first given name led, each time that it was dialled."""
        first = (each.session.end for each in self.given[:1] if each.session is not None)
        return frozenset([*self.repeats, *(":".join(map(str, end)) for end in first if end is not None)])

    @property
    def servers(self) -> Iterator[Server]:
        """All that was dialled."""
        yield from self.given
        yield from self.instances

    @property
    def sessions(self) -> Iterator[tuple[Server, Session]]:
        """All that answered."""
        for each in self.servers:
            if each.session is not None:
                yield each, each.session
