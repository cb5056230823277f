"""Reading a call of ``connect``: a conninfo and keywords in, a request for routing and the rest for libpq out."""

from __future__ import annotations

import os
import re
import time
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import psycopg
from psycopg.conninfo import conninfo_to_dict

from aurora_router.errors import InvalidOption, MalformedHost, redact
from aurora_router.forks import IMPORTING
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, WantedRole, parse_endpoint, refuse_url
from aurora_router.policy.conninfo import split_conninfo
from aurora_router.policy.direct_tls import FIRST_VERSION
from aurora_router.policy.engine_url import is_engine_url, read_engine_url
from aurora_router.policy.options import (
    OF_EXTENSIONS,
    Balance,
    ReaderFallback,
    TlsDirect,
    find_option,
    is_strategy,
    overridden_by,
    split,
)
from aurora_router.policy.route import Address, Request
from aurora_router.runtime.balance_functions import find_balance
from aurora_router.runtime.libpq import as_keys, is_any_set
from aurora_router.runtime.parsed_args import ConnectArgs
from aurora_router.runtime.passfile import Parameters
from aurora_router.runtime.sources import find_sources

__all__ = ["ConnectArgs", "limit_args", "opening", "opening_async", "read_connect_args"]

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from aurora_router.attributes import AttributeSource
    from aurora_router.credentials import Provider
    from aurora_router.flow.runtime import Target, Wanted
    from aurora_router.flow.source import Source
    from aurora_router.policy.options import Options
    from aurora_router.runtime.passfile import DirectTlsMode

T = TypeVar("T")

_ENVIRONMENT = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "dbname": "PGDATABASE",
    "user": "PGUSER",
    "sslmode": "PGSSLMODE",
    "target_session_attrs": "PGTARGETSESSIONATTRS",
    "connect_timeout": "PGCONNECT_TIMEOUT",
}
"""What libpq takes from the environment and routing has to know."""
if psycopg.pq.version() >= FIRST_VERSION:  # an older libpq knows no such parameter
    _ENVIRONMENT["sslnegotiation"] = "PGSSLNEGOTIATION"
_ROOTS = {"sslrootcert": "PGSSLROOTCERT"}
"""The same where a provider requires TLS: how strict sslmode has to be depends on it."""

_SESSION_ROLES = {
    "read-write": WantedRole.WRITER,
    "primary": WantedRole.WRITER,
    "read-only": WantedRole.READER,
    "standby": WantedRole.READER,
    "prefer-standby": WantedRole.PREFER_READER,
    "any": WantedRole.ANY,
}
"""libpq's target_session_attrs -> the role that it asks for."""
_GIVES_ROLE = frozenset({EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER})
"""Endpoints that lead to instances of one role by themselves, so that "any" permits what they lead to."""
_REFUSES_PRIMARY = frozenset({"read-only", "standby"})
"""Values with which libpq takes no primary, and does not wait for a standby either."""

_WITHOUT_TLS = frozenset({"disable", "allow", "prefer"})
"""Values of sslmode with which libpq goes without TLS, or where the server wants it to."""

_WITH_TLS = frozenset({"require", "verify-ca", "verify-full"})
"""Values of sslmode with which libpq goes without TLS on no account."""

_SECRET = frozenset({"password", "sslpassword", "oauth_client_secret"})
"""Parameters that no message repeats anyway."""
_URL = r"://[^/?]*@|://.*pass\w*=|^//[^/?]*:[^/?]*@"
"""A URL with credentials, also one without its scheme."""
_AT_IN_PATH = r"\s*\w+://[^/?]*:[^/?]*@[^/?]*/[^?]*@"
"""A URL with a password, and with an @ in its path: the password had an @ and a /, and the host is a part of it."""
_PART = "it may be a part of a password, whose special characters have to be percent-encoded or quoted"

NO_LIMIT = 130.0
"""What psycopg makes of ``connect_timeout=0``, in seconds: about what an operating system waits for a connection."""
LEAST_LIMIT = 2.0
"""The shortest ``connect_timeout`` that psycopg and libpq keep to, in seconds."""


