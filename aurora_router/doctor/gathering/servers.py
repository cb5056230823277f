"""Dialling servers, and asking what they say of themselves: nothing is changed there.

The one exception is the log position by which the outcome of a COMMIT can be found: whether it can be had is known only
by asking for it, in a transaction that is rolled back. That leaves a record of a few bytes in the log.
"""

from __future__ import annotations

import time
from math import ceil
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.doctor.facts import Commits, Failure, Server, Session, Topology, Wire
from aurora_router.doctor.gathering.wire import read_wire
from aurora_router.errors import AuroraRouterError
from aurora_router.flow import commit_sql
from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.flow.topology_query import PERMISSION_DENIED
from aurora_router.frozen import frozen
from aurora_router.policy.paths import is_direct
from aurora_router.runtime import sockets
from aurora_router.runtime.connect_args import opening
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.libpq import NO_LOGIN, dial_params, reported_standby
from aurora_router.runtime.libpq_runtimes import query
from aurora_router.runtime.sources import find_sources

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router.flow.runtime import Rows
    from aurora_router.flow.source import Source
    from aurora_router.model.observation import Topology as Answer
    from aurora_router.runtime.connect_args import ConnectArgs

ANSWER_SECONDS = 10.0
"""How long the answer to one question may take."""
SETTINGS = (
    "transaction_read_only", "default_transaction_read_only", "synchronous_commit", "idle_session_timeout",
    "statement_timeout", "log_hostname", "client_connection_check_interval",
)  # fmt: skip
_NUMBER = "pg_catalog.current_setting('{}', true)"
SELF = f"""
SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), pg_catalog.inet_client_port(),
  pg_catalog.host(pg_catalog.inet_server_addr()), pg_catalog.inet_server_port(),
  pg_catalog.date_part('epoch', pg_catalog.clock_timestamp())::pg_catalog.numeric,
  {_NUMBER.format("server_version_num")}, {_NUMBER.format("max_connections")},
  {_NUMBER.format("superuser_reserved_connections")}, {_NUMBER.format("reserved_connections")},
  (SELECT rolconnlimit FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user),
  (SELECT datconnlimit FROM pg_catalog.pg_database
    WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
  {", ".join(_NUMBER.format(name) for name in SETTINGS)}
"""  # noqa: S608 - constants
WRITTEN = "aurora_router_doctor"
SYSTEM = f"SELECT {commit_sql.SYSTEM}"
TABLE = f"SELECT pg_catalog.to_regclass('{commit_sql.TABLE}') IS NOT NULL"


@frozen
class Dialled:
    """A server, and what it reports of its cluster and of commits, if it was asked."""

    server: Server
    topology: Topology | None = None
    answer: Answer | None = None
    commits: Commits | None = None


def dial(args: ConnectArgs, target: Target, *, instance: str | None = None, asks: bool = False) -> Dialled:
    """Dial one address, and ask the server about itself.

    Args:
        args: of the connect that is examined.
        target: where, with one address, or with none for a local socket.
        instance: the id that is expected there.
        asks: whether it is also asked for its cluster.
    """
    address, port = (target.addresses or (None,))[0], target.port or 5432
    place: dict[str, Any] = {
        "name": target.name, "host": target.host, "port": port, "address": address, "instance": instance,
    }  # fmt: skip
    if address is not None:
        place["wire"], place["wire_text"], place["certificate"] = read_wire(target.host, address, port)
        if place["wire"] not in {Wire.PLAIN, Wire.TLS}:
            return Dialled(Server(**place))
        if place["wire"] is Wire.TLS and args.params.get("sslmode") != "verify-full":
            place["unverified"] = _try(args, target, {"sslmode": "verify-full"})
    try:
        connection, seconds = _open(args, target, {})
    except (psycopg.Error, AuroraRouterError, OSError) as failed:
        return Dialled(Server(**place, failure=_failure(failed)))
    with connection:
        try:
            return _ask(args, connection, {**place, "seconds": seconds}, asks=asks)
        except DialFailed as failed:
            return Dialled(Server(**place, failure=_failure(failed.cause), seconds=seconds))


def where_it_leads(args: ConnectArgs, target: Target) -> str | None:
    """Dial once more; returns the server's own address and port. None: it failed, or is a local socket."""
    try:
        with _open(args, target, {})[0] as connection:
            end = _read_self(connection, None)["end"]
    except (psycopg.Error, AuroraRouterError, OSError, DialFailed):
        return None
    return None if end is None else ":".join(map(str, end))


def _try(args: ConnectArgs, target: Target, more: Mapping[str, str]) -> Failure | None:
    """Why a connection with other parameters fails; None: it does not."""
    try:
        _open(args, target, more)[0].close()
    except (psycopg.Error, AuroraRouterError, OSError) as failed:
        return _failure(failed)
    return None


