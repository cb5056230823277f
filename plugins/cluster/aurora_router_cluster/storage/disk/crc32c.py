"""CRC-32C (Castagnoli), as PostgreSQL uses it for its control file; table-driven (RFC 3720, appendix B.4)."""

from __future__ import annotations

from typing import Final

_POLYNOMIAL: Final = 0x82F63B78  # reversed


def _table() -> tuple[int, ...]:
    entries = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        entries.append(crc)
    return tuple(entries)


_TABLE: Final = _table()


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """The checksum of `data`; pass the checksum of what precedes it as `crc` to go on from there."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
