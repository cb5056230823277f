"""Errors as the RDS API answers them: a code, a message, a status of HTTP."""

from __future__ import annotations

from aurora_router_cluster.errors import (
    ClusterError,
    ClusterNotFoundError,
    FailoverImpossibleError,
    NameTakenError,
    RequestError,
    TargetError,
    TooManyReadersError,
    UnknownEndpointError,
    UnknownInstanceError,
    WriterRequiredError,
)


class ApiError(Exception):
    """An error that is the answer to a request.

    Attributes:
        code: what clients distinguish it by.
        message: for people.
        status: of HTTP.
    """

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


class Fault(Exception):
    """An error that the description of the service declares; `protocol.Protocol.error_of` finds its code and status.

    Attributes:
        shape: its name there, e.g. ``DBInstanceNotFoundFault``.
        message: for people.
    """

    def __init__(self, shape: str, message: str) -> None:
        super().__init__(f"{shape}: {message}")
        self.shape = shape
        self.message = message


_FAULTS: tuple[tuple[type[ClusterError], str], ...] = (
    (ClusterNotFoundError, "DBClusterNotFoundFault"),
    (FailoverImpossibleError, "InvalidDBClusterStateFault"),
    (UnknownInstanceError, "DBInstanceNotFoundFault"),
    (UnknownEndpointError, "DBClusterEndpointNotFoundFault"),
    (TooManyReadersError, "InstanceQuotaExceededFault"),
    (WriterRequiredError, "InvalidDBInstanceStateFault"),
)
_INVALID = (NameTakenError, TargetError, RequestError)


def translate(error: ClusterError) -> ApiError | Fault:
    """What a cluster refused, or could not do, as an answer."""
    for kind, shape in _FAULTS:
        if isinstance(error, kind):
            return Fault(shape, str(error))
    if isinstance(error, _INVALID):
        return ApiError("InvalidParameterValue", str(error))
    return ApiError("InternalFailure", str(error), 500)
