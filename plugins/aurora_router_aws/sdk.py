"""What is used of botocore. No other module imports it. It ships no types, so checkers read `Credentials` instead.

Theory. botocore takes most of a second to import, asks the network for credentials, and writes what it signs and what
it receives to its log at DEBUG: a token can be put together from that, and a secret stands in it. So it is imported in
the thread that needs it, which is never that of an event loop, and its records are dropped while that thread works for
this package. Its exceptions are not passed on either: one about a signature may repeat what was signed.

Invariants: nothing is imported of botocore, and no session is made, before AWS is first needed: for a credential, or to
describe a cluster. The child of a fork makes sessions of its own, since the locks in them may be held.
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

from aurora_router import CredentialsUnavailable, native
from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

INSTALL = "pip install 'aurora-router[aws]'"
TIMEOUTS = {"connect_timeout": 3.0, "read_timeout": 5.0}
"""In seconds. With the retries a request takes 40 s at most."""
RETRIES = {"mode": "standard", "total_max_attempts": 4}
"""Failures and throttling are tried again after pauses that grow exponentially, with jitter (botocore's "standard")."""
_HINTS = {
    "ResourceNotFoundException": "check the name, the account and the region",
    "DBClusterNotFoundFault": "check the account and the region",
    "DBInstanceNotFound": "check the account and the region",
    "DecryptionFailure": "permit kms:Decrypt on the key of the secret",
    "AccessDenied": "permit it in the policy of that identity",
    "AccessDeniedException": "permit it in the policy of that identity",
    "ExpiredToken": "these AWS credentials have expired: renew them",
    "ExpiredTokenException": "these AWS credentials have expired: renew them",
    "InvalidClientTokenId": "AWS does not know the access key: check the credentials and the region's partition",
    "UnrecognizedClientException": "AWS does not know the access key: check the credentials and the region's partition",
}
"""AWS's code of an error -> what to do."""
MAX_CLIENTS = 64
"""How many clients are kept; the oldest one goes."""
_BY_NAME = {
    "NoCredentialsError": "set AWS_PROFILE or aurora_aws_profile, or give the container or instance a role; a "
    "container reaches the instance's metadata only with a hop limit of 2",
    "ProfileNotFound": "check aurora_aws_profile or AWS_PROFILE against the files of the AWS configuration",
    "ReadTimeoutError": "check the network, or the VPC endpoint",
    "EndpointConnectionError": "check the region, and that its endpoint can be reached from here",
    "ConnectTimeoutError": "check the region, and that its endpoint can be reached from here",
    "UnauthorizedSSOTokenError": "log in again: aws sso login",
    "SSOTokenLoadError": "log in: aws sso login",
    "TokenRetrievalError": "log in again: aws sso login",
    "InvalidRegionError": "check the region",
}
"""botocore's class of an error -> what to do."""
_LASTING = frozenset(
    {"NoCredentialsError", "ProfileNotFound", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "InvalidRegionError"}
)
"""Those that stay until a person changes something, as what AWS has a hint for does."""


class Frozen(Protocol):
    """Keys that belong together."""

    access_key: str
    secret_key: str
    token: str | None


class Credentials(Protocol):
    """botocore's credentials, as far as they are used: of the default chain, or of a hook."""

    def get_frozen_credentials(self) -> Frozen:
        """Return the keys of this moment; those that expire are renewed first, which may ask the network."""
        ...


class Keys(NamedTuple):
    """Keys, and when they end.

    Attributes:
        frozen: the keys.
        expires_at: in seconds since 1970; None: it is not known, or they do not.
    """

    frozen: Frozen
    expires_at: float | None


_quiet = threading.local()
_sessions: dict[str | None, Any] = {}
_clients: dict[tuple[object, ...], Any] = {}
_lock: Any = native.new_lock()


def run(doing: str, work: Callable[[], T], *, absent: str | None = None) -> T | None:
    """Do something with botocore: without its debug records, and with an error that says what to do.

    Args:
        doing: what is done, for the error: "sign a token".
        work: does it.
        absent: AWS's code of the error with which None is returned: what is asked for is not there.

    Raises:
        CredentialsUnavailable: botocore is not installed, or it failed.
    """
    try:
        return attempt(doing, work)
    except Failed as failed:
        if absent is not None and failed.code == absent:
            return None
        failure = CredentialsUnavailable(str(failed))
    raise failure  # out of the handler: it carries no other exception


class Failed(Exception):
    """botocore is not installed, or it failed; the text says at what, and what to do.

    Args:
        text: for people.
        code: AWS's code of the error; None: it is no answer of AWS's.
        lasting: whether another try would fail as well until a person changes something.
    """

    def __init__(self, text: str, code: str | None = None, *, lasting: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.lasting = lasting


def attempt(doing: str, work: Callable[[], T]) -> T:
    """Do something with botocore, as `run` does.

    Raises:
        Failed: botocore is not installed, or it failed.
    """
    try:
        errors = _botocore("exceptions")
        for each in ("auth", "awsrequest", "session"):
            _botocore(each)
    except ImportError as error:
        missing = f"cannot {doing}: botocore is not installed ({error}): {INSTALL}"
        raise Failed(missing, lasting=True) from None
    _silence()
    _quiet.depth = getattr(_quiet, "depth", 0) + 1
    try:
        return work()
    except (errors.BotoCoreError, errors.ClientError, RuntimeError) as error:
        code = _code_of(error)
        lasting = code in _HINTS or (code is None and type(error).__name__ in _LASTING)
        failure = Failed(f"cannot {doing}: {_explain(error)}", code, lasting=lasting)
    finally:
        _quiet.depth -= 1
    raise failure  # out of the handler: it carries no exception of botocore's


def find_session(profile: str | None) -> Any:
    """The session of a profile; None: of the environment's."""
    with _lock:
        session = _sessions.get(profile)
    if session is None:
        session = _botocore("session").Session(profile=profile)
        with _lock:
            session = _sessions.setdefault(profile, session)
    return session


def find_region(profile: str | None) -> str | None:
    """The region that the environment names."""
    region: str | None = os.environ.get("AWS_REGION") or find_session(profile).get_config_variable("region")
    return region


def find_keys(profile: str | None, hook: Callable[[], Credentials] | None = None) -> Keys:
    """The keys of a profile, or what a hook gives.

    Keys without an end are looked up again each time: something may put new ones into a file or the environment.

    Raises:
        botocore.exceptions.NoCredentialsError: there are none.
    """
    credentials = find_session(profile).get_credentials() if hook is None else hook()
    if credentials is None:
        raise _botocore("exceptions").NoCredentialsError
    keys = _freeze(credentials)
    if keys.expires_at is None:
        with _lock:
            _sessions.pop(profile, None)
    return keys


def find_client(
    service: str,
    region: str,
    endpoint: str | None,
    profile: str | None,
    hook: Callable[[], Credentials] | None,
    retries: Mapping[str, Any] = RETRIES,
) -> Any:
    """A client of a service, the same one for as long as its keys count; a service has the same retries always."""
    keys = find_keys(profile, hook)
    # Keys that expire renew themselves in the session's object; others may be replaced by some with another id.
    key = service, region, endpoint, profile, hook, keys.frozen.access_key if keys.expires_at is None else None
    with _lock:
        client = _clients.get(key)
    if client is None:
        session = find_session(profile)
        if hook is not None:
            session = _botocore("session").Session(profile=profile)
            session.register_component("credential_provider", _Hook(hook))
        config = _botocore("config").Config(retries=retries, **TIMEOUTS)
        client = session.create_client(service, region_name=region, endpoint_url=endpoint, config=config)
        with _lock:
            if len(_clients) >= MAX_CLIENTS:
                del _clients[next(iter(_clients))]
            _clients[key] = client
    return client


def sign_query(keys: Frozen, url: str, service: str, region: str, seconds: int) -> str:
    """A URL with a signature of version 4 in its query, valid for so long."""
    request = _botocore("awsrequest").AWSRequest("GET", url)
    _botocore("auth").SigV4QueryAuth(keys, service, region, expires=seconds).add_auth(request)
    return str(request.url)


class _Hook:
    """What gives a session its credentials."""

    def __init__(self, hook: Callable[[], Credentials]) -> None:
        self.load_credentials = hook


def _botocore(module: str) -> Any:
    """A module of botocore.

    Raises:
        ImportError: it is not installed.
    """
    with IMPORTING:
        return importlib.import_module(f"botocore.{module}")


def _freeze(credentials: Credentials) -> Keys:
    """Keys, and an end that is theirs or earlier, also where another thread renews them meanwhile.

    botocore renews a session of 15 minutes or less each time that it is asked for the keys.
    """
    before, frozen, until = None, credentials.get_frozen_credentials(), _end_of(credentials)
    for _ in range(2):
        again = credentials.get_frozen_credentials()
        if again == frozen:
            return Keys(frozen, until)
        before, frozen, until = until, again, _end_of(credentials)
    return Keys(frozen, until if before is None or until is None else min(before, until))


def _end_of(credentials: Credentials) -> float | None:
    """When keys end, for which botocore has no public name."""
    until = getattr(credentials, "_expiry_time", None)
    return None if until is None else float(until.timestamp())


def _code_of(error: Exception) -> str | None:
    """AWS's code of an error; None: it is no answer of AWS's."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else None


def _explain(error: Exception) -> str:
    code = _code_of(error)
    if code is None:
        hint = next((_BY_NAME[each.__name__] for each in type(error).__mro__ if each.__name__ in _BY_NAME), None)
        text = f"{type(error).__name__}: {_first_line(str(error))}"
    else:
        message = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))
        hint, text = _HINTS.get(code), f"{code}: {_first_line(message)}"
    return text if hint is None else f"{text} ({hint})"


def _first_line(text: str) -> str:
    """What AWS says first: the lines below may repeat the request, or what was signed."""
    return text.strip().partition("\n")[0]


def _is_shown(record: logging.LogRecord) -> bool:
    """Whether a record of botocore's is let through; without its exception, see the theory."""
    if not getattr(_quiet, "depth", 0):
        return True
    record.exc_info = record.exc_text = None
    return record.levelno >= logging.WARNING


def _silence() -> None:
    """Have all loggers of botocore ask `_is_shown`: a logger's filter does not count for those below it."""
    for name in ("botocore", *(each for each in list(logging.root.manager.loggerDict) if each.startswith("botocore."))):
        logging.getLogger(name).addFilter(_is_shown)


def forget() -> None:
    """Make new sessions from now on; also in the child of a fork, where a thread of the parent may hold the lock."""
    global _lock  # noqa: PLW0603 - see above
    _lock = native.new_lock()
    _sessions.clear()
    _clients.clear()


os.register_at_fork(after_in_child=forget)