def opening(open_: Callable[..., T], params: Mapping[str, Any]) -> Callable[[Target, float], T]:
    """Return how to dial with parameters: as they are, or with a login from their provider at each dial.

    Args:
        open_: called as ``open_(target, seconds)``, or with a provider as ``open_(target, seconds, login)``.
        params: of `ConnectArgs`.
    """
    if not isinstance(params, Parameters):
        return open_
    if params.direct_tls is not None:
        with IMPORTING:
            from aurora_router.runtime import direct_dial  # noqa: PLC0415 - few calls want that

        open_ = direct_dial.make_dial(open_, demanded=params.direct_tls == "demanded")
    if params.provider is None:
        return open_
    with IMPORTING:
        from aurora_router.runtime.credential_dial import make_dial  # noqa: PLC0415 - few calls have a provider

    return make_dial(open_, params.provider, params)


def opening_async(
    open_: Callable[..., Awaitable[T]], params: Mapping[str, Any]
) -> Callable[[Target, float], Awaitable[T]]:
    """The same for asyncio."""
    if not isinstance(params, Parameters):
        return open_
    if params.direct_tls is not None:
        with IMPORTING:
            from aurora_router.runtime import direct_dial  # noqa: PLC0415 - see above

        open_ = direct_dial.make_async_dial(open_, demanded=params.direct_tls == "demanded")
    if params.provider is None:
        return open_
    with IMPORTING:
        from aurora_router.runtime.credential_dial import make_async_dial  # noqa: PLC0415 - see above

    return make_async_dial(open_, params.provider, params)


def read_connect_args(conninfo: str, keywords: Mapping[str, Any]) -> ConnectArgs:
    """Read a call of ``connect``.

    Raises:
        InvalidOption: one of our options is unknown, malformed or contradicts another.
        MalformedHost: a host name that no resolver could take.
        psycopg.ProgrammingError: libpq does not understand the conninfo.
        TypeError: the conninfo is no string.
    """
    if not isinstance(conninfo, str):
        given = type(conninfo).__name__
        raise TypeError(f"the conninfo is a string, and this is {given}: give a URL, a conninfo, or keywords alone")
    named = "service" in keywords or "service" in conninfo or "PGSERVICE" in os.environ
    files = _service_files(keywords) if named else ()
    try:
        said = _understand(conninfo, tuple(sorted(keywords.items())), _spellings(keywords))
    except TypeError:  # a value that cannot be remembered
        said = _understand.__wrapped__(conninfo, tuple(keywords.items()))
        return _read.__wrapped__(said, _environment_of(said), files)
    return _read(said, _environment_of(said), files)


def limit_args(args: ConnectArgs, until: float | None, wanted: Wanted | None = None) -> ConnectArgs:
    """Return the arguments of a connect that ends at `until` at the latest, on the monotonic clock.

    It ends before that if it is not `wanted` any more. None: its own options alone limit it.
    """
    if until is None:
        return args
    options, left = args.request.options, max(0.1, until - time.monotonic())
    if left < options.failover_timeout:
        options = replace(options, failover_timeout=left)
    return replace(args, request=replace(args.request, options=options, wanted=wanted))


def _environment_of(said: _Said) -> tuple[str | None, ...]:
    """What the environment gives now for what a call leaves unsaid."""
    if not is_any_set(said.variables):
        return (None,) * len(said.unsaid)
    return tuple([os.environ.get(_variable_of(name)) for name in said.unsaid])


def _spellings(keywords: Mapping[str, Any]) -> tuple[object, ...]:
    """What distinguishes values that are equal and not the same to libpq: 1 and True, a text and an enum's member."""
    return tuple([(type(each), str(each)) for each in keywords.values() if type(each) is not str])


def _variable_of(parameter: str) -> str:
    return _ENVIRONMENT.get(parameter) or _ROOTS[parameter]


def _service_files(keywords: Mapping[str, Any]) -> tuple[object, ...]:
    """What a service stands for now depends on: variables and files, which may change while the process runs."""
    with IMPORTING:
        from aurora_router.runtime import servicefile  # noqa: PLC0415 - few calls name a service

    variables = (os.environ.get(variable) for variable in servicefile.VARIABLES)
    return (*variables, *servicefile.stamp(keywords.get("servicefile")))


