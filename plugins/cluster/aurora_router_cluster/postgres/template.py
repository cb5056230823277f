"""The template: a data directory made once per PostgreSQL build, of which every new cluster is a copy.

It holds the SQL surface in all databases (``template0`` too, so that any database created later has it), the
role and database ``app``, and only that write-ahead log segment that its last checkpoint needs: a log of the
cluster begins with this segment. All copies have one system identifier.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import TYPE_CHECKING

from aurora_router_cluster import limits
from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres import cache, settings
from aurora_router_cluster.postgres.surfaces import AURORA

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aurora_router_cluster.postgres.account import Account
    from aurora_router_cluster.postgres.binaries import Binaries

SEGMENT_MB = 1  # write-ahead log segment size: small copies, quick archive


def ensure(binaries: Binaries, account: Account, surface: str = AURORA) -> Path:
    """Return the template's data directory for `binaries`, built first where it is not cached (about 2 s).

    Blocking; two processes at once build it once.

    Args:
        binaries: which PostgreSQL.
        account: the user that it runs as.
        surface: the SQL surface in it.

    Raises:
        EngineError: PostgreSQL's programs failed; the message has their output.
    """
    root = cache.directory(account) / "templates"
    target = root / f"{binaries.fingerprint}-{_schema_version(surface)}-{account.uid}"

    def build(staging: Path) -> None:
        cache.prune(root)
        _build(staging, binaries, account, surface)

    return cache.build_once(target, build) / "data"


def _schema_version(surface: str) -> str:
    """Changes whenever the SQL baked in or a setting of the template does."""
    parts = [_surface(surface), _sql("accounts"), settings.render(settings.TEMPLATE), settings.ACCESS, str(SEGMENT_MB)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _surface(name: str) -> str:
    return f"{_sql(name)}\n{_sql('settings')}"


def _sql(name: str) -> str:
    return (
        resources.files("aurora_router_cluster.postgres")
        .joinpath("sql")
        .joinpath(f"{name}.sql")
        .read_text(encoding="utf-8")
    )


def _build(staging: Path, binaries: Binaries, account: Account, surface: str) -> None:
    account.own(staging)
    data = staging / "data"
    options: list[str | Path] = [
        "--auth=trust",
        f"--username={settings.SUPERUSER}",
        "--no-sync",
        f"--wal-segsize={SEGMENT_MB}",
    ]
    encoding = ["--no-locale", "--encoding=UTF8", "--no-instructions"]
    _run(account, [binaries.program("initdb"), "--pgdata", data, *options, *encoding])
    account.write(data / "postgresql.conf", settings.render(settings.TEMPLATE))
    account.write(data / "pg_hba.conf", settings.ACCESS)
    for database in ("template1", "template0", settings.SUPERUSER):
        single_user(binaries, account, data, _surface(surface), database)
    single_user(binaries, account, data, _sql("accounts"))
    keep_redo_segment(binaries, account, data)
    _run(account, [binaries.program("initdb"), "--sync-only", "--pgdata", data])


def single_user(binaries: Binaries, account: Account, data: Path, sql: str, database: str = settings.SUPERUSER) -> None:
    """Run `sql` in a data directory that no server uses.

    Raises:
        EngineError: it failed; the message has what PostgreSQL printed.
    """
    options = ["--single", "-F", "-j", "-c", "exit_on_error=true", "-c", "allow_system_table_mods=on"]
    command: list[str | Path] = [binaries.program("postgres"), *options, "-D", data, database]
    _run(account, command, text_input=f"{sql}\n")


def _run(account: Account, command: Sequence[str | Path], text_input: str | None = None) -> None:
    result = account.run(command, text_input=text_input)
    if result.returncode != 0 or "ERROR:" in result.stdout:
        why = limits.explain_status(result.returncode, result.stdout[-2000:])
        raise EngineError(f"building the template failed: {' '.join(map(str, command))}\n{why}")


def control_data(binaries: Binaries, account: Account, data: Path) -> dict[str, str]:
    """What ``pg_controldata`` prints about the data directory `data`: label -> value, as printed.

    Raises:
        EngineError: `data` is not a data directory.
    """
    result = account.run([binaries.program("pg_controldata"), data])
    if result.returncode != 0:
        why = limits.explain_status(result.returncode, result.stdout.strip())
        raise EngineError(f"pg_controldata fails on {data}: {why}")
    pairs = (line.partition(":") for line in result.stdout.splitlines() if ":" in line)
    return {label.strip(): value.strip() for label, _, value in pairs}


def keep_redo_segment(binaries: Binaries, account: Account, data: Path) -> None:
    """Delete every log segment of a cleanly stopped data directory but the one that recovery starts in."""
    redo = control_data(binaries, account, data)["Latest checkpoint's REDO WAL file"]
    for segment in (data / "pg_wal").iterdir():
        if len(segment.name) == 24 and segment.name != redo:
            segment.unlink()
