"""Whether clients have connected to a server that stands still: its kernel accepts them, and it hears nothing of it."""

from __future__ import annotations

import ipaddress
from pathlib import Path

TABLES = (Path("/proc/net/tcp"),)
ESTABLISHED = "01"


def can_be_seen() -> bool:
    """Whether this system shows its connections (Linux does)."""
    return all(table.exists() for table in TABLES)


def count(host: str, port: int) -> int:
    """How many clients are connected to an address, also those that the server has not accepted yet."""
    wanted = _format(host, port)
    lines = (line.split() for table in TABLES for line in table.read_text().splitlines()[1:])
    return sum(fields[1] == wanted and fields[3] == ESTABLISHED for fields in lines)


def _format(host: str, port: int) -> str:
    """An IPv4 address as the kernel shows it: the bytes of a word in the machine's order, in hexadecimal."""
    packed = ipaddress.IPv4Address(host).packed
    return f"{int.from_bytes(packed, 'little'):08X}:{port:04X}"