_Extensions: TypeAlias = "tuple[Provider | None, AttributeSource | None]"


@frozen(eq=False)
class _Said:
    """What a call says itself. Equal to itself alone, like `Request`.

    Attributes:
        every: all that was given by name, our options among it.
        options: ours.
        params: what is left for libpq.
        extensions: the provider of credentials, and the source of attributes.
        sources: how to ask for the topology, in the order in which to try.
        unsaid: parameters that routing has to know, and that the environment may give.
        variables: the names of the variables that give them.
    """

    every: Mapping[str, Any]
    options: Options
    params: Mapping[str, Any]
    extensions: _Extensions
    sources: tuple[Source, ...]
    unsaid: tuple[str, ...]
    variables: frozenset[str | bytes]


@lru_cache(maxsize=256)
def _understand(
    conninfo: str,
    keywords: tuple[tuple[str, Any], ...],
    spellings: tuple[object, ...] = (),
) -> _Said:
    del spellings  # it only distinguishes calls whose keywords are equal
    ours, rest = _split(conninfo)
    here = dict(keywords)
    given, balance = here.pop("credentials", None), here.pop("balance", None)
    if balance is not None:
        if here.get("aurora_balance") is not None:
            raise InvalidOption("balance= and aurora_balance are both given: give one of them")
        here["aurora_balance"] = balance
    every = {**ours, **overridden_by(here), **here}
    if not is_strategy(every.get("aurora_balance", Balance.LEAST_CONNECTIONS)):
        every["aurora_balance"] = find_balance(every["aurora_balance"])
    options, kept = split(every)
    _refuse_nul({"the conninfo": rest, **kept})
    params = _parse_conninfo(rest, kept)
    _refuse_urls(params)
    provider, _ = extensions = _find_extensions(given, options, params)
    known = (*_ENVIRONMENT, *_ROOTS) if getattr(provider, "requires_tls", False) else _ENVIRONMENT
    unsaid = tuple(name for name in known if params.get(name) is None)
    variables = as_keys(map(_variable_of, unsaid))
    return _Said(every, options, params, extensions, _find_sources(options), unsaid, variables)


@lru_cache(maxsize=256)
def _read(said: _Said, environment: tuple[str | None, ...], service_files: tuple[object, ...]) -> ConnectArgs:
    every, options, params = said.every, said.options, Parameters(said.params)
    params.provider, params.attributes = said.extensions
    known = not service_files or _take_service(params)
    origins: dict[str, str] = {}
    for name, value in zip(said.unsaid, environment, strict=True):
        if value is not None and params.get(name) is None and known:
            params[name], origins[name] = value, f" (from {_variable_of(name)})"
    if getattr(params.provider, "requires_tls", False):
        _require_tls(params, is_known=known)
    params.direct_tls = _find_direct_tls(options, params)
    limit = _dial_limit(params.get("connect_timeout"), origins.get("connect_timeout", ""))
    if limit is not None and every.get("aurora_connect_timeout") is None:
        options = replace(options, connect_timeout=limit)
    attributes = params.pop("target_session_attrs", None)
    if attributes is not None:
        params["target_session_attrs"] = "any"  # or libpq would find the environment's, and refuse what routing chose
    params.given = given = _addresses(params, origins.get("port"))
    if attributes == "any" and len(given) == 1 and parse_endpoint(given[0].host or "").kind in _GIVES_ROLE:
        attributes = None
    refuses_primary = False
    if options.role is None and options.instance is None and attributes is not None:
        refuses_primary = attributes in _REFUSES_PRIMARY and every.get("aurora_reader_fallback") is None
        fallback = ReaderFallback.ERROR if refuses_primary else options.reader_fallback
        options = replace(
            options,
            role=_session_role(str(attributes), origins.get("target_session_attrs", "")),
            reader_fallback=fallback,
        )
    verifies = params.get("sslmode") == "verify-full"
    database = str(params.get("dbname") or params.get("user") or "")
    managed = any(each.members is not None for each in said.sources)
    request = Request(
        given, options, verifies_name=verifies, refuses_primary=refuses_primary, database=database, managed=managed
    )
    _refuse_sources_of_clusters(request, said.sources)
    return ConnectArgs(request, params, said.sources)


