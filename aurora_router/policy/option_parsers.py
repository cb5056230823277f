"""How the value of an option is read: text from a conninfo or a URL, or what a keyword argument gives.

Every reader takes the value as given and returns the typed one, or raises `ValueError` with what is wrong with it.
`options` adds the name of the option and what is accepted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.policy.hosts import HostPort, InstanceHosts, parse_host_port, parse_instance_hosts

if TYPE_CHECKING:
    import enum
    from collections.abc import Callable

    E = TypeVar("E", bound=enum.Enum)

DNS_PORT = 53
_TRUTH = {"on": True, "true": True, "yes": True, "1": True, "off": False, "false": False, "no": False, "0": False}


def choice(kind: type[E]) -> Callable[[object], E]:
    """A reader of the members of an enumeration, by value (any case) or as they are."""

    def read(value: object) -> E:
        if isinstance(value, kind):
            return value
        wanted = text(value).lower().replace("_", "-")
        for member in kind:
            if member.value.replace("_", "-") == wanted:
                return member
        raise ValueError("is not one of the accepted words")

    return read


def text(value: object) -> str:
    """A non-empty text."""
    if not isinstance(value, str):
        raise ValueError(f"is of the type {type(value).__name__}")  # noqa: TRY004 - all readers raise one class
    if not value.strip():
        raise ValueError("is empty")
    return value.strip()


def rds_name(value: object) -> HostPort:
    """A name of RDS within a region, maybe with a port."""
    place = value if isinstance(value, HostPort) else parse_host_port(text(value))
    if parse_endpoint(place.host).region is None:
        raise ValueError("is no name of RDS within a region")
    return place


def http_url(value: object) -> str:
    """A URL of a web server, without a user in it."""
    url = text(value)
    if not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#@]*)?", url):
        raise ValueError("is no URL of a server")
    return url


def http_urls(value: object) -> tuple[str, ...]:
    """URLs of web servers, ``one,two`` or an iterable, without a user in them."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    return tuple(http_url(part) for part in parts)


def names(value: object) -> tuple[str, ...]:
    """Names in an order: ``one,two`` or an iterable; in lower case, with ``_`` for ``-``; none twice."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Iterable) else [value]
    read = tuple(text(part).lower().replace("-", "_") for part in parts)
    if not read:
        raise ValueError("is empty")
    if len(set(read)) < len(read):
        raise ValueError("has a name twice")
    return read


def truth(value: object) -> bool:
    """A boolean, in the words that PostgreSQL takes."""
    if isinstance(value, bool):
        return value
    if value in (0, 1):
        return bool(value)
    word = text(value).lower()
    if word not in _TRUTH:
        raise ValueError("is no truth value")
    return _TRUTH[word]


def seconds(value: object) -> float:
    """A finite number of seconds, zero or more."""
    number = _number(value)
    if not math.isfinite(number):
        raise ValueError("is not finite")
    if number < 0:
        raise ValueError("is negative")
    return number


def positive_seconds(value: object) -> float:
    """A finite number of seconds above zero."""
    number = seconds(value)
    if number == 0:
        raise ValueError("is zero")
    return number


def _number(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    written = text(value)
    try:
        return float(written)
    except ValueError:
        raise ValueError("is no number") from None


def count(value: object) -> int:
    """A whole number, 1 or more."""
    written = str(value).strip() if not isinstance(value, bool) else ""
    if not (written.isascii() and written.isdecimal() and 0 < len(written) <= 6 and int(written) > 0):
        raise ValueError("is no whole number of 1..999999")
    return int(written)


def weights(value: object) -> tuple[tuple[str, int], ...]:
    """Whole numbers by instance id: ``demo-2=3,demo-3=1`` or a mapping; sorted by id; at least one is above zero."""
    table = tuple((id_, _weight(id_, weight)) for id_, weight in _table(value))
    if not any(weight for _, weight in table):
        raise ValueError("gives every instance the weight 0")
    return table


def _weight(instance: str, value: object) -> int:
    written = str(value).strip() if not isinstance(value, bool) else ""
    if not (written.isascii() and written.isdecimal() and len(written) <= 6):
        raise ValueError(f"the weight {value!r} of {instance!r} is no whole number of 0..999999")
    return int(written)


def zone_table(value: object) -> tuple[tuple[str, str], ...]:
    """Zones by instance id: ``demo-1=eu-1a,demo-2=eu-1b`` or a mapping; sorted by id."""
    return tuple((id_, text(zone)) for id_, zone in _table(value))


def _table(value: object) -> list[tuple[str, object]]:
    if isinstance(value, Mapping):
        entries = [(text(key), each) for key, each in value.items()]
    elif isinstance(value, tuple) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        entries = [(text(key), each) for key, each in value]
    else:
        entries = [_entry(entry) for entry in text(value).split(",")]
    if not entries:
        raise ValueError("is empty")
    table = {key.lower(): each for key, each in entries}
    if len(table) < len(entries):
        raise ValueError("names an instance twice")
    return sorted(table.items())


def _entry(entry: str) -> tuple[str, object]:
    key, _, each = (part.strip() for part in entry.partition("="))
    if not key or not each:
        raise ValueError(f"the entry {entry.strip()!r} is not id=value")
    return key, each


def zone_tiers(value: object) -> tuple[frozenset[str], ...]:
    """Preference tiers of zones: ``eu-1a,eu-1b+eu-1c`` or an iterable of such parts, the first tier preferred."""
    if not isinstance(value, str) and isinstance(value, Iterable):
        parts = [part if isinstance(part, str) else "+".join(sorted(part)) for part in value]
    else:
        parts = text(value).split(",")
    tiers = tuple(frozenset(zone.strip() for zone in part.split("+")) for part in parts)
    named = [zone for tier in tiers for zone in tier]
    if not named or not all(named):
        raise ValueError("has an empty zone")
    if len(set(named)) < sum(part.count("+") + 1 for part in parts):
        raise ValueError("names a zone twice")
    return tiers


def instance_hosts(value: object) -> InstanceHosts:
    """A template or a map, see `hosts`; a mapping of ids to ``host:port`` is taken too."""
    if isinstance(value, InstanceHosts):
        return value
    if isinstance(value, Mapping):
        value = ",".join(f"{id_}={place}" for id_, place in value.items())
    return parse_instance_hosts(text(value))


def name_server(value: object) -> HostPort:
    """The address of a name server; its port is 53 when not given.

    A name in place of an address is refused: it would have to be resolved by the resolver that it replaces.
    """
    place = value if isinstance(value, HostPort) else parse_host_port(text(value))
    if parse_endpoint(place.host).kind is not EndpointKind.IP:
        raise ValueError(
            "names the server by a host name, which cannot be resolved without a name server: give its IP address"
        )
    return HostPort(place.host, place.port or DNS_PORT)
