"""One request to one answer: its signature, its operation, its parameters, what is done."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aurora_router_cluster.api import protocol, signature
from aurora_router_cluster.api.account import Account
from aurora_router_cluster.api.actions import ACTIONS
from aurora_router_cluster.api.errors import ApiError, Fault, translate
from aurora_router_cluster.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aurora_router_cluster.api.signature import Request

log = logging.getLogger(__name__)

MOST_PARAMETERS = 2000


@dataclass(frozen=True, slots=True)
class Response:
    """An answer.

    Attributes:
        status: of HTTP.
        body: XML.
        request_id: of the request.
    """

    status: int
    body: bytes
    request_id: str


class Service:
    """The RDS API.

    Args:
        secrets: access key -> secret key, of the keys that are valid.
        account: makes the clusters of a region.
        clock: the time, aware.
    """

    def __init__(
        self,
        secrets: Mapping[str, str],
        account: Callable[[str], Account] = Account,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._protocol = protocol.Protocol()
        self._secrets = secrets
        self._account = account
        self._clock = clock

    def respond(self, request: Request) -> Response:
        """The answer to a request; whatever goes wrong is an answer, too."""
        request_id = str(uuid.uuid4())
        try:
            return Response(200, self._perform(request, request_id), request_id)
        except ApiError as error:
            failure = error
        except Fault as fault:
            failure = self._protocol.error_of(fault)
        except ClusterError as error:
            found = translate(error)
            failure = found if isinstance(found, ApiError) else self._protocol.error_of(found)
        except Exception as error:
            log.exception("request %s failed", request_id)
            failure = ApiError("InternalFailure", f"The request failed by a fault of aurora-router: {error!r}", 500)
        return Response(failure.status, self._protocol.serialise_error(failure, request_id), request_id)

    def _perform(self, request: Request, request_id: str) -> bytes:
        region = signature.verify(request, self._secrets, protocol.SERVICE, self._clock())
        parameters = _read_parameters(request)
        operation = self._protocol.operation(parameters.get("Action"), parameters.get("Version"))
        action = ACTIONS.get(operation.name)
        if action is None:
            raise protocol.unknown_action(operation.name, parameters["Version"])
        output = action.run(self._account(region), self._protocol.parse(operation, parameters))
        return self._protocol.serialise(operation, output, request_id)


def _read_parameters(request: Request) -> dict[str, str]:
    """The parameters, of the query and of the body.

    Raises:
        ApiError: there are too many, or they are not text.
    """
    try:
        text = request.body.decode()
        pairs = [
            pair
            for part in (request.query, text)
            for pair in parse_qsl(part, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
        ]
    except ValueError as error:
        raise ApiError("MalformedQueryString", f"The parameters cannot be read: {error}") from None
    return dict(pairs)