def _refuse_sources_of_clusters(request: Request, sources: Sequence[Source]) -> None:
    """Refuse a list of hosts where every source reports whole clusters.

    A list is asked host by host: ids that a server reports for the whole cluster would not match it.

    Raises:
        InvalidOption: that is so.
    """
    options = request.options
    if len(request.given) > 1 and options.instance is None and all(each.complete for each in sources):
        raise InvalidOption(
            f"aurora_source={','.join(options.source)} has no effect with several hosts "
            f"({', '.join(map(str, request.given))}), each of which is asked for itself alone: give the cluster's own "
            "endpoint as the only host, or remove aurora_source"
        )


def _find_sources(options: Options) -> tuple[Source, ...]:
    """The topology sources, made from the options that are theirs."""
    own = [name for name, option in OF_EXTENSIONS.items() if option == "source"]
    values = {name: getattr(options, name) for name in own if getattr(options, name) is not None}
    return find_sources(options.source, values)


def _find_extensions(given: object, options: Options, params: Mapping[str, Any]) -> _Extensions:
    """What gives the credentials at each dial, and what describes the cluster beside SQL, if anything does."""
    named = (options.credentials, options.attributes, *(getattr(options, each) for each in OF_EXTENSIONS))
    if given is None and not any(each is not None for each in named):
        return (None, None)
    with IMPORTING:
        from aurora_router.runtime.extensions import find_extensions  # noqa: PLC0415 - few calls have any

    return find_extensions(given, options, params)


def _require_tls(params: dict[str, Any], *, is_known: bool) -> None:
    """Have libpq do without TLS on no account: an unset ``sslmode`` would send a token in clear text.

    Raises:
        InvalidOption: ``sslmode`` allows a connection without TLS, or a service that can't be read may say it.
    """
    mode = params.get("sslmode")
    if mode in _WITHOUT_TLS:
        raise InvalidOption(
            f"sslmode={mode} permits a connection without TLS, which would show the token: set sslmode=verify-full and "
            "sslrootcert, or sslmode=require, which is also the default here"
        )
    if mode:
        return
    if not is_known:
        raise InvalidOption("the service can't be read, so its sslmode is not known: give sslmode beside it")
    # libpq refuses anything less than verify-full with the roots of the system.
    params["sslmode"] = "verify-full" if params.get("sslrootcert") == "system" else "require"


def _find_direct_tls(options: Options, params: Mapping[str, Any]) -> DirectTlsMode | None:
    """Whether TLS begins at once: where it is known to work, or because the user gave that.

    Raises:
        InvalidOption: ``aurora_tls_direct`` can have no effect with this libpq, or with this ``sslmode``.
    """
    given = params.get("sslnegotiation")
    if given == "direct":
        return "demanded"
    if options.tls_direct is not TlsDirect.AUTO or given is not None:
        return None
    if psycopg.pq.version() < FIRST_VERSION:
        raise InvalidOption(
            f"aurora_tls_direct=auto needs libpq 17, and psycopg has {psycopg.pq.version() // 10000} here: install "
            "psycopg[binary] 3.2.4 or later, or a newer libpq, or remove it"
        )
    mode = params.get("sslmode")
    if mode not in _WITH_TLS:
        raise InvalidOption(
            f"aurora_tls_direct=auto needs TLS, and sslmode={mode or 'prefer'} may go without: set sslmode=verify-full "
            "and sslrootcert, or sslmode=require"
        )
    return "auto"


def _take_service(params: Parameters) -> bool:
    """Add what routing has to know of the service that is named; returns whether it could be read.

    The rest of it is libpq's, which reads the service again at each dial: what is given explicitly counts there.
    """
    with IMPORTING:
        from aurora_router.runtime.servicefile import find_service  # noqa: PLC0415 - few calls name a service

    name = params.get("service") or os.environ.get("PGSERVICE")
    if name is None:
        return True
    values = find_service(str(name), params.get("servicefile"))
    for key, value in (values or {}).items():
        if key in _ENVIRONMENT or key in {"password", "passfile", *_ROOTS}:
            params.setdefault(key, value)
    params.reads_service = values is not None
    return params.reads_service


