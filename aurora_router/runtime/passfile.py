"""Passwords from the password file, under the names that the user wrote there.

libpq looks a password up by the host that is dialled (documentation: "The Password File"). An instance is dialled by
its own name, but what people put into the file is the endpoint that they know. So where the file has no line that names
the instance, the entry of a host that was given counts: the server is one of that cluster. A line that names that host
counts before one for any host (``*``), as it does for libpq when the endpoint itself is dialled.

A password given in any other way is not looked up, nor is one where a service file may give it. A file that others may
read is ignored, as by libpq, which says so itself.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from aurora_router.forks import IMPORTING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.attributes import AttributeSource
    from aurora_router.credentials import Provider
    from aurora_router.flow.runtime import Target
    from aurora_router.policy.route import Address

DEFAULT_PORT = "5432"
ANY = "*"
_FIELD = re.compile(r"((?:[^:\\]|\\.)*)(?::|$)")


class Entry(NamedTuple):
    """One line of the file; ``*`` in the first four stands for anything."""

    host: str
    port: str
    database: str
    user: str
    password: str

    def fits(self, host: str, port: str, database: str, user: str) -> bool:
        """Whether the line is for such a connection."""
        pairs = zip(self[:4], (host, port, database, user), strict=True)
        return all(written in {ANY, wanted} for written, wanted in pairs)


DirectTlsMode = Literal["auto", "demanded"]
"""Where TLS begins at once: where that is known to work, or everywhere."""


class Parameters(dict[str, Any]):
    """What is left of a call for libpq, and the hosts that were given.

    Attributes:
        given: the hosts, under which the user may have filed the password.
        provider: gives user and password at each dial; None: they are among the parameters, or libpq finds them.
        attributes: describes the cluster beside SQL; None: nothing does.
        direct_tls: whether TLS begins at once where that works (`runtime.direct_dial`); None: as libpq does by itself.
        reads_service: whether the service that is named was read, so that a password in it is among the parameters.
    """

    given: tuple[Address, ...] = ()
    provider: Provider | None = None
    attributes: AttributeSource | None = None
    direct_tls: DirectTlsMode | None = None
    reads_service = False


_UNDECODED = re.compile("[\ud800-\udfff]")
"""What stands for a byte of the file that was no UTF-8."""


def password(base: Mapping[str, Any], target: Target) -> str | None:
    """Return the password of a target under a name that the user gave, for parameters without a password.

    None: there is none, libpq finds it by itself, or psycopg could not hand it on, because it is not UTF-8.
    """
    found = _find_password(base, target)
    return found if found is not None and not _UNDECODED.search(found) else None


def _find_password(base: Mapping[str, Any], target: Target) -> str | None:
    if isinstance(base, Parameters) and base.provider is not None:
        return None
    given = base.given if isinstance(base, Parameters) else ()
    names = [each.host for each in given if each.host and each.host[0] not in "/@"]
    if not names or target.host in names or _is_given_otherwise(base):
        return None
    with IMPORTING:
        import getpass  # noqa: PLC0415 - slow to import, and most passwords are given

    user = str(base.get("user") or os.environ.get("PGUSER") or getpass.getuser())
    database = str(base.get("dbname") or os.environ.get("PGDATABASE") or user)
    port = str(target.port or os.environ.get("PGPORT") or DEFAULT_PORT)
    entries = read(path_of(base))
    own = find(entries, target.host or "", port, database, user)
    if own is not None and own.host != ANY:
        return None
    found = (find(entries, each.host, str(each.port or port), database, user) for each in given if each.host)
    filed = [each for each in found if each is not None]
    naming = next((each.password for each in filed if each.host != ANY), None)
    if naming is not None or own is not None:  # without a line that names either, libpq finds its own
        return naming
    return filed[0].password if filed else None


def _is_given_otherwise(base: Mapping[str, Any]) -> bool:
    """Whether the password comes, or may come, from the environment or a service."""
    if os.environ.get("PGPASSWORD"):
        return True
    named = base.get("service") or os.environ.get("PGSERVICE")
    return bool(named) and not (isinstance(base, Parameters) and base.reads_service)


def path_of(base: Mapping[str, Any]) -> Path:
    """Where the file is: ``passfile=``, ``PGPASSFILE``, or ``~/.pgpass``."""
    named = base.get("passfile") or os.environ.get("PGPASSFILE")
    return Path(str(named)) if named else Path(os.environ.get("HOME") or "~").expanduser() / ".pgpass"


def read(path: Path) -> list[Entry]:
    """The entries of a file; none when it is not there, no plain file, or open to group or others."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) or mode & (stat.S_IRWXG | stat.S_IRWXO):
            return []
        return list(parse(path.read_text(encoding="utf-8", errors="surrogateescape")))
    except OSError:
        return []


def parse(text: str) -> Iterable[Entry]:
    r"""``host:port:database:user:password`` by line; ``#`` begins a comment, ``\:`` and ``\\`` stand for themselves."""
    for line in text.replace("\r\n", "\n").split("\n"):
        if line.startswith("#"):
            continue
        fields = [re.sub(r"\\(.)", r"\1", each) for each in _FIELD.findall(line)[:5]]
        if len(fields) == 5 and fields[4]:
            yield Entry(*fields)


def find(entries: Iterable[Entry], host: str, port: str, database: str, user: str) -> Entry | None:
    """The first entry that fits."""
    return next((each for each in entries if each.fits(host, port, database, user)), None)
