"""Errors of the local cluster.

::

    ClusterError
    ├── BinariesError            no usable PostgreSQL server binaries
    ├── EngineError              a PostgreSQL process did not do what it was asked to
    ├── AddressInUseError        an address or port that was asked for is taken
    ├── DirectoryError           a directory that was asked for cannot be used
    ├── RequestError             the cluster refused a request; its state is unchanged
    │   ├── UnknownInstanceError
    │   ├── UnknownEndpointError
    │   ├── NameTakenError
    │   ├── TargetError
    │   ├── TooManyReadersError
    │   └── WriterRequiredError
    ├── ClusterRunningError      a cluster of that name is running already
    ├── ClusterNotFoundError     no cluster of that name is running
    ├── FailoverImpossibleError  no reader can be promoted
    └── SupervisorError          the supervisor ended, or could not be reached

Every message says what was wrong, what was tried, and what to do. Errors cross the control socket as
``(class name, message)``; `by_name` finds the class again on the client's side.
"""

from __future__ import annotations

from aurora_router_cluster import limits


class ClusterError(Exception):
    """Root of everything that the local cluster raises."""


class BinariesError(ClusterError):
    """No usable PostgreSQL server binaries were found, or those asked for cannot be used."""


class EngineError(ClusterError):
    """A PostgreSQL instance did not start, stop, or promote; the message ends with its log's last lines."""


class StartingUpError(EngineError):
    """An instance runs and takes no connections yet: it starts, or replays log first."""


class AddressInUseError(ClusterError):
    """An address or port that was asked for is taken by another process."""


class DirectoryError(ClusterError):
    """A directory that was asked for does not exist, or cannot be used for what it was named for."""


class RequestError(ClusterError):
    """The cluster refused a request; its state is unchanged."""


class UnknownInstanceError(RequestError):
    """The cluster has no instance of that name."""


class UnknownEndpointError(RequestError):
    """The cluster has no custom endpoint of that name."""


class NameTakenError(RequestError):
    """An instance, endpoint or CNAME of that name exists already, or the name is not a valid DNS label."""


class TargetError(RequestError):
    """A point in the cluster's history that is not available: malformed, in the future, or outside of the window."""


class TooManyReadersError(RequestError):
    """A cluster has one writer and at most fifteen readers."""


class WriterRequiredError(RequestError):
    """The request would leave the cluster without its writer."""


class ClusterRunningError(ClusterError):
    """A cluster of that name is running already."""


class ClusterNotFoundError(ClusterError):
    """No cluster of that name is running."""


class FailoverImpossibleError(ClusterError):
    """No reader can be promoted."""


class SupervisorError(ClusterError):
    """The supervisor process ended unexpectedly, did not answer, or could not be reached."""


def explain_os_error(error: OSError) -> str:
    """An error of the operating system as a sentence: what failed, on which file, and what can be done about it."""
    if error.errno is None or error.strerror is None:
        return str(error)
    where = f"{error.filename}: " if error.filename is not None else ""
    advice = limits.advice(error.errno)
    return f"{where}{error.strerror}" + (f"; {advice}" if advice else "")


def by_name(name: str) -> type[ClusterError]:
    """Return the error class called `name`, or `SupervisorError` for one that this version does not know."""
    found = globals().get(name)
    if isinstance(found, type) and issubclass(found, ClusterError):
        return found
    return SupervisorError
