"""The replication commands that the endpoint understands, as values (PostgreSQL documentation 55.4).

The grammar is small: words, quoted names, numbers and log positions. What the storage cannot do (slots, base backups,
SQL) is parsed into `Unsupported` with the reason, so that a client gets a useful error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from aurora_router_cluster.wire.errors import ProtocolError
from aurora_router_cluster.wire.replication import parse_lsn


@dataclass(frozen=True, slots=True)
class IdentifySystem:
    """IDENTIFY_SYSTEM."""


@dataclass(frozen=True, slots=True)
class TimelineHistory:
    """TIMELINE_HISTORY `timeline`."""

    timeline: int


@dataclass(frozen=True, slots=True)
class Show:
    """SHOW `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class StartReplication:
    """START_REPLICATION: stream from `lsn` on `timeline` (None: the current one)."""

    lsn: int
    timeline: int | None


@dataclass(frozen=True, slots=True)
class Unsupported:
    """A command that exists in PostgreSQL but not here.

    Attributes:
        command: its first word.
        hint: what to do instead.
    """

    command: str
    hint: str


Command = IdentifySystem | TimelineHistory | Show | StartReplication | Unsupported

_NO_SLOTS = (
    "the storage keeps log for its readers without slots: leave primary_slot_name empty and "
    "wal_receiver_create_temp_slot off, or run pg_receivewal without --slot"
)
_HINTS = {
    "CREATE_REPLICATION_SLOT": _NO_SLOTS,
    "READ_REPLICATION_SLOT": _NO_SLOTS,
    "DROP_REPLICATION_SLOT": _NO_SLOTS,
    "ALTER_REPLICATION_SLOT": _NO_SLOTS,
    "BASE_BACKUP": "take a base backup from an instance, or a snapshot from the cluster",
    "UPLOAD_MANIFEST": "take a base backup from an instance, or a snapshot from the cluster",
}
_WORD = re.compile(r'\s*("(?:[^"]|"")+"|[^\s";]+|;)')


def parse_command(text: str) -> Command:
    """Read one command of the simple query protocol.

    Raises:
        ProtocolError: a known command has wrong arguments.
    """
    words = _WORD.findall(text)
    if words and words[-1] == ";":
        words.pop()
    name = words[0].upper() if words else ""
    arguments = words[1:]
    if name == "IDENTIFY_SYSTEM" and not arguments:
        return IdentifySystem()
    if name == "TIMELINE_HISTORY":
        return TimelineHistory(_timeline(arguments[-1] if len(arguments) == 1 else ""))
    if name == "SHOW" and len(arguments) == 1:
        return Show(arguments[0].strip('"').lower())
    if name == "START_REPLICATION":
        return _start(arguments)
    hint = "this port serves the log to standbys and pg_receivewal; connect to an instance for SQL"
    return Unsupported(name or "an empty query", _HINTS.get(name, hint))


def _start(arguments: list[str]) -> Command:
    upper = [word.upper() for word in arguments]
    if upper[:1] == ["SLOT"]:
        return Unsupported("START_REPLICATION SLOT", _NO_SLOTS)
    if "LOGICAL" in upper:
        return Unsupported("START_REPLICATION LOGICAL", "logical decoding needs an instance, not the storage")
    if upper[:1] == ["PHYSICAL"]:
        arguments, upper = arguments[1:], upper[1:]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and upper[1] != "TIMELINE"):
        raise ProtocolError("START_REPLICATION takes [PHYSICAL] XXX/XXX [TIMELINE number]")
    return StartReplication(parse_lsn(arguments[0]), _timeline(arguments[2]) if len(arguments) == 3 else None)


def _timeline(word: str) -> int:
    if not word.isdecimal() or not 1 <= int(word) < 1 << 32:
        raise ProtocolError(f"{word!r} is not a timeline id, which is a number from 1")
    return int(word)