def _open(args: ConnectArgs, target: Target, more: Mapping[str, str]) -> Any:
    """A connection, and how long it took, without the time of a provider of credentials."""

    def open_(where: Target, seconds: float, login: Mapping[str, str] = NO_LOGIN) -> Any:
        chosen = {**dial_params(args.params, where, seconds, login), **more, "connect_timeout": max(2, ceil(seconds))}
        began = time.monotonic()
        return psycopg.connect("", autocommit=True, **chosen), time.monotonic() - began

    return opening(open_, args.params)(target, min(args.request.options.connect_timeout, ANSWER_SECONDS))


def _failure(error: BaseException) -> Failure:
    fault = fault_of(error)
    return Failure(getattr(error, "sqlstate", None) or fault.sqlstate, str(error).strip())


def _ask(args: ConnectArgs, connection: Any, place: dict[str, Any], *, asks: bool) -> Dialled:
    topology, answer = _ask_topology(args, connection, place["name"])
    session = Session(**_read_self(connection, topology.observer))
    commits = _ask_commits(args, connection, session) if not session.standby else None
    server = Server(**place, session=session)
    return Dialled(server, topology, answer, commits) if asks else Dialled(server, commits=commits)


def _read_self(connection: Any, observer: str | None) -> dict[str, Any]:
    pgconn = connection.pgconn
    began = time.time()
    found = query(pgconn, SELF, ANSWER_SECONDS)[0]
    now = (began + time.time()) / 2
    seen = (found[3], found[4], found[2])
    own, peer = sockets.ends_of(pgconn.socket)
    reserved = sum(int(each or 0) for each in found[8:10])
    return {
        "instance": observer,
        "standby": found[0] == "t",
        "end": None if found[3] is None else (found[3], int(found[4] or 0)),
        "pooled": int(found[1] or 0) != pgconn.backend_pid,
        "direct": peer is None or is_direct(seen, own, peer),
        "clock": float(found[5] or now) - now,
        "version": int(found[6] or 0),
        "connections": int(found[7] or 0) - reserved,
        "role_limit": _limit(found[10]),
        "database_limit": _limit(found[11]),
        "settings": {name: value for name, value in zip(SETTINGS, found[12:], strict=True) if value is not None},
        "system": _ask_optional(pgconn, SYSTEM),
        "reported_standby": reported_standby(pgconn),
        "write_refusal": _try_to_write(pgconn) if found[0] == "t" else None,
    }


def _try_to_write(pgconn: Any) -> str | None:
    """The SQLSTATE with which a standby refuses a temporary table, which would be rolled back."""
    refusal = None
    try:
        query(pgconn, f"BEGIN; CREATE TEMPORARY TABLE {WRITTEN} (); SELECT 1", ANSWER_SECONDS)
    except DialFailed as failed:
        refusal = failed.fault.sqlstate
    _ask_optional(pgconn, "ROLLBACK; SELECT 1")
    return refusal


def _limit(text: str | None) -> int | None:
    return None if text is None or int(text) < 0 else int(text)


def _ask_optional(pgconn: Any, sql: str) -> str | None:
    """The one value of an answer; None: the server refuses the question."""
    try:
        return query(pgconn, sql, ANSWER_SECONDS)[0][0]
    except DialFailed:
        return None


def _ask_topology(args: ConnectArgs, connection: Any, asked: str) -> tuple[Topology, Answer | None]:
    """Ask by all sources that are named, and those that are built in: what is there counts, not what was assumed."""
    refusal: Failure | None = None
    is_aurora, grant = False, ""
    sources: dict[str, Source] = {each.name: each for each in (*args.sources, *find_sources(("auto",)))}
    for each in sources.values():
        try:
            rows: Rows = query(connection.pgconn, each.sql, ANSWER_SECONDS)
        except DialFailed as failed:
            state = failed.fault.sqlstate
            if state not in each.absent:
                if refusal is None:
                    refusal, grant = Failure(state, failed.fault.text), each.grant
                is_aurora = is_aurora or (each.name == "aurora" and state == PERMISSION_DENIED)
            continue
        answer = each.read(rows, asked)
        is_aurora = is_aurora or each.name == "aurora"
        observer = answer.observer if each.complete else None
        topology = Topology(source=each.name, is_aurora=is_aurora, refusal=refusal, grant=grant, observer=observer)
        return topology, answer if each.complete else None
    return Topology(is_aurora=is_aurora, refusal=refusal, grant=grant), None


def _ask_commits(args: ConnectArgs, connection: Any, session: Session) -> Commits:
    pgconn, refusal = connection.pgconn, None
    try:
        query(pgconn, "BEGIN; " + commit_sql.log_mark(session.version), ANSWER_SECONDS)
    except DialFailed as failed:
        refusal = failed.fault.text
    _ask_optional(pgconn, "ROLLBACK; SELECT 1")
    return Commits(
        method=args.request.options.outcome,
        has_table=_ask_optional(pgconn, TABLE) == "t",
        may_use_table=_ask_optional(pgconn, commit_sql.PROBE) == "t",
        log_refusal=refusal,
    )