def _split(conninfo: str) -> tuple[dict[str, str], str]:
    """Our options, or all keywords where the conninfo is the URL of an engine; and what is left for libpq to read."""
    if not is_engine_url(conninfo):
        return split_conninfo(conninfo)
    try:
        return read_engine_url(conninfo), ""
    except ValueError as error:
        raise psycopg.ProgrammingError(str(error)) from None


def _dial_limit(connect_timeout: object, origin: str) -> float | None:
    """The limit of one dial in seconds, by psycopg's rule; None: not given.

    Args:
        connect_timeout: as it was given.
        origin: says which variable of the environment gave it; empty if the call did.

    Raises:
        psycopg.ProgrammingError: it is no number.
    """
    if connect_timeout is None:
        return None
    try:
        seconds = int(float(str(connect_timeout)))
    except (ValueError, OverflowError):
        shown = redact(connect_timeout)
        raise psycopg.ProgrammingError(f"bad value for connect_timeout: {shown}{origin}") from None
    return NO_LIMIT if seconds <= 0 else max(LEAST_LIMIT, float(seconds))


def _parse_conninfo(conninfo: str, keywords: Mapping[str, object]) -> dict[str, Any]:
    """The parameters as libpq reads them.

    Raises:
        psycopg.ProgrammingError: libpq does not understand the conninfo. It quotes what it does not understand, which
            is not repeated where that may be a part of a password.
    """
    try:
        if any(map(find_option, keywords)):
            _refuse_unprefixed(keywords)
        parsed = conninfo_to_dict(conninfo, **cast("dict[str, Any]", keywords))
    except UnicodeDecodeError:
        what = "a percent-encoded character of the conninfo is not UTF-8"
        raise psycopg.ProgrammingError(f"{what} (it is not shown: {_PART})") from None
    except psycopg.ProgrammingError as error:
        message, _, quoted = str(error).replace('"="', "=").replace('"]"', "]").partition('"')
        advice = _advice(str(error), conninfo)
        if _may_hold_password(conninfo, quoted) and not _is_misspelled(error):
            raise type(error)(f"{message.strip()} … (the rest is not shown: {_PART}){advice}") from None
        if not advice:
            raise
        raise type(error)(f"{str(error).strip()}{advice}") from None
    if re.match(_AT_IN_PATH, conninfo):
        raise psycopg.ProgrammingError(f"the URL's database name has an @ in it (it is not shown: {_PART})")
    return parsed


def _refuse_unprefixed(keywords: Mapping[str, object]) -> None:
    """Refuse an option of ours without its prefix here; libpq would, at the first dial.

    Raises:
        psycopg.ProgrammingError: there is one.
    """
    known = {each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()}
    for name in keywords:
        if name not in known and find_option(name) is not None:
            raise psycopg.ProgrammingError(f'invalid connection option "{name}"')


def _advice(refused: str, conninfo: str) -> str:
    """What to write in the place of what libpq refused, as far as it can be guessed; starts with a colon.

    A scheme that is wrong is not repeated: it may be the beginning of a password.
    """
    named = re.search(r'invalid connection option "(\w+)"', refused)
    if named is not None and (meant := find_option(named[1])) is not None:
        return f": did you mean {meant}?"
    scheme = re.match(r"[A-Za-z][\w+.-]*(?=://)", conninfo)
    if scheme is not None and scheme[0] not in {"postgresql", "postgres"}:
        return ": a URL begins with postgresql:// (in create_engine with postgresql+aurora://)"
    return ""


def _may_hold_password(conninfo: str, quoted: str) -> bool:
    """Whether what libpq quotes of a conninfo that it does not understand may be a part of a password.

    A URL may have lost any of its parts when it was copied, its scheme first of all. Without one, the user's name and
    the password may stand anywhere in front of an ``@``, and what has a colon may be the two of them.
    """
    if re.search(r"(?i)pass\w*\s*=", conninfo):
        return True
    scheme = re.match(r"[\w+.-]+://", conninfo)
    if scheme is None:
        return "@" in conninfo or ":" in quoted
    rest = conninfo[scheme.end() :]
    hosts = re.sub(r"(?:^|(?<=[@,]))\[[^\]]*(?:\]|$)", "", re.split(r"[/?]", rest)[0])
    # A port has digits alone: where the ``@`` is lost, anything else behind a colon is of a password.
    return re.search(r"(?s):.*@", rest) is not None or re.search(r":(?!\d*(?:,|$))", hosts) is not None


