"""Reading the URL of a SQLAlchemy engine, in every form in which SQLAlchemy renders one.

``str(engine.url)`` and ``engine.url.render_as_string(hide_password=False)`` look like a URI of libpq, and differ from
one where it hurts: the scheme names a driver, blanks in the query are written ``+``, a list of hosts is a repeated
``host=name:port``, and a hidden password is ``***``. So such a URL is read here by SQLAlchemy's own rules, and becomes
keywords. A hidden password counts as not given: ``PGPASSWORD`` and the password file may have it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from collections.abc import Sequence

HIDDEN = "***"
"""What SQLAlchemy writes in the place of a password."""

_SCHEME = r"postgresql\+\w+://"
_PLAIN_SCHEME = r"postgres(?:ql)?://"
_PARTS = (
    r"(?s)[\w+]+://"
    r"(?:(?P<user>[^:/]*)(?::(?P<password>[^@]*))?@)?"
    r"(?:\[(?P<v6>[^/?]+)\]|(?P<host>[^/:?]*))?(?::(?P<port>[^/?]*))?"
    r"(?:/(?P<dbname>[^?]*))?"
    r"(?:\?(?P<query>.*))?"
)


def is_engine_url(conninfo: str) -> bool:
    """Whether a conninfo is a URL of SQLAlchemy's.

    One without a driver is taken for one if libpq could not mean it: its query repeats ``host``, or gives it a port.
    """
    if not conninfo.startswith("postgres"):
        return False
    if re.match(_SCHEME, conninfo):
        return True
    if not re.match(_PLAIN_SCHEME, conninfo) or "host=" not in conninfo:
        return False
    hosts = re.findall(r"[?&]host=([^&]*)", conninfo)
    return len(hosts) > 1 or any(re.fullmatch(r"[\w.-]*(?::|%3[Aa])\d+", each) for each in hosts)


def read_engine_url(url: str) -> dict[str, str]:
    """The keywords that SQLAlchemy's dialect would connect with.

    Raises:
        ValueError: it is no such URL, or it mixes the two ways of writing a list of hosts.
    """
    with IMPORTING:
        from urllib.parse import parse_qsl, unquote  # noqa: PLC0415 - slow to import, and few calls have such a URL

    found = re.compile(_PARTS).fullmatch(url)
    if found is None:
        raise ValueError("the URL of an engine could not be read")
    parts = found.groupdict()
    params = {"host": parts["v6"] or parts["host"], "port": parts["port"]}
    params |= {name: parts[name] and unquote(parts[name]) for name in ("user", "password", "dbname")}
    query: dict[str, list[str]] = {}
    for name, value in parse_qsl(parts["query"] or ""):
        query.setdefault(name, []).append(value)
    params |= {name: ",".join(values) for name, values in query.items()}
    params |= _hosts(query.get("host", ()), mixed="port" in query)
    if params["password"] == HIDDEN:
        params["password"] = None
    return {name: value for name, value in params.items() if value}


def _hosts(hosts: Sequence[str], *, mixed: bool) -> dict[str, str]:
    """Hosts and ports of ``host=name:port``, repeated or alone; empty where they are written as libpq does."""
    glued = [re.fullmatch(r"(?P<host>[\w.-]*|\[[^\]]*\])(?::(?P<port>\d*))?", each) for each in hosts]
    alone = len(hosts) == 1 and not (glued[0] and glued[0]["port"] is not None)
    if not hosts or alone:
        return {}
    if mixed:
        raise ValueError("write host=h1,h2&port=p1,p2 or host=h1:p1&host=h2:p2, not a mixture of both")
    names = [each["host"].strip("[]") if each else host for each, host in zip(glued, hosts, strict=True)]
    ports = [(each["port"] or "") if each else "" for each in glued]
    return {"host": ",".join(names), "port": ",".join(ports) if any(ports) else ""}
