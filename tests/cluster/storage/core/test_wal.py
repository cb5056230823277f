"""The scanner against logs built by hand, and against what PostgreSQL's own pg_waldump says of a real one."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurora_router_cluster.lsn import PAGE, format_lsn, parse_lsn, segment_start
from aurora_router_cluster.postgres.engine import State
from aurora_router_cluster.storage.core.blocks import block_refs
from aurora_router_cluster.storage.core.errors import CorruptLog
from aurora_router_cluster.storage.core.wal import MAGIC_VERSIONS, Scanner

SEGMENT = 8 * PAGE


class Log:
    """Builds a log: `records` holds (start, aligned end) of each."""

    def __init__(self, start: int = SEGMENT, magic: int = 0xD118) -> None:
        self.start, self.magic = start, magic
        self.data = bytearray()
        self.records: list[tuple[int, int]] = []
        self.boundaries: list[int] = []

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def header(self, remaining: int) -> None:
        if self.end % PAGE:
            return
        long = self.end % SEGMENT == 0
        info = (1 if remaining else 0) | (2 if long else 0)
        self.data += struct.pack("<HHIQI4x", self.magic, info, 1, self.end, remaining)
        if long:
            self.data += struct.pack("<QII", 42, SEGMENT, PAGE)

    def record(self, length: int, *, switch: bool = False) -> None:
        self.header(0)
        start = self.end
        head = struct.pack("<IIQBBxxI", length, 0, 0, 0x40 if switch else 0, 0, 0)
        left = head + b"\xab" * (length - 24) + bytes(-length % 8)
        body = length
        while left:
            self.header(body)
            room = PAGE - self.end % PAGE
            part, left = left[:room], left[room:]
            self.data += part
            body -= len(part)
        if switch:
            while self.end % SEGMENT:
                self.data += bytes(min(PAGE - self.end % PAGE, SEGMENT - self.end % SEGMENT))
        self.records.append((start, self.end))
        self.boundaries.append(self.end)


lengths = st.lists(st.one_of(st.integers(24, 200), st.integers(7000, 20000)), min_size=1, max_size=12)


@given(lengths, st.lists(st.integers(1, 9000), min_size=1, max_size=40), st.sampled_from(sorted(MAGIC_VERSIONS)))
@settings(deadline=None)
def test_any_pieces_give_the_same_records(records, sizes, magic):
    log = Log(magic=magic)
    for length in records:
        log.record(length)
    seen: list[tuple[int, int, int]] = []
    scanner = Scanner(log.start, SEGMENT, lambda start, end, record: seen.append((start, end, len(record))))
    position = 0
    for size in [*sizes, len(log.data)]:
        boundary = scanner.feed(bytes(log.data[position : position + size]))
        position = min(position + size, len(log.data))
        passed = [end for end in log.boundaries if end <= log.start + position]
        assert boundary == (passed[-1] if passed else log.start)
    assert [(start, end) for start, end, _ in seen] == log.records
    assert [length for _, _, length in seen] == records
    assert scanner.magic == magic


def test_after_a_switch_the_boundary_is_the_end_of_the_segment_and_nothing_before():
    log = Log()
    log.record(100)
    log.record(24, switch=True)
    log.record(50)
    scanner = Scanner(log.start, SEGMENT)
    assert scanner.feed(bytes(log.data[: PAGE + 100])) == log.boundaries[0]
    assert scanner.feed(bytes(log.data[PAGE + 100 : SEGMENT])) == 2 * SEGMENT
    assert scanner.feed(bytes(log.data[SEGMENT:])) == log.boundaries[2]


@given(lengths)
@settings(deadline=None)
def test_a_stream_may_begin_on_a_page_that_continues_a_record(records):
    log = Log()
    log.record(3 * PAGE)
    for length in records:
        log.record(length)
    for page in range(log.start + PAGE, log.end, PAGE):
        if all(start < page for start, _ in log.records):
            break
        scanner = Scanner(page, SEGMENT)
        scanner.feed(bytes(log.data[page - log.start :]))
        assert scanner.boundary == log.boundaries[-1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data.__setitem__(slice(0, 2), b"\0\0"), "magic"),
        (lambda data: data.__setitem__(slice(8, 10), b"\1\1"), "address"),
        (lambda data: data.__setitem__(slice(40, 44), struct.pack("<I", 5)), "5 bytes"),
    ],
)
def test_what_is_no_log_is_refused(damage, message):
    log = Log()
    log.record(100)
    damage(log.data)
    with pytest.raises(CorruptLog, match=message):
        Scanner(log.start, SEGMENT).feed(bytes(log.data))


def test_positions_are_read_and_written_as_postgresql_does():
    assert format_lsn(parse_lsn("1/16B3748")) == "1/16B3748"
    assert segment_start(SEGMENT + 5, SEGMENT) == SEGMENT
    for wrong in ("", "12", "x/1", "1/1FFFFFFFFF", "-1/0"):
        with pytest.raises(ValueError, match="position"):
            parse_lsn(wrong)


def test_damaged_block_references_are_an_error_and_no_guess():
    with pytest.raises(CorruptLog, match="unknown kind 77"):
        block_refs(bytes(24) + bytes([77, 0, 0, 0, 0]))
    with pytest.raises(CorruptLog, match="leave"):
        block_refs(bytes(24) + bytes([0, 0, 0]))


@pytest.mark.cluster
async def test_a_real_log_is_read_as_pg_waldump_reads_it(make_engine, template, account, binaries):
    engine = make_engine()
    await engine.clone(template)
    engine.configure({"wal_compression": binaries.wal_compression(), "autovacuum": "off"}, standby=False)
    engine.start()
    await engine.wait(State.READY)
    statements = (
        "create table t(i int primary key, x text)",
        "insert into t select i, repeat('x', i) from generate_series(1, 900) i",
        "select pg_logical_emit_message(true, 'big', repeat('y', 50000))",
        "select pg_switch_wal()",
        "update t set x = x || 'z' where i % 3 = 0",
        "checkpoint",
        "delete from t where i < 50",
        "vacuum t",
        "select pg_switch_wal()",
    )
    psql = [binaries.program("psql"), "-X", "-q", "-h", engine.home, "-p", engine.port, "-U", "postgres", "postgres"]
    for statement in statements:
        result = account.run([*psql, "-c", statement])
        assert result.returncode == 0, result.stdout
    await engine.stop()
    segments = sorted(path for path in (engine.data / "pg_wal").iterdir() if re.fullmatch("[0-9A-F]{24}", path.name))
    data = b"".join(path.read_bytes() for path in segments)
    size = segments[0].stat().st_size
    start = int(segments[0].name[8:16], 16) * (1 << 32) + int(segments[0].name[16:], 16) * size
    dump = account.run([binaries.program("pg_waldump"), "-b", segments[0], segments[-1]]).stdout
    expected = [parse_lsn(found) for found in re.findall(r"lsn: ([0-9A-F]+/[0-9A-F]+)", dump)]
    references = [int(found) for found in re.findall(r"blkref #\d+: .*?blk (\d+)", dump)]
    seen: list[int] = []
    blocks: list[int] = []

    def sink(begin: int, _end: int, record: bytes) -> None:
        if len(seen) < len(expected):
            seen.append(begin)
            blocks.extend(ref.block for ref in block_refs(record, binaries.major))

    scanner = Scanner(start, size, sink)
    try:
        for position in range(0, len(data), 5000):
            scanner.feed(data[position : position + 5000])
    except CorruptLog:
        pass  # the last segment is not full
    assert seen == expected
    assert blocks == references
    assert len(references) > 100
