"""Service files: parameters that are kept under a name, read as libpq reads them.

libpq looks a service up in the user's file and then in the system's (documentation: "The Connection Service File").
What it finds counts after the conninfo and before the environment. Routing has to know hosts, ports and the database,
so these files are read here too; whatever is wrong with one is libpq's to say. A service with a line for LDAP is left
to libpq as a whole: then its hosts are not known here, and connections go where libpq leads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("PGSERVICE", "PGSERVICEFILE", "PGSYSCONFDIR", "HOME")
"""Environment variables that say which service counts, and where the files are."""
_SYSTEM = ("/etc/postgresql-common", "/etc/sysconfig/pgsql", "/etc")
"""Where builds of libpq have the system's file; libpq itself decides whether it is read."""
_FILE = "pg_service.conf"
_LDAP = "ldap"


def find_service(name: str, given: str | None = None) -> dict[str, str] | None:
    """The parameters of a service.

    Args:
        name: of the service.
        given: the user's file, where a parameter names it (``servicefile``).

    Returns:
        None where no file has the service, or it can only be read by libpq.
    """
    for path in paths(given):
        try:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            continue
        found, values = parse(text, name)
        if found:
            return values
    return None


def paths(given: str | None = None, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """The files in the order in which they count."""
    named = given or environment.get("PGSERVICEFILE")
    user = Path(named) if named else Path(environment.get("HOME") or "~").expanduser() / ".pg_service.conf"
    directory = environment.get("PGSYSCONFDIR")
    return [user, *(Path(each) / _FILE for each in ([directory] if directory else _SYSTEM))]


def stamp(given: str | None = None) -> tuple[tuple[int, int] | None, ...]:
    """What changes when a file is written: what was read of it is remembered for so long."""
    stamps: list[tuple[int, int] | None] = []
    for path in paths(given):
        try:
            status = path.stat()
        except OSError:
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size))
    return tuple(stamps)


def parse(text: str, name: str) -> tuple[bool, dict[str, str] | None]:
    """Whether a file has a service, and its parameters; None: only libpq can read them.

    A line is ``key=value`` without blanks around the sign; of a key that comes twice the first value counts.
    """
    values: dict[str, str] | None = {}
    found = False
    for written in text.split("\n"):
        line = written.strip(" \t\r\f\v")
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            if found:
                break
            found = line.startswith(f"[{name}]")
        elif found and values is not None:
            key, equals, value = line.partition("=")
            if line.startswith(_LDAP) or not equals or key == "service":
                values = None
            else:
                values.setdefault(key, value)
    return found, values
