"""What was given, and what libpq would add to it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from aurora_router._version import __version__
from aurora_router.doctor.facts import Application, Setup, Versions
from aurora_router.errors import AuroraRouterError, redact
from aurora_router.policy.conninfo import split_conninfo
from aurora_router.policy.engine_url import is_engine_url, read_engine_url
from aurora_router.runtime.connect_args import ConnectArgs, read_connect_args

if TYPE_CHECKING:
    from collections.abc import Mapping

SECRETS = frozenset({"password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"})
VARIABLES = (
    "PGHOST", "PGHOSTADDR", "PGPORT", "PGDATABASE", "PGUSER", "PGSSLMODE", "PGSSLROOTCERT", "PGTARGETSESSIONATTRS",
    "PGCONNECT_TIMEOUT", "PGOPTIONS", "PGSERVICE", "PGLOADBALANCEHOSTS",
)  # fmt: skip
"""Variables of libpq that change where a connection goes, or how."""
_SILENCE_LIMITS = ("tcp_user_timeout", "keepalives_idle", "keepalives_interval")


def read_setup(conninfo: str, application: Application) -> tuple[Setup, ConnectArgs | None]:
    """Return what was given, without passwords, and how the driver reads it; None: it refuses it."""
    environment = {name: os.environ[name] for name in VARIABLES if os.environ.get(name)}
    versions = Versions(driver=__version__, psycopg=psycopg.__version__, libpq=psycopg.pq.version())
    known: dict[str, Any] = {"environment": environment, "application": application, "versions": versions}
    try:
        args = read_connect_args(conninfo, {})
        given = _parse(conninfo)
    except (AuroraRouterError, psycopg.Error) as refused:
        return Setup(refusal=str(refused), **known), None
    shown = {name: redact(value).strip("'") for name, value in given.items() if name not in SECRETS}
    roots = args.params.get("sslrootcert") or os.environ.get("PGSSLROOTCERT")
    has_password = bool(given.get("password") or os.environ.get("PGPASSWORD") or args.params.provider)
    known |= {
        "request": args.request,
        "roots": roots,
        "has_roots": roots in {None, "system"} or Path(str(roots)).expanduser().is_file(),
        "exposed_passfile": None if has_password else _exposed_passfile(given),
        "tcp_limited": any(given.get(each) not in {None, "0"} for each in _SILENCE_LIMITS),
    }
    return Setup(given=shown, **known), args


def _parse(conninfo: str) -> dict[str, str]:
    if is_engine_url(conninfo):
        return {name: str(value) for name, value in read_engine_url(conninfo).items()}
    ours, rest = split_conninfo(conninfo)
    return {**ours, **{name: str(value) for name, value in conninfo_to_dict(rest).items()}}


def _exposed_passfile(given: Mapping[str, str]) -> str | None:
    """The password file, if libpq ignores it because its group or others may read it."""
    named = given.get("passfile") or os.environ.get("PGPASSFILE")
    path = Path(named) if named else Path.home() / ".pgpass"
    try:
        mode = path.stat().st_mode
    except OSError:
        return None
    return str(path) if stat.S_ISREG(mode) and mode & (stat.S_IRWXG | stat.S_IRWXO) else None
