"""Reading a call of ``connect``: PyMySQL's keywords and our options in, a request for routing out."""

# pyright: reportAttributeAccessIssue=false
# The stubs that pyright brings with it are of an older PyMySQL.

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from aurora_router.errors import InvalidOption, redact
from aurora_router.model.endpoint import refuse_url
from aurora_router.policy.options import OF_EXTENSIONS, PREFIX, Balance, is_option, is_strategy, split
from aurora_router.policy.route import Address, Request
from aurora_router.runtime.balance_functions import find_balance
from aurora_router.runtime.parsed_args import ConnectArgs
from aurora_router.runtime.sources import find_sources
from aurora_router_mysql.sources import BUILT_IN

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pymysql.connections import Connection

    from aurora_router.flow.source import Source
    from aurora_router.policy.options import Options

_TRANSACTIONS = ("outcome", "outcome_terminate", "transaction_attempts", "transaction_timeout")
NOT_SERVED = {
    **dict.fromkeys(("credentials", "attributes", *OF_EXTENSIONS), "credentials, attributes and managers of clusters"),
    **dict.fromkeys(_TRANSACTIONS, "run_transaction"),
    **dict.fromkeys(("causal", "causal_wait"), "causal tokens"),
    "rebalance": "pools",
    "tls_direct": "TLS from the first byte",
    "auto_pause": "instances that pause",
    "trust_cname": "names at the end of an alias",
}
"""Options, without prefix, that have no effect yet -> what they are for; given explicitly they are refused."""
_AS_KEYWORDS = "give what is in a URL by keywords: host, port, user, password (each as it is, not encoded), database"


class Parameters:
    """How to open sessions like the user's: equal to those of a call with the same arguments.

    Attributes:
        given: PyMySQL's arguments, but for the host.
        template: a connection of PyMySQL's with these arguments that was never opened.
    """

    __slots__ = ("given", "template")

    def __init__(self, given: Mapping[str, Any], template: Connection[Any]) -> None:
        self.given = given
        self.template = template

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Parameters) and self.given == other.given

    __hash__ = None  # type: ignore[assignment]  # what it holds can change

    def __repr__(self) -> str:
        return f"<Parameters of {self.template.user!r}>"  # no password in a log


def duplicate(connection: Connection[Any]) -> Any:
    """Return a shallow copy; `copy.copy` makes an equal one, and takes four times as long."""
    twin = object.__new__(type(connection))
    vars(twin).update(vars(connection))
    return twin


def part_options(keywords: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part keywords into our options and PyMySQL's arguments.

    Raises:
        InvalidOption: an option has no effect for MySQL, or PyMySQL's time limit is no number.
    """
    ours = {name: value for name, value in keywords.items() if is_option(name) or name == "balance"}
    rest = {name: value for name, value in keywords.items() if name not in ours}
    for name, value in ours.items():
        what = NOT_SERVED.get(name.removeprefix(PREFIX))
        if what is not None and value is not None:
            raise InvalidOption(f"{name} has no effect with MySQL yet, nor has anything else of {what}: remove it")
    limit = rest.get("connect_timeout", 1)
    if not isinstance(limit, (int, float)):
        raise InvalidOption(
            f"connect_timeout={redact(limit)}: is of the type {type(limit).__name__} (accepted: seconds, a number more "
            "than 0; for example connect_timeout=5)"
        )
    return ours, rest


def read_connect_args(ours: Mapping[str, Any], rest: Mapping[str, Any], template: Connection[Any]) -> ConnectArgs:
    """Read a call of ``connect``.

    Args:
        ours: our options.
        rest: PyMySQL's arguments, as they were given.
        template: a connection of PyMySQL's that was made of them, and not opened.

    Raises:
        InvalidOption: one of our options is unknown, malformed or contradicts another.
        MalformedHost: a host name that no resolver could take.
    """
    options, sources = _read_options(dict(ours))
    if "connect_timeout" in rest and ours.get(f"{PREFIX}connect_timeout") is None:
        options = _with_dial_limit(options, float(rest["connect_timeout"]))
    verifies = bool(template.ssl and template.ctx.check_hostname)
    place = (template.unix_socket, template.host, template.port)
    database = template.db or ""
    request = _find_request(*place, str(database), options, verifies)
    if len(request.given) > 1 and options.instance is None and all(each.complete for each in sources):
        raise InvalidOption(
            f"aurora_source={','.join(options.source)} has no effect with several hosts "
            f"({', '.join(map(str, request.given))}), each of which is asked for itself alone: give the cluster's own "
            "endpoint as the only host, or remove aurora_source"
        )
    given = {name: value for name, value in rest.items() if name not in {"host", "port", "unix_socket"}}
    return ConnectArgs(request, Parameters(given, template), sources)


def _read_options(ours: dict[str, Any]) -> tuple[Options, tuple[Source, ...]]:
    try:
        return _remember_options(tuple(sorted(ours.items())))
    except TypeError:  # a value that cannot be remembered
        return _remember_options.__wrapped__(tuple(ours.items()))


@lru_cache(maxsize=256)
def _remember_options(items: tuple[tuple[str, Any], ...]) -> tuple[Options, tuple[Source, ...]]:
    ours = dict(items)
    balance = ours.pop("balance", None)
    if balance is not None:
        if ours.get(f"{PREFIX}balance") is not None:
            raise InvalidOption("balance= and aurora_balance are both given: give one of them")
        ours[f"{PREFIX}balance"] = balance
    if not is_strategy(ours.get(f"{PREFIX}balance", Balance.LEAST_CONNECTIONS)):
        ours[f"{PREFIX}balance"] = find_balance(ours[f"{PREFIX}balance"])
    options, _ = split(ours)
    return options, find_sources(options.source, built_in=BUILT_IN)


@lru_cache(maxsize=256)
def _with_dial_limit(options: Options, seconds: float) -> Options:
    return replace(options, connect_timeout=seconds)


@lru_cache(maxsize=256)
def _find_request(
    unix_socket: str | None,
    host: str,
    port: int,
    database: str,
    options: Options,
    verifies: bool,  # noqa: FBT001
) -> Request:
    """The request of a call; the same one for equal calls, so that the monitor need not look at each."""
    given = (Address(unix_socket, None),) if unix_socket else tuple(_read_hosts(host, port))
    return Request(given, options, verifies_name=verifies, database=database)


def _read_hosts(text: str, port: int) -> Sequence[Address]:
    """The hosts of a comma-separated list, each with a port of its own where one follows a colon.

    Raises:
        MalformedHost: one is a URL.
        InvalidOption: a port is none.
    """
    found = []
    for each in text.split(","):
        refuse_url(each, _AS_KEYWORDS)
        parted = re.fullmatch(r"(?:\[(?P<v6>[^\]]*)\]|(?P<host>[^:]*)):(?P<port>.*)", each) if "," in text else None
        if parted is None:
            found.append(Address(each, port))
            continue
        number = parted["port"]
        if not number.isdecimal() or not 0 < int(number) < 65536:
            raise InvalidOption(f"host={redact(text)}: {redact(number)} is not a port number (1 to 65535)")
        found.append(Address(parted["v6"] or parted["host"], int(number)))
    return found
