"""Log sequence numbers: byte positions in the write-ahead log, as integers; PostgreSQL prints them as ``X/X``."""

from __future__ import annotations

PAGE = 8192
"""Bytes in one page of the log (``XLOG_BLCKSZ``)."""


def format_lsn(lsn: int) -> str:
    """Write a position as PostgreSQL does, e.g. ``0/16B3748``."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def parse_lsn(text: str) -> int:
    """Read a position written as ``X/X``.

    Raises:
        ValueError: `text` is not two hexadecimal numbers of at most 32 bits with a slash between.
    """
    high, slash, low = text.strip().partition("/")
    try:
        parts = int(high, 16), int(low, 16)
    except ValueError:
        slash = ""
        parts = (0, 0)
    if not slash or max(parts) > 0xFFFFFFFF or min(parts) < 0:
        raise ValueError(
            f"{text!r} is not a log position: two hexadecimal numbers with a slash are wanted, like 0/16B3748"
        )
    return parts[0] << 32 | parts[1]


def segment_start(lsn: int, segment_size: int) -> int:
    """The position at which the WAL segment file that holds `lsn` begins; `segment_size` in bytes."""
    return lsn - lsn % segment_size
