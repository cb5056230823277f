"""Server settings of the instances, and how PostgreSQL's configuration files are written.

The instances are small (tens fit on a laptop) and give up the machine's crash safety, not the cluster's: their
data directories are never used again after the machine went down, so they need no fsync; what survives a crash
of an *instance* is what the volume holds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

SUPERUSER = "postgres"
USER = DATABASE = "app"
PASSWORD = "app"  # noqa: S105 - not a secret: the cluster listens on loopback and is for tests
IAM_ROLE, IAM_USER = "rds_iam", "app_iam"
"""Where the cluster has IAM, members of the role log in by token; the user is one."""
EXTENSIONS = "address_standardizer, aurora_stat_utils, hstore, pg_stat_statements, plpgsql, uuid-ossp"
RDS_EXTENSIONS = "address_standardizer, hstore, pg_stat_statements, plpgsql, rds_tools, uuid-ossp"
"""Those of an RDS Multi-AZ DB cluster, by which other drivers recognise it."""

COMMON: dict[str, str] = {
    # replication and recovery
    "wal_level": "replica",
    "hot_standby": "on",
    "hot_standby_feedback": "on",
    "recovery_target_timeline": "latest",
    "restart_after_crash": "off",  # a crashed writer in place would show commits that were never acknowledged
    "wal_log_hints": "on",  # pg_rewind needs it
    "wal_keep_size": "256MB",
    "wal_receiver_status_interval": "1s",
    "wal_receiver_create_temp_slot": "off",
    "wal_retrieve_retry_interval": "50ms",
    "wal_receiver_timeout": "10s",
    "wal_sender_timeout": "10s",
    "synchronous_commit": "on",
    # small and quick
    "fsync": "off",
    "full_page_writes": "on",
    "wal_recycle": "off",
    "wal_init_zero": "off",
    "min_wal_size": "32MB",
    "max_wal_size": "512MB",
    "shared_buffers": "32MB",
    "dynamic_shared_memory_type": "mmap",
    "huge_pages": "off",
    "jit": "off",
    "max_logical_replication_workers": "0",
    "autovacuum_max_workers": "1",
    "max_parallel_workers": "0",
    # a standby refuses to start where one of these is lower than in the log that it replays
    "max_connections": "500",
    "max_wal_senders": "24",
    "max_worker_processes": "2",
    "max_prepared_transactions": "32",
    "max_replication_slots": "8",
    # what users see
    "logging_collector": "off",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "rds.extensions": EXTENSIONS,
}

# The template records these in its control file; every instance has to have at least as much.
TEMPLATE: dict[str, str] = {
    **COMMON,
    "max_connections": "10",
    "max_wal_senders": "4",
    "max_worker_processes": "1",
    "max_prepared_transactions": "0",
}

_FILES = "the cluster writes the instance's files and knows where they are"
_ADDRESSES = "the cluster gives every instance an address and port of its own"
_LOG = "the cluster leads each reader to the log, and changes that in a failover"
_RECOVERY = "a failover, restore or backtrack decides where a recovery ends (cluster restore, cluster backtrack)"
OWNED: dict[str, str] = {
    "listen_addresses": f"{_ADDRESSES}; use --address",
    "port": f"{_ADDRESSES}; use --port",
    "unix_socket_directories": f"{_FILES}; use --directory",
    "cluster_name": "it is the name of the instance; use --name",
    "config_file": _FILES,
    "data_directory": f"{_FILES}; use --directory",
    "hba_file": _FILES,
    "ident_file": _FILES,
    "include": _FILES,
    "include_dir": _FILES,
    "include_if_exists": _FILES,
    "primary_conninfo": _LOG,
    "primary_slot_name": _LOG,
    "restore_command": _LOG,
    "promote_trigger_file": "the cluster promotes an instance itself (cluster failover)",
    "recovery_end_command": _RECOVERY,
    "recovery_target": _RECOVERY,
    "recovery_target_action": _RECOVERY,
    "recovery_target_inclusive": _RECOVERY,
    "recovery_target_lsn": _RECOVERY,
    "recovery_target_name": _RECOVERY,
    "recovery_target_time": _RECOVERY,
    "recovery_target_timeline": _RECOVERY,
    "recovery_target_xid": _RECOVERY,
    "hot_standby": "a reader without it takes no connections",
    "restart_after_crash": "a writer that restarts in place would show commits that were never acknowledged",
    "ssl": "the cluster makes the certificates; use --tls",
    "ssl_cert_file": "the cluster makes the certificates; use --tls",
    "ssl_key_file": "the cluster makes the certificates; use --tls",
}
"""Settings that the cluster writes and relies on -> why a user cannot set them, and what to use instead."""
OWNED_WHERE_COMMITS_WAIT = {
    "synchronous_standby_names": "by it commits wait for the write quorum of the storage, or for a standby; a commit "
    "that need not be durable uses SET synchronous_commit = off",
}
"""The same, where a commit is acknowledged once it is elsewhere, too."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)*")


