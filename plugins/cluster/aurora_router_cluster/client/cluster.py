"""`LocalCluster`: a local Aurora-like cluster as a Python object, a client of its supervisor process."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from aurora_router_cluster import datadir, errors, registry
from aurora_router_cluster.client import api, starting
from aurora_router_cluster.client.history import ClusterHistory
from aurora_router_cluster.client.running import RunningCluster
from aurora_router_cluster.control import channel
from aurora_router_cluster.dns import names
from aurora_router_cluster.errors import ClusterNotFoundError, SupervisorError
from aurora_router_cluster.options import ClusterOptions, check_names

if TYPE_CHECKING:
    import subprocess
    from types import TracebackType

    from aurora_router_cluster.client.api import ApiAccess

START_TIMEOUT = 120.0  # seconds; the first start on a machine builds the template and may copy the binaries
LONG_START = 900.0  # seconds; of a cluster that was kept
PATHS = ("data", "directory", "postgres", "source")  # the supervisor has another working directory
REQUEST_TIMEOUT = 120.0  # seconds


@final
class LocalCluster(RunningCluster):
    """A running cluster: `start` makes one, `attach` finds one that runs.

    A context manager. One that was started ends with the block, with its process (also a killed one), or by
    `close`; one that was attached to goes on. Safe to use from several threads.
    """

    def __init__(self, place: registry.ClusterDirectory, process: subprocess.Popen[bytes] | None = None) -> None:
        self._home = place
        self._process = process
        super().__init__()
        self.history: ClusterHistory[LocalCluster] = ClusterHistory(self._ask, LocalCluster.start)

    # -- life ----------------------------------------------------------------------------------------------

    @classmethod
    def start(
        cls,
        name: str | None = None,
        *,
        key: str | None = None,
        detach: bool = False,
        timeout: float | None = None,
        **options: Any,
    ) -> LocalCluster:
        """Start a cluster and return when its writer and readers answer.

        Args:
            name: its label, by which `attach` finds it too; None: the label is ``demo``, and any number of such
                clusters may run side by side.
            key: what `attach` finds it by; None: the name, or without one a random one.
            detach: let it outlive this process.
            timeout: give up after so many seconds; None: 120, or with `data` 900, since log is replayed.
            **options: see `options.ClusterOptions`: readers, flavour, postgres, domain, port, address, dns_port,
                dns_ttl, pace, detection, promotion, dns_delay, restart_readers, directory, data, detect, auto, tls,
                iam, iam_token_lifetime, isolated, segment_size, base_interval, base_bytes, scrub_interval, retention,
                faults, settings, api, instance_class.

        Raises:
            ClusterRunningError: one of that name runs.
            BinariesError: no PostgreSQL binaries.
            AddressInUseError: an address or port asked for is taken.
            DirectoryError: a directory asked for cannot be used.
            RequestError: an option that does not exist (the nearest ones are named), or a value out of range.
            SupervisorError: the supervisor failed, or was not ready in time.
        """
        check_names(options)
        for each in PATHS:
            if options.get(each) == "":
                raise errors.RequestError(f"{each} is empty; name a directory, or leave it out")
        options |= {each: os.path.abspath(options[each]) for each in PATHS if options.get(each) is not None}  # noqa: PTH100
        label = name
        if "data" in options and options["data"] is not None:
            options = datadir.choose(Path(options["data"]), options if name is None else {**options, "name": name})
            label = options.pop("name", None)
        label = names.check_label(label or registry.DEFAULT_LABEL, "a cluster")
        if key is None:
            key = label if name is not None else f"{label}-{secrets.token_hex(4)}"
        owner = None if detach else os.getpid()
        place = registry.working_directory()
        chosen = ClusterOptions(name=label, key=key, owner=owner, started_in=place, **options)
        if chosen.api:
            api.check_installed()
        process = starting.spawn(chosen)
        with starting.ending_on_failure(process):
            starting.await_ready(process, timeout or (LONG_START if chosen.data is not None else START_TIMEOUT))
            if chosen.api:
                api.ensure()
            cluster = cls(registry.ClusterDirectory(key), None if detach else process)
        if detach:
            process.returncode = 0 if process.poll() is None else process.returncode  # not ours to wait for
        return cluster

    @classmethod
    def attach(cls, name: str | None = None) -> LocalCluster:
        """Find a running cluster by its name (or its key, see ``status``).

        Args:
            name: None: the one that ``aurora-router cluster up`` has started in this working directory without a name,
                or that ``AURORA_ROUTER_CLUSTER`` names.

        Raises:
            ClusterNotFoundError: there is none; the message lists those that run.
        """
        key = registry.default_key() if name is None else name
        place = registry.ClusterDirectory(key)
        try:
            return cls(place)
        except ClusterNotFoundError:
            running = ", ".join(registry.running()) or "none"
            if name is not None or registry.NAME_VARIABLE in os.environ:
                raise ClusterNotFoundError(f"no cluster {key!r} is running; running are: {running}") from None
            raise ClusterNotFoundError(
                f"no cluster that was started in {registry.working_directory()} without a name is running; "
                f"running are: {running} (cluster list shows them, --name chooses one)"
            ) from None

    @classmethod
    def running(cls) -> list[LocalCluster]:
        """The clusters of this user that run and answer."""
        found: list[LocalCluster] = []
        for key in registry.running():
            with contextlib.suppress(errors.ClusterError):  # it starts, or ends, at this moment
                found.append(cls(registry.ClusterDirectory(key)))
        return found

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
        """End the cluster, even if another process started it; returns when it is gone."""
        with contextlib.suppress(SupervisorError):  # it may be gone before it has answered
            self._ask("down")
        deadline = time.monotonic() + timeout
        while self._home.socket.exists() or self._home.key in registry.running():
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
    def key(self) -> str:
        """What `attach` finds it by."""
        return self._first.key

    @property
    def certificate_authority(self) -> str | None:
        """Path of the CA's certificate for ``sslrootcert``; None: the cluster has no TLS."""
        return self._first.certificate_authority

    @property
    def region(self) -> str:
        """The AWS region that its domain says."""
        return names.Names(self.name, self.domain).region

    @property
    def api(self) -> ApiAccess | None:
        """How to reach the RDS API of this user; None: none runs."""
        return api.find()

    def _ask(self, command: str, **arguments: object) -> Any:
        return channel.request(self._home.socket, command, arguments, REQUEST_TIMEOUT)
