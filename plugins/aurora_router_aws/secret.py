"""User and password from AWS Secrets Manager, through rotations and outages.

Theory (AWS documentation: "Rotation by Lambda function"). A rotation has four steps: the next password is stored as the
version ``AWSPENDING``; it is set in the database; it is tried; the label ``AWSCURRENT`` moves to it. Between the second
and the last step the database wants what ``AWSCURRENT`` does not give yet, for about a minute where RDS manages the
secret. So where the server rejects an ``AWSCURRENT`` that was just read, ``AWSPENDING`` is tried once. Where there is
none, the rotation may have ended since that read, and where it may not be read, it may end soon: ``AWSCURRENT`` is read
again, in the second case a few times.

Invariants: what stands in is used only after the server has rejected a current version that was just read, and not for
longer than `PENDING_SECONDS`: then the current one is read again. What was read last counts while Secrets Manager does
not answer.
"""

from __future__ import annotations

import json
import random
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from aurora_router import Credential, CredentialsUnavailable, InvalidOption, Login
from aurora_router_aws import sdk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

RENEWAL_SECONDS = 900.0
"""How often the secret is read again, at most: a rotation in between is noticed by the server's rejection."""
PENDING_SECONDS = 10.0
"""How long what stands in is valid: the core uses it until 5 s before, so 5 s."""
PAUSES = (0.0, 0.5, 1.0)
"""Before the current version is read again where the pending one cannot be read, in seconds."""
_ARN = re.compile(r"arn:(?P<partition>aws[a-z-]*):secretsmanager:(?P<region>[a-z0-9-]+):(?P<rest>[0-9]{12}:secret:.+)")


@dataclass(frozen=True, slots=True)
class Secret:
    """A provider that reads user and password from one secret, for all instances.

    Attributes:
        secret: its ARN, or its name.
        region: of the secret, or of the replica to read; None: that of the ARN, or the environment's.
        profile: of the AWS configuration; None: the environment's, or none.
        endpoint: URL of Secrets Manager in place of the region's own: a VPC endpoint.
        credentials: a hook that returns botocore's credentials, in the place of its chain.

    Raises:
        InvalidOption: the ARN is malformed.
    """

    secret: str
    region: str | None = None
    profile: str | None = None
    endpoint: str | None = None
    credentials: Callable[[], sdk.Credentials] | None = field(default=None, repr=False)

    options: ClassVar[frozenset[str]] = frozenset({"secret", "secret_endpoint", "aws_region", "aws_profile"})

    def __post_init__(self) -> None:
        if self.secret.startswith("arn:") and not _ARN.fullmatch(self.secret):
            wanted = "arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME-SUFFIX"
            raise InvalidOption(f"aurora_secret={self.secret!r} is no ARN of a secret ({wanted})")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Secret:
        """Make it of the options of a connection.

        Raises:
            InvalidOption: the secret is not named, or malformed.
        """
        if "secret" not in options:
            raise InvalidOption("aurora_credentials=secret needs to know which: set aurora_secret to its ARN or name")
        return cls(
            options["secret"], options.get("aws_region"), options.get("aws_profile"), options.get("secret_endpoint")
        )

    def scope(self, login: Login) -> Login:  # noqa: ARG002 - the secret is the same for all
        """Nothing of a login: one secret, read once for all instances."""
        return Login(None, 0, None, None)

    def __call__(self, login: Login) -> Credential:  # noqa: ARG002 - see `scope`
        """Read the current version.

        Raises:
            CredentialsUnavailable: it can't be read, or is no user and password.
        """
        user, password = self._parse(sdk.run(f"read the secret {self.secret}", lambda: self._read("AWSCURRENT")))
        renew_at = time.time() + RENEWAL_SECONDS * random.uniform(0.8, 1.0)  # noqa: S311 - spreads requests, no secret
        return Credential(password, user, renew_at=renew_at)

    def stand_in(self, login: Login, rejected: Credential) -> Credential | None:
        """Read the pending version, or the current one again; None: neither is another one than what was rejected.

        Raises:
            CredentialsUnavailable: the pending version can't be read, and the current one did not change meanwhile; or
                one is no user and password.
        """
        doing = f"read the pending version of the secret {self.secret}"
        text, refused = None, None
        try:
            text = sdk.run(doing, lambda: self._read("AWSPENDING"), absent="ResourceNotFoundException")
        except CredentialsUnavailable as error:
            refused = error
        if text is not None:
            return self._as_stand_in(*self._parse(text))
        for pause in PAUSES if refused is not None else PAUSES[:1]:
            time.sleep(pause)
            current = self(login)
            if (current.user, current.password) != (rejected.user, rejected.password):
                return self._as_stand_in(str(current.user), current.password)
        if refused is not None:
            raise refused
        return None

    @staticmethod
    def _as_stand_in(user: str, password: str) -> Credential:
        return Credential(password, user, expires_at=time.time() + PENDING_SECONDS)

    def _read(self, stage: str) -> Any:
        secret, region = self._place()
        client = sdk.find_client("secretsmanager", region, self.endpoint, self.profile, self.credentials)
        answer = client.get_secret_value(SecretId=secret, VersionStage=stage)
        return answer.get("SecretString", b"")

    def _place(self) -> tuple[str, str]:
        """The secret, and the region to ask: a replica has the same ARN but for the region."""
        found = _ARN.fullmatch(self.secret)
        if found is not None:
            region = self.region or found["region"]
            return f"arn:{found['partition']}:secretsmanager:{region}:{found['rest']}", region
        named = self.region or sdk.find_region(self.profile)
        if named is None:
            raise CredentialsUnavailable(
                f"the name {self.secret} does not say the region of the secret, nor does the environment: set "
                "aurora_aws_region or AWS_REGION, or name the secret by its ARN"
            )
        return self.secret, named

    def _parse(self, text: object) -> tuple[str, str]:
        """User and password of a secret. No exception of the parser is passed on: it holds the text."""
        wanted = 'store a JSON object with "username" and "password", as RDS does'
        if not isinstance(text, str):
            raise CredentialsUnavailable(f"the secret {self.secret} is binary: {wanted}")
        values = _load(text)
        if not isinstance(values, dict):
            raise CredentialsUnavailable(f"the secret {self.secret} is no JSON object: {wanted}")
        for key in ("username", "password"):
            if not isinstance(values.get(key), str) or not values[key]:
                raise CredentialsUnavailable(f'the secret {self.secret} has no text under "{key}": {wanted}')
        return values["username"], values["password"]


def _load(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None
