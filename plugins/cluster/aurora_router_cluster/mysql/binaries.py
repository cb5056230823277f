"""Finding MariaDB's programs."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import BinariesError

if TYPE_CHECKING:
    from aurora_router_cluster.postgres.account import Account

PLACES = ("/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/libexec")
INSTALL = "apt-get install mariadb-server mariadb-backup"


@dataclass(frozen=True, slots=True)
class Binaries:
    """MariaDB's programs.

    Attributes:
        server: the server.
        install: makes a data directory.
        backup: copies a running server.
        version: e.g. ``10.11.6-MariaDB``.
    """

    server: Path
    install: Path
    backup: Path
    version: str


def find(account: Account, explicit: str | None = None) -> Binaries:
    """Find the programs in a directory, or in the usual places.

    Raises:
        BinariesError: one is missing, or the server is not MariaDB 10.5 or later.
    """
    server = _find("mariadbd", explicit)
    answer = account.run([server, "--no-defaults", "--version"]).stdout
    found = re.search(r"Ver (?P<version>(?P<major>\d+)\.(?P<minor>\d+)\S*)", answer)
    if found is None or "MariaDB" not in answer:
        raise BinariesError(f"{server} is not MariaDB's server ({answer.strip()[:100]!r}); {INSTALL}")
    if (int(found["major"]), int(found["minor"])) < (10, 5):
        raise BinariesError(f"{server} is MariaDB {found['version']}, and 10.5 or later is needed; {INSTALL}")
    version = found["version"].partition("-MariaDB")[0]
    return Binaries(server, _find("mariadb-install-db", explicit), _find("mariabackup", explicit), f"{version}-MariaDB")


def _find(program: str, explicit: str | None) -> Path:
    places = (explicit, str(Path(explicit).parent / "bin")) if explicit is not None else PLACES
    path = shutil.which(program, path=":".join(places)) or (None if explicit else shutil.which(program))
    if path is None:
        where = f"in {explicit}" if explicit is not None else "on this machine"
        raise BinariesError(f"there is no {program} {where}, which the engine mysql needs; {INSTALL}")
    return Path(path)
