"""Which blocks of which relations a log record touches.

A record's 24-byte header is followed by the headers of its block references and of its main data, then by the data
themselves (PostgreSQL source: ``access/xlogrecord.h``). Only the headers are read here.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from aurora_router_cluster.storage.core.errors import CorruptLog

_RELATION = struct.Struct("<III")
_U16 = struct.Struct("<H")
_U32 = struct.Struct("<I")

_MAX_BLOCK_ID = 32
_TOP_XID, _ORIGIN, _DATA_LONG, _DATA_SHORT = 252, 253, 254, 255
_HAS_IMAGE, _SAME_RELATION = 0x10, 0x80
_HAS_HOLE = 0x01
_RECORD_HEADER = 24


class BlockRef(NamedTuple):
    """One block: tablespace, database, relation file number, fork, block number."""

    tablespace: int
    database: int
    relation: int
    fork: int
    block: int


def block_refs(record: bytes, version: int = 18) -> list[BlockRef]:
    """The blocks that `record` (without page headers) refers to, in its own order.

    Args:
        record: a whole record, its header included.
        version: major version of PostgreSQL that wrote it; 14 marks compressed page images by another bit.

    Raises:
        CorruptLog: a block id that no version knows, or headers that leave the record.
    """
    try:
        return _parse(record, 0x02 if version < 15 else 0x1C)
    except (IndexError, struct.error):
        raise CorruptLog(f"the block references of a record of {len(record)} bytes leave the record") from None


def _parse(record: bytes, compressed: int) -> list[BlockRef]:
    refs: list[BlockRef] = []
    relation: tuple[int, int, int] = (0, 0, 0)
    i, data = _RECORD_HEADER, 0
    while len(record) - i > data:
        kind = record[i]
        if kind <= _MAX_BLOCK_ID:
            flags = record[i + 1]
            data += _U16.unpack_from(record, i + 2)[0]
            i += 4
            if flags & _HAS_IMAGE:
                data += _U16.unpack_from(record, i)[0]
                info = record[i + 4]
                i += 7 if info & _HAS_HOLE and info & compressed else 5
            if not flags & _SAME_RELATION:
                tablespace, database, number = _RELATION.unpack_from(record, i)
                relation = (tablespace, database, number)
                i += _RELATION.size
            refs.append(BlockRef(*relation, flags & 0x0F, _U32.unpack_from(record, i)[0]))
            i += 4
        elif kind == _DATA_SHORT:
            data += record[i + 1]
            i += 2
        elif kind == _DATA_LONG:
            data += _U32.unpack_from(record, i + 1)[0]
            i += 5
        elif kind in {_ORIGIN, _TOP_XID}:
            i += 3 if kind == _ORIGIN else 5
        else:
            raise CorruptLog(f"a record has a block reference of the unknown kind {kind}")
    return refs