def refusal(name: object, value: object, *, waits: bool) -> str | None:
    """Why a user cannot have a setting, as a sentence; None: it is one for PostgreSQL to judge.

    Args:
        name: the setting's; PostgreSQL does not mind its case.
        value: its value.
        waits: whether commits wait until they are elsewhere, too (flavours ``quorum`` and ``multi-az``).
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"{name!r} is not the name of a server setting; want NAME=VALUE, e.g. work_mem=8MB"
    if not isinstance(value, str):
        return f"the value of {name} is {value!r}, a {type(value).__name__}; settings are text, e.g. '8MB'"
    if any(character in value for character in "\n\r\0"):
        return f"the value of {name} has a line break or a null character: {value!r}; set each setting on its own"
    owned = {**OWNED, **OWNED_WHERE_COMMITS_WAIT} if waits else OWNED
    if (why := owned.get(name.lower())) is not None:
        return f"{name} cannot be set, it belongs to the cluster: {why}"
    if name.lower() == "wal_level" and value.strip().lower() not in {"replica", "logical"}:
        return f"wal_level={value!r}: readers need the log of 'replica' (the default) or 'logical'"
    return None


_SUPERUSER = f"""\
local all {SUPERUSER} trust
local replication {SUPERUSER} trust
"""
_OTHERS = """\
local all all scram-sha-256
host all all 127.0.0.0/8 scram-sha-256
host all all ::1/128 scram-sha-256
"""
ACCESS = _SUPERUSER + _OTHERS
BIND_PREFIX, BIND_INFIX = "uid=", ",cn="
"""How an instance names a user who logs in by token: prefix, user, infix, instance."""


def access_by_token(port: int, instance: str) -> str:
    """The ``pg_hba.conf`` of an instance where users with ``rds_iam`` log in by token, with TLS, and in no other way.

    Args:
        port: of the LDAP server that judges tokens.
        instance: the instance's name.
    """
    server = f"ldapserver=127.0.0.1 ldapport={port}"
    method = f'ldap {server} ldapprefix="{BIND_PREFIX}" ldapsuffix="{BIND_INFIX}{instance}"'
    rules = f"local all +{IAM_ROLE} reject\nhostssl all +{IAM_ROLE} all {method}\nhost all +{IAM_ROLE} all reject\n"
    return _SUPERUSER + rules + _OTHERS


def common(major: int) -> dict[str, str]:
    """The settings that all instances of PostgreSQL `major` share."""
    if major >= 18:
        return {**COMMON, "io_method": "sync"}  # the default starts three more processes per instance
    return dict(COMMON)


def render(settings: Mapping[str, str]) -> str:
    """Write `settings` as the text of a ``postgresql.conf``, every value quoted."""
    return "".join(f"{name} = {quote_value(value)}\n" for name, value in settings.items())


def quote_value(value: str) -> str:
    """Quote one value as PostgreSQL's configuration files want it (quotes and backslashes doubled).

    Raises:
        ValueError: the value has a line break, which such a file cannot hold.
    """
    if "\n" in value or "\r" in value:
        raise ValueError(f"a setting cannot contain a line break: {value!r}")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"