def _is_misspelled(error: psycopg.Error) -> bool:
    """Whether what libpq does not know is nearly one of its keys, and so no part of a password."""
    with IMPORTING:
        from difflib import get_close_matches  # noqa: PLC0415 - only an error needs it, and it is slow to import

    named = re.search(r'invalid connection option "(\w+)"', str(error))
    known = [each.keyword.decode() for each in psycopg.pq.Conninfo.get_defaults()]
    return named is not None and bool(get_close_matches(named[1].lower(), known, n=1))


def _refuse_nul(params: Mapping[str, object]) -> None:
    """Refuse a NUL: libpq's text would end there, what comes after it would be lost, the host among it.

    Raises:
        psycopg.ProgrammingError: there is one.
    """
    for name, value in params.items():
        if "\0" in value if isinstance(value, str) else isinstance(value, bytes) and b"\0" in value:
            raise psycopg.ProgrammingError(f"{name} has a NUL character in it, which no connection parameter can have")


def _refuse_urls(params: Mapping[str, Any]) -> None:
    """Refuse a URL with credentials in the place of another parameter, before it gets into messages.

    Raises:
        InvalidOption: there is one; `MalformedHost` where a host belongs.
    """
    for name, value in params.items():
        if name not in _SECRET and isinstance(value, str) and re.search(_URL, value):
            kind = MalformedHost if name in {"host", "hostaddr"} else InvalidOption
            raise kind(f"{name} is {redact(value)}: pass a URL as the conninfo, the first argument")


def _session_role(attributes: str, origin: str) -> WantedRole:
    try:
        return _SESSION_ROLES[attributes]
    except KeyError:
        known = ", ".join(_SESSION_ROLES)
        raise InvalidOption(f"target_session_attrs={redact(attributes)}{origin}: accepted are {known}") from None


def _addresses(params: dict[str, Any], port_origin: str | None) -> tuple[Address, ...]:
    """The hosts of a conninfo, taken out of `params`; lists as libpq reads them.

    Args:
        params: what was given.
        port_origin: says which variable of the environment gave the ports; None: the call or its service did.
    """
    hosts, addresses, ports = (_list_hosts(params.pop(key, None)) for key in ("host", "hostaddr", "port"))
    for each in (*hosts, *addresses):
        refuse_url(each)
    if any(each.startswith("@") for each in hosts) and not all(each[:1] in {"@", "/"} for each in hosts):
        # The rest of a URL's password, which had an @ and a comma in it.
        raise MalformedHost(f"a list of hosts has one that begins with @ beside names of hosts (not shown: {_PART})")
    count = max(len(hosts), len(addresses), 1)
    if hosts and addresses and len(hosts) != len(addresses):
        raise psycopg.OperationalError(f"could not match {len(hosts)} host names with {len(addresses)} hostaddr values")
    if len(ports) > 1 and len(ports) != count:
        raise psycopg.OperationalError(f"could not match {len(ports)} port numbers to {count} hosts")
    ports = ports * count if len(ports) == 1 else ports
    return tuple(
        Address(_at(hosts, index), _port(_at(ports, index), port_origin), _at(addresses, index))
        for index in range(count)
    )


def _list_hosts(value: object) -> list[str]:
    return [] if value is None or value == "" else str(value).split(",")


def _at(values: list[str], index: int) -> str | None:
    return values[index] or None if values else None


def _port(value: str | None, origin: str | None) -> int | None:
    if value is None:
        return None
    if not value.strip().isdecimal() or not 0 < int(value) < 65536:
        # Only where it comes from a URL can it be a part of a password.
        is_shown = origin is not None or value.strip().lstrip("+-").isdecimal()
        shown = f'"{value}"' if is_shown else f"not a number (not shown: {_PART})"
        raise psycopg.OperationalError(f"invalid port number: {shown}{origin or ''}")
    return int(value)
