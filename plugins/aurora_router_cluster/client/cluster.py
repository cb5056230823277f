"""`LocalCluster`: a local Aurora-like cluster as a Python object, a client of its supervisor process."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
import urllib.parse
from typing import TYPE_CHECKING, Any, final

from aurora_router_cluster import errors, home
from aurora_router_cluster.client import starting
from aurora_router_cluster.client.faults import Faults
from aurora_router_cluster.client.nodes import StorageNodes
from aurora_router_cluster.client.past import ClusterHistory
from aurora_router_cluster.control import channel
from aurora_router_cluster.control.status import ClusterStatus, Failover, InstanceStatus
from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import ClusterNotFoundError, SupervisorError, UnknownEndpointError
from aurora_router_cluster.options import ClusterOptions
from aurora_router_cluster.postgres import settings

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from types import TracebackType

START_TIMEOUT = 120.0  # seconds; the first start on a machine builds the template and may copy the binaries
REQUEST_TIMEOUT = 120.0  # seconds


@final
class LocalCluster:
    """A running cluster: `start` makes one, `attach` finds one that runs.

    A context manager. One that was started ends with the block, with its process (also a killed one), or by
    `close`; one that was attached to goes on. Safe to use from several threads.
    """

    user = settings.USER
    password = settings.PASSWORD
    dbname = settings.DATABASE

    def __init__(self, place: home.Home, process: subprocess.Popen[bytes] | None = None) -> None:
        self._home = place
        self._process = process
        self._first = self.status()
        self.nodes = StorageNodes(self._ask)
        self.history = ClusterHistory(self._ask, LocalCluster.start)

    # -- life ----------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls, name: str | None = None, *, detach: bool = False, timeout: float = START_TIMEOUT, **options: Any
    ) -> LocalCluster:
        """Start a cluster and return when its writer and readers answer.

        Args:
            name: its label, by which `attach` finds it too; None: the label is ``demo``, and any number of such
                clusters may run side by side.
            detach: let it outlive this process.
            timeout: give up after so many seconds.
            **options: see `options.ClusterOptions`: readers, flavour, postgres, domain, port, address, dns_port,
                dns_ttl, dns_delay, directory, detect, auto, tls, isolated, segment_size,
                base_interval, base_bytes, scrub_interval, faults, settings.

        Raises:
            ClusterRunningError: one of that name runs.
            BinariesError: no PostgreSQL binaries.
            AddressInUseError: an address or port asked for is taken.
            RequestError: an option that does not exist, or a value out of range.
            SupervisorError: the supervisor failed, or was not ready in time.
        """
        label = names.checked_label(name or "demo", "a cluster")
        key = label if name is not None else f"{label}-{secrets.token_hex(4)}"
        owner = None if detach else os.getpid()
        try:
            chosen = ClusterOptions(name=label, key=key, owner=owner, **options)
        except TypeError as error:
            raise errors.RequestError(f"unknown option of a cluster: {error}") from None
        process = starting.spawn(chosen)
        try:
            starting.await_ready(process, timeout)
            return cls(home.Home(key), None if detach else process)
        except BaseException:
            starting.end(process)
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()
            if detach:
                process.returncode = 0 if process.poll() is None else process.returncode  # not ours to wait for

    @classmethod
    def attach(cls, name: str = "demo") -> LocalCluster:
        """Find a running cluster by its name (or its key, see ``status``).

        Raises:
            ClusterNotFoundError: there is none; the message lists those that run.
        """
        place = home.Home(name)
        try:
            return cls(place)
        except ClusterNotFoundError:
            running = ", ".join(home.running()) or "none"
            raise ClusterNotFoundError(f"no cluster {name!r} is running; running are: {running}") from None

    def close(self) -> None:
        """End the cluster if this object started it; else do nothing."""
        if self._process is not None:
            starting.end(self._process)
            self._process = None

    def wait(self) -> None:
        """Wait until a cluster that this object started has ended, however that came about."""
        if self._process is not None:
            self._process.wait()

    def down(self, timeout: float = 30.0) -> None:
        """End the cluster, whoever started it; returns when it is gone."""
        with contextlib.suppress(SupervisorError):  # it may be gone before it has answered
            self._ask("down")
        deadline = time.monotonic() + timeout
        while self._home.socket.exists() or self._home.key in home.running():
            if time.monotonic() > deadline:
                raise SupervisorError(f"the cluster {self.key} has not ended within {timeout:g} s")
            time.sleep(0.01)
        self.close()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalCluster {self.key} {self._first.writer_endpoint}:{self.port} dns={self.dns}>"

    # -- what it is ----------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Its label, the first part of its endpoints."""
        return self._first.name

    @property
    def key(self) -> str:
        """What `attach` finds it by."""
        return self._first.key

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

    @property
    def certificate_authority(self) -> str | None:
        """Path of the CA's certificate for ``sslrootcert``; None: the cluster has no TLS."""
        return self._first.certificate_authority

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
        return _conninfo({**self._keys(target), "aurora_dns": self.dns, **extra})

    def plain_conninfo(self, target: str = "writer", **extra: object) -> str:
        """A conninfo string for libpq alone: the host name for TLS and, as `hostaddr`, its present address."""
        return _conninfo({**self._keys(target), "hostaddr": self.address(target), **extra})

    def url(self, target: str = "writer", driver: str = "postgresql+aurora", **query: object) -> str:
        """A SQLAlchemy URL, with our name server in it.

        Args:
            target: see `endpoint`.
            driver: dialect and driver.
            **query: further parameters; a value of None takes one away.
        """
        keys = self._keys(target)
        chosen = {name: str(value) for name, value in {"aurora_dns": self.dns, **query}.items() if value is not None}
        where = f"{self.user}:{self.password}@{keys['host']}:{keys['port']}/{self.dbname}"
        tail = f"?{urllib.parse.urlencode(chosen, safe=':')}" if chosen else ""
        return f"{driver}://{where}{tail}"

    def _keys(self, target: str) -> dict[str, object]:
        port = self.port
        if target.startswith("instance:"):
            port = self.instance(target.partition(":")[2]).port
        return {
            "host": self.endpoint(target), "port": port, "user": self.user, "password": self.password,
            "dbname": self.dbname,
        }  # fmt: skip

    def address(self, target: str = "writer") -> str:
        """The address that a target leads to now, without asking the name server.

        Raises:
            UnknownEndpointError: there is no such target.
            UnknownInstanceError: there is no such instance, or no writer at this moment.
        """
        status = self.status()
        self.endpoint(target)
        kind, _, which = target.partition(":")
        if kind == "instance":
            return _instance(status, which).host
        if kind == "custom":
            return self._custom_address(status, which)
        readers = [one for one in status.instances if one.role == "reader" and one.state == "available"]
        if target == "reader" and readers:
            return secrets.choice(readers).host
        return _instance(status, status.writer or "(no writer)").host

    @staticmethod
    def _custom_address(status: ClusterStatus, label: str) -> str:
        for custom in status.custom_endpoints:
            if custom.label == label:
                hosts = [
                    one.host for one in status.instances if one.state == "available"
                    and (one.name in custom.members) != custom.exclude
                    and not (custom.exclude and one.role == "writer")
                ]  # fmt: skip
                if hosts:
                    return secrets.choice(hosts)
                raise UnknownEndpointError(f"no member of the custom endpoint {label!r} is available")
        raise UnknownEndpointError(f"there is no custom endpoint {label!r}")

    # -- what it can be told -------------------------------------------------------------------------------

    def add_reader(self, name: str | None = None, *, zone: str | None = None, tier: int = 1) -> InstanceStatus:
        """Add a reader; returns when it shows what was durable when it was started.

        Raises:
            TooManyReadersError: there are fifteen.
            NameTakenError: the name is in use, or cannot be one.
            RequestError: unknown zone or tier.
        """
        return self.instance(self._ask("add_reader", name=name, zone=zone, tier=tier))

    def remove(self, name: str) -> None:
        """Remove a reader.

        Raises:
            UnknownInstanceError: there is none of that name.
            WriterRequiredError: it is the writer.
        """
        self._ask("remove", name=name)

    def restart(self, name: str) -> None:
        """Restart an instance in order; returns when it answers again."""
        self._ask("restart", name=name)

    def start_instance(self, name: str) -> None:
        """Start an instance that is down; returns when it answers."""
        self._ask("start", name=name)

    def failover(self, target: str | None = None) -> Failover:
        """Make a reader the writer; returns when it takes writes (the former writer comes back on its own).

        Raises:
            FailoverImpossibleError: no reader, or not that one, can be promoted.
        """
        return Failover(**self._ask("failover", target=target))

    def kill(self, name: str, *, hold: bool = False) -> None:
        """SIGKILL to every process of an instance; `hold`: it is not restarted until `start_instance`."""
        self._ask("kill", name=name, hold=hold)

    def freeze(self, name: str) -> None:
        """Stop every process of an instance, as a host that hangs."""
        self._ask("freeze", name=name)

    def thaw(self, name: str) -> None:
        """Let a frozen instance go on."""
        self._ask("thaw", name=name)

    @property
    def faults(self) -> Faults:
        """What can be broken, and healed again."""
        return Faults(self._ask)

    def create_custom_endpoint(self, label: str, members: Sequence[str], *, exclude: bool = False) -> str:
        """Create a custom endpoint of `members` (or of all readers but these); returns its host name."""
        answer: str = self._ask("create_custom_endpoint", label=label, members=list(members), exclude=exclude)
        return answer

    def delete_custom_endpoint(self, label: str) -> None:
        """Delete a custom endpoint."""
        self._ask("delete_custom_endpoint", label=label)

    def add_cname(self, name: str, target: str) -> None:
        """Make the cluster's name server say that `name` is an alias of the host name `target`."""
        self._ask("add_cname", name=name, target=target)

    def _ask(self, command: str, **arguments: object) -> Any:
        return channel.request(self._home.socket, command, arguments, REQUEST_TIMEOUT)


def _instance(status: ClusterStatus, name: str) -> InstanceStatus:
    for instance in status.instances:
        if instance.name == name:
            return instance
    known = ", ".join(one.name for one in status.instances)
    raise errors.UnknownInstanceError(f"the cluster {status.name} has no instance {name!r}; it has {known}")


def _conninfo(keys: dict[str, object]) -> str:
    def quoted(value: object) -> str:
        text = str(value)
        plain = text and all(character not in " '\\" for character in text)
        escaped = text.replace("\\", "\\\\").replace("'", "\\'")
        return text if plain else f"'{escaped}'"

    return " ".join(f"{name}={quoted(value)}" for name, value in keys.items() if value is not None)
