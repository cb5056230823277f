"""When the certificates of a cluster's instances end."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psycopg

from aurora_router.doctor.gathering.wire import SECONDS, read_wire
from aurora_router.errors import AuroraRouterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.router import Router


def find_expiries(router: Router, instances: Iterable[str]) -> dict[str, datetime]:
    """When the certificate of each instance ends; not of those without TLS, and not of those that cannot be reached."""
    found: dict[str, datetime] = {}
    for each in instances:
        try:
            with router.connect(instance=each, aurora_failover_timeout=0, aurora_connect_timeout=SECONDS) as connection:
                info = connection.info
                if connection.pgconn.ssl_in_use:
                    _, _, certificate = read_wire(info.host, info.hostaddr, info.port)
                    if certificate is not None:
                        found[each] = datetime.fromtimestamp(certificate.ends, timezone.utc)
        except (psycopg.Error, AuroraRouterError):
            continue
    return found
