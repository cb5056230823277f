"""IAM tokens of RDS, in the place of passwords.

Theory (AWS documentation: "IAM database authentication"). A token is a URL, signed with AWS credentials (signature
version 4, in the query) and stripped of its scheme; nothing is asked of the network for it. The server lets it in for
900 s, if it was signed for the server's own name, port and region, and as long as the credentials themselves are valid:
those of a role end too. RDS limits how many logins with new tokens it accepts per second, but not those with the same
one. So a token is kept for all logins of one user at one name, and its end is the earlier one of the two.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

from aurora_router import Credential, CredentialsUnavailable, Login
from aurora_router.credentials import is_custom_endpoint, is_of_rds, name_of_instance, region_of
from aurora_router.logs import Logger
from aurora_router_aws import sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = Logger("aurora_router.aws")

LIFETIME_SECONDS = 900
"""How long the server lets a token in."""
DEFAULT_PORT = 5432


@dataclass(frozen=True, slots=True)
class IamTokens:
    """A provider that signs a token for each name that is dialled.

    Attributes:
        host: ``name[:port]`` to sign for where a name is dialled that is not one of RDS, or that of a custom endpoint;
            as ``aurora_iam_host``.
        region: where the name does not say it; None: the environment's.
        profile: of the AWS configuration; None: the environment's, or none.
        credentials: a hook that returns botocore's credentials, in the place of its chain. Called for each token.
    """

    host: str | None = None
    region: str | None = None
    profile: str | None = None
    credentials: Callable[[], sdk.Credentials] | None = field(default=None, repr=False)

    requires_tls: ClassVar[bool] = True
    options: ClassVar[frozenset[str]] = frozenset({"iam_host", "aws_region", "aws_profile"})

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> IamTokens:
        """Make it of the options of a connection."""
        host = options.get("iam_host")
        return cls(None if host is None else str(host), options.get("aws_region"), options.get("aws_profile"))

    def scope(self, login: Login) -> Login:
        """The name and port to sign for, and the user; the database does not matter."""
        return _scope_of(self.host, login)

    def __call__(self, login: Login) -> Credential:
        """Sign a token.

        Raises:
            CredentialsUnavailable: something is missing: a user, a name, a region, AWS credentials.
        """
        if login.user is None:
            raise CredentialsUnavailable("an IAM token is for a named user: add user=… (a role with GRANT rds_iam)")
        place = _place_of(self.host, login)
        if place is None:
            what = "a local socket" if login.host is None or login.host[:1] in "/@" else login.host
            raise CredentialsUnavailable(
                f"{what} is no name of RDS, and an IAM token is signed for one: dial the endpoint's own name, or set "
                "aurora_iam_host to it"
            )
        signed = sdk.run("sign an IAM token", lambda: self._sign(*place, str(login.user)))
        assert signed is not None
        return signed

    def stand_in(self, login: Login, rejected: Credential) -> None:  # noqa: ARG002 - see `aurora_router.credentials`
        """Say once for each name and user what to check: the server rejected a token that was just signed."""
        _advise(login.host, login.port, login.user)

    def _sign(self, host: str, port: int, user: str) -> Credential:
        region = self._region(host)
        keys = sdk.find_keys(self.profile, self.credentials)
        now = time.time()
        expires_at = now + LIFETIME_SECONDS if keys.expires_at is None else min(now + LIFETIME_SECONDS, keys.expires_at)
        if expires_at <= now:
            raise CredentialsUnavailable("the AWS credentials have expired, so no IAM token can be signed: renew them")
        url = f"https://{host}:{port}/?Action=connect&DBUser={quote(user, safe='')}"
        signed = sdk.sign_query(keys.frozen, url, "rds-db", region, LIFETIME_SECONDS)
        return Credential(signed.removeprefix("https://"), expires_at=expires_at)

    def _region(self, host: str) -> str:
        own = region_of(host)
        if own is not None and self.region is not None and own != self.region:
            raise CredentialsUnavailable(
                f"aurora_aws_region={self.region}, but {host} is in {own}, which would refuse the token: remove it"
            )
        found = own or self.region or sdk.find_region(self.profile)
        if found is None:
            raise CredentialsUnavailable(
                f"{host} does not say its region, nor does the environment: set aurora_aws_region or AWS_REGION"
            )
        return found


@lru_cache(maxsize=256)
def _advise(host: str | None, port: int, user: str | None) -> None:
    log.warning(
        "%s:%s rejects an IAM token for the user %s that was just signed: check that IAM authentication is enabled "
        "there, that the role has GRANT rds_iam, and that the AWS identity has rds-db:connect for that user",
        host, port, user,
    )  # fmt: skip


@lru_cache(maxsize=256)
def _scope_of(given: str | None, login: Login) -> Login:
    """`IamTokens.scope`, remembered: it is asked for at each dial."""
    place = _place_of(given, login)
    return login if place is None else Login(*place, login.user, None)


def _place_of(given: str | None, login: Login) -> tuple[str, int] | None:
    """The name and port to sign for, with the ``aurora_iam_host`` that is given; None: they are not known."""
    name, _, port = (given or "").partition(":")
    if login.host is not None and is_of_rds(login.host) and not (name and is_custom_endpoint(login.host)):
        return login.host.rstrip(".").lower(), int(port or login.port)
    if not name:
        return None
    own = None if login.instance is None else name_of_instance(name, login.instance)
    own_port = login.port if login.host is not None and is_of_rds(login.host) else DEFAULT_PORT
    return own or name, int(port or own_port)
