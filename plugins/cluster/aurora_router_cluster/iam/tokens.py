"""Whether an IAM token lets a user in: the rules of RDS, without its permissions.

Theory (AWS documentation: "Signature Version 4 signing process", "IAM database authentication"). A token is the URL
``https://HOST:PORT/?Action=connect&DBUser=USER&X-Amz-…`` without its scheme. The parameters say which key signed it,
when, and for which region; the last one is the signature of all the rest. A server that has the secret key can repeat
it (`sigv4`), and must then compare what was signed with what it knows: its own name, port and region, the user, and the
time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from aurora_router_cluster.iam import LONGEST_SECONDS, sigv4
from aurora_router_cluster.iam.sigv4 import ALGORITHM, END, SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aurora_router_cluster.iam.keys import Keys

SKEW_SECONDS = 300.0
"""By how much the clock of a client may be ahead (AWS: five minutes)."""
SERVICE = "rds-db"
NEEDED = frozenset(
    {"Action", "DBUser", "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires", SIGNATURE}
)


class TokenRejected(Exception):
    """A token does not let its user in; the message says why, without the token."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a user logs in.

    Attributes:
        names: host names that a token may be signed for, in lower case.
        port: the port of the server.
        region: its region.
    """

    names: Collection[str]
    port: int
    region: str


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says.

    Attributes:
        host: ``name:port`` that it is for, in lower case.
        key: id of the key that signed it.
        date: day of the signature, as ``YYYYMMDD``.
        region: the region that it is for.
        service: the service of AWS that it is for.
        parameters: the parameters of the URL.
    """

    host: str
    key: str
    date: str
    region: str
    service: str
    parameters: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token.

        Raises:
            TokenRejected: it is none.
        """
        try:
            url = urlsplit(f"https://{text}")
            pairs = parse_qsl(url.query, keep_blank_values=True, strict_parsing=True)
            said = dict(pairs)
            key, date, region, service, end = said["X-Amz-Credential"].split("/")
        except (ValueError, KeyError):
            raise TokenRejected("it is no IAM token but something else, such as a password") from None
        if url.path != "/" or not said.keys() >= NEEDED or len(said) != len(pairs):
            raise TokenRejected("it was cut short, or changed")
        if said["X-Amz-Algorithm"] != ALGORITHM or end != END or not said["X-Amz-Date"].startswith(date):
            raise TokenRejected("it is not signed by version 4 of AWS's signatures")
        return cls(url.netloc.lower(), key, date, region, service, said)

    def is_signed_by(self, secret: str) -> bool:
        """Whether the secret of its key has signed it, as it is."""
        said = self.parameters
        host = self.host.removesuffix(":443")  # clients of HTTPS leave its own port out of what they sign
        request = sigv4.canonicalize("GET", "/", said.items(), [("host", host)])
        scope = (self.date, self.region, self.service, END)
        return sigv4.is_signed(request, secret, said["X-Amz-Date"], scope, said[SIGNATURE])


def check_token(text: str, user: str, place: Place, keys: Keys, *, lifetime: float, now: float) -> None:
    """Make sure that a token lets `user` in at `place`.

    Args:
        text: what was sent as the password.
        user: the user who logs in.
        place: where.
        keys: those that may sign.
        lifetime: seconds that a token counts, `LONGEST_SECONDS` at most; less if it says so itself.
        now: the time, in seconds since 1970.

    Raises:
        TokenRejected: it does not.
    """
    token = Token.parse(text)
    if token.key != keys.access_key_id:
        raise TokenRejected(f"it is signed by the key {token.key}, and this cluster knows {keys.access_key_id} only")
    if not token.is_signed_by(keys.secret_access_key):
        raise TokenRejected(f"it is not signed with the secret of {token.key}, or was changed")
    if (token.service, token.parameters["Action"]) != (SERVICE, "connect"):
        raise TokenRejected(f"it is signed for the service {token.service}, and a database's is {SERVICE}")
    if token.region != place.region:
        raise TokenRejected(f"it is signed for the region {token.region}, and this is {place.region}")
    if token.host not in {f"{name}:{place.port}" for name in place.names}:
        known = ", ".join(sorted(place.names))
        raise TokenRejected(f"it is signed for {token.host}, and this instance is {known}, port {place.port}")
    if token.parameters["DBUser"] != user:
        raise TokenRejected(f"it is signed for the user {token.parameters['DBUser']}")
    _check_time(token.parameters, lifetime, now)


def _check_time(said: Mapping[str, str], lifetime: float, now: float) -> None:
    try:
        age = now - sigv4.parse_stamp(said["X-Amz-Date"]).timestamp()
        own = int(said["X-Amz-Expires"])
    except ValueError:
        raise TokenRejected("its date is malformed") from None
    if own > LONGEST_SECONDS:
        raise TokenRejected(f"it is signed for {own} s, and {LONGEST_SECONDS:g} s is the longest")
    if age < -SKEW_SECONDS:
        raise TokenRejected(f"it is signed {-age:.0f} s in the future: set the clock of the client")
    if age > min(own, lifetime):
        raise TokenRejected(f"it has expired: it was signed {age:.0f} s ago, and counts for {min(own, lifetime):g} s")
