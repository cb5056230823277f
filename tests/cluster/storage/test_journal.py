"""What a node keeps of its promises and of acknowledged log when bytes of its journal rot or were never written."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurora_router_cluster.storage.core.branches import Branch, Line
from aurora_router_cluster.storage.core.errors import CorruptLog, NodeUnavailable
from aurora_router_cluster.storage.core.extents import Extent, Span
from aurora_router_cluster.storage.core.history import EpochStart, History
from aurora_router_cluster.storage.core.quorum import Membership
from aurora_router_cluster.storage.core.replica import Charter
from aurora_router_cluster.storage.core.scrub import Loss
from aurora_router_cluster.storage.disk.frames import Frame as DiskFrame
from aurora_router_cluster.storage.disk.frames import scan
from aurora_router_cluster.storage.journal import DiskJournal
from aurora_router_cluster.storage.node import StorageNode
from aurora_router_cluster.storage.protocols import LOG, METADATA, Frame

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.storage.disk.frames import Header

CHARTER = Charter(History((EpochStart(1, 1000),)), Membership.of(range(6)))
COLLECTED = replace(CHARTER, revision=1, floor=1200, collected=1200)


class Sink:
    def __init__(self) -> None:
        self.acks: list[int] = []
        self.refusals: list[int] = []

    def on_ack(self, node: int, group: int, scl: int) -> None:
        self.acks.append(scl)

    def on_refusal(self, node: int, promised: int) -> None:
        self.refusals.append(promised)


async def until(condition: Callable[[], Any]) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.001)


async def with_acknowledged(directory: Path, *, promise: bool) -> bytes:
    """A node that has acknowledged log, and perhaps has promised epoch 2 since; the bytes of its file."""
    node, sink = StorageNode(0, DiskJournal(directory, sync=False)), Sink()
    await node.format(CHARTER)
    node.append(1, 1000, Extent(0, 1000, 1000, b"x" * 100), sink)
    await until(lambda: sink.acks)
    if promise:
        await node.promise(2)
    await node.close()
    return the_file(directory).read_bytes()


def the_file(directory: Path) -> Path:
    (file,) = directory.glob("*.frames")
    return file


@pytest.mark.case
async def test_no_rotten_byte_makes_a_node_forget_its_promise(tmp_path: Path) -> None:
    whole = await with_acknowledged(tmp_path, promise=True)
    for at in range(0, len(whole), 7):
        rotten = bytearray(whole)
        rotten[at] ^= 0xFF
        the_file(tmp_path).write_bytes(rotten)
        node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
        assert node.replica.promised == 2
        node.append(1, 1000, Extent(0, 1100, 1100, b"y" * 10), sink)
        assert (sink.acks, sink.refusals) == ([], [2])
        damaged, _ = await node.find_damage()
        assert damaged == 1, f"byte {at}"
        await node.close()


@pytest.mark.case
async def test_acknowledged_log_that_rots_in_the_last_frame_is_found_and_never_taken_for_torn(tmp_path: Path) -> None:
    whole = await with_acknowledged(tmp_path, promise=False)
    log = next(e.header for e in scan(whole, 1 << 32) if isinstance(e, DiskFrame) and e.header.kind == LOG)
    offset = log.position & 0xFFFFFFFF
    for killed in (False, True):  # killed at once: nothing marks the end of what was acknowledged
        data = whole[: offset + (log.end - log.position)] if killed else whole
        for at in range(offset, offset + (log.end - log.position), 5):
            rotten = bytearray(data)
            rotten[at] ^= 0xFF
            the_file(tmp_path).write_bytes(rotten)
            node = StorageNode(0, DiskJournal(tmp_path, sync=False))
            assert node.replica.state().scl(0) == 1000
            damaged, _ = await node.find_damage()
            assert damaged == 1, f"byte {at}"
            await node.close()


@pytest.mark.case
async def test_a_batch_of_which_only_the_later_sectors_were_written_is_torn(tmp_path: Path) -> None:
    before = len(await with_acknowledged(tmp_path, promise=False))
    node = StorageNode(0, DiskJournal(tmp_path, sync=False))
    promising = asyncio.ensure_future(node.promise(2))
    await asyncio.sleep(0)
    done: list[int | OSError] = []
    node._journal.append(Frame(LOG, 1, 1000, 0, 1100, 1100, b"z" * 8000), done.append)
    await until(lambda: node._journal._log.durable > before)  # type: ignore[attr-defined]
    batch = the_file(tmp_path).read_bytes()[: before + 8000]  # the power is lost before its sync has ended
    await promising
    await node.close()
    sector = before - before % 512 + 512
    for lost in ([(before, sector)], [(before, sector), (sector + 512, sector + 1024)], [(sector, sector + 512)]):
        torn = bytearray(batch)
        for a, b in lost:
            torn[a:b] = bytes(b - a)
        the_file(tmp_path).write_bytes(torn)
        again = StorageNode(0, DiskJournal(tmp_path, sync=False))
        assert again.replica.state().scl(0) == 1100
        assert again.replica.promised in {1, 2}  # it was never acknowledged
        assert await again.find_damage() == (0, [])
        await again.close()


async def test_a_directory_that_is_away_is_no_damage(tmp_path: Path) -> None:
    """A disk that was unmounted under a cluster: peers have nothing to refill, and must not be asked to."""
    node = StorageNode(0, DiskJournal(tmp_path / "node"))
    await node.format(CHARTER)
    (tmp_path / "node").rename(tmp_path / "away")
    with pytest.raises(NodeUnavailable, match=r"the journal cannot be read now: .*No such file or directory"):
        await node.find_damage()
    (tmp_path / "away").rename(tmp_path / "node")
    assert await node.find_damage() == (0, [])
    await node.close()


async def test_damage_that_was_refilled_is_found_no_more(tmp_path: Path) -> None:
    whole = await with_acknowledged(tmp_path, promise=True)
    frames = [entry.header for entry in scan(whole, 1 << 32) if isinstance(entry, DiskFrame)]
    for header in frames:
        rotten = bytearray(whole)
        rotten[(header.position & 0xFFFFFFFF) + 9] ^= 1
        the_file(tmp_path).write_bytes(rotten)
        node = StorageNode(0, DiskJournal(tmp_path, sync=False))
        assert (await node.find_damage())[0] == 1
        await node.rewrite_metadata()
        await node.retire_damage()
        assert (await node.find_damage())[0] == 0
        await node.close()
        again = StorageNode(0, DiskJournal(tmp_path, sync=False))
        assert again.replica.promised == 2
        assert (await again.find_damage())[0] == 0
        await again.close()


async def play(directory: Path, kinds: list[list[int]]) -> int:
    """Journal batches of frames; the number of the last metadata that were acknowledged."""
    journal = DiskJournal(directory, sync=False)
    list(journal.replay())
    acknowledged = made = 0
    for batch in kinds:
        waiting = len(batch)

        def done(number: int, place: int | OSError) -> None:
            nonlocal waiting, acknowledged
            waiting -= 1
            assert isinstance(place, int)
            acknowledged = max(acknowledged, number)

        for kind in batch:
            made += kind == METADATA
            data = b"%d" % made + b"." * 130 if kind == METADATA else b"log" * 20
            number = made if kind == METADATA else 0
            journal.append(Frame(kind, 1, 0, 0, 0, 0, data), lambda place, number=number: done(number, place))  # type: ignore[misc]
        await until(lambda: not waiting)  # noqa: B023
    await journal.close()
    return acknowledged


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([LOG, METADATA]), min_size=1, max_size=3), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255), st.sampled_from([1, 1, 40, 400])), max_size=4),
)
@example(kinds=[[1, 2], [1, 2]], damages=[(196, 1, 1), (2950, 1, 1), (12337, 1, 1)])
@example(kinds=[[1, 1, 1], [1, 2, 2], [2, 2, 2], [1, 1]], damages=[(184034, 1, 400), (394242, 1, 1)])
def test_a_node_that_may_have_forgotten_a_promise_does_not_start(
    kinds: list[list[int]], damages: list[tuple[int, int, int]]
) -> None:
    async def check() -> None:
        with tempfile.TemporaryDirectory() as name:
            directory = Path(name)
            acknowledged = await play(directory, kinds)
            data = bytearray(the_file(directory).read_bytes())
            for at, mask, length in damages:
                for i in range(at % len(data), min(len(data), at % len(data) + length)):
                    data[i] ^= mask
            the_file(directory).write_bytes(data)
            journal = DiskJournal(directory, sync=False)
            try:
                found = [frame for frame, _ in journal.replay() if frame.kind == METADATA]
                assert max((int(frame.data.split(b".")[0]) for frame in found), default=0) >= acknowledged
                assert [frame.prev for frame in found] == sorted({frame.prev for frame in found})
            except CorruptLog:
                # A run of damage may reach from the one copy of the metadata into the other.
                assert len(damages) > 1 or any(length > 1 for *_, length in damages), "one byte is no reason"
            finally:
                await journal.close()

    asyncio.run(check())


async def test_running_out_of_descriptors_loses_nothing(tmp_path: Path) -> None:
    node, sink = StorageNode(0, DiskJournal(tmp_path, file_size=20_000)), Sink()
    await node.format(CHARTER)
    held: list[int] = []
    try:
        node.append(1, 1000, Extent(0, 1000, 1000, b"x" * 15_000), sink)
        await until(lambda: sink.acks == [16_000])
        while True:
            held.append(os.open(os.devnull, os.O_RDONLY))
            if len(held) > 100_000:
                pytest.skip("so many descriptors are allowed here that they cannot be used up")
    except OSError:
        node.append(1, 1000, Extent(0, 16_000, 16_000, b"y" * 15_000), sink)  # needs another file
        await asyncio.sleep(0.05)
        assert sink.acks == [16_000]
        assert "Too many open files" in (node.failure or "")
        with pytest.raises(NodeUnavailable, match="Too many open files"):
            await node.state()
    finally:
        for descriptor in held:
            os.close(descriptor)
    await until(lambda: sink.acks == [16_000, 31_000])
    assert node.failure is None
    assert node.read(1, 1000, 20_000)[:3] == b"xxx"
    await node.close()


async def test_files_that_are_open_do_not_grow_with_the_log(tmp_path: Path) -> None:
    def opened() -> int:
        return sum(
            os.path.realpath(link).startswith(str(tmp_path)) for link in Path(f"/proc/{os.getpid()}/fd").iterdir()
        )

    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=5000)), Sink()
    await node.format(CHARTER)
    for number in range(100):
        start = 1000 + number * 4000
        node.append(1, 1000, Extent(0, start, start, b"%4d" % number * 1000), sink)
    await until(lambda: sink.acks and sink.acks[-1] == 401_000)
    assert node._journal._log.end >> 32 > 90  # type: ignore[attr-defined]
    for number in range(100):
        assert node.read(1, 1000 + number * 4000, 4) == b"%4d" % number
    await node.find_damage()
    assert 0 < opened() <= 6
    await node.close()
    assert opened() == 0


async def test_log_is_not_acknowledged_by_garbage_that_only_later_metadata_tell_of(tmp_path: Path) -> None:
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
    await node.format(CHARTER)
    adopting = asyncio.ensure_future(node.adopt(1, COLLECTED))
    node.append(1, 1000, Extent(0, 1000, 1000, b"x" * 100), sink)  # queued before the charter
    assert (await adopting).scl(0) == 1200
    assert sink.acks == [1100]
    await node.close()


async def test_a_state_that_was_told_survives_a_crash(tmp_path: Path) -> None:
    node = StorageNode(0, DiskJournal(tmp_path / "node", sync=False))
    await node.format(CHARTER)
    adopting = asyncio.ensure_future(node.adopt(1, COLLECTED))
    await asyncio.sleep(0)
    told = await node.state()
    crashed = shutil.copytree(tmp_path / "node", tmp_path / "crashed")
    again = StorageNode(0, DiskJournal(crashed, sync=False))
    assert again.replica.state() == told == await adopting
    for each in (node, again):
        await each.close()


async def test_a_node_that_promises_while_it_is_formatted_is_formatted(tmp_path: Path) -> None:
    node = StorageNode(0, DiskJournal(tmp_path, sync=False))
    formatting = asyncio.ensure_future(node.format(CHARTER))
    await asyncio.sleep(0)
    await node.promise(2)
    assert (await formatting).promised == 2
    await node.close()


FIRST = EpochStart(1, 1000)
SECOND = Charter(History((FIRST, EpochStart(2, 9000))), Membership.of(range(6)), ((0, 1000), (1, 9000)))
THIRD = Charter(History((*SECOND.history.entries, EpochStart(3, 9100))), SECOND.membership, ((0, 9000), (1, 9100)))
LOG_OF_ONE = [
    Extent(1, 1000, 1000, b"x" * 4000),
    Extent(1, 5000, 5000, b"y" * 4000),
    Extent(1, 9000, 9000, b"z" * 2000),
]


@pytest.mark.parametrize("away", [False, True], ids=["there-at-both-epochs", "away-at-the-first"])
async def test_a_chain_without_log_reaches_as_far_as_before_when_garbage_is_gone(tmp_path: Path, *, away: bool) -> None:
    """What closes it for an epoch lies before log that was received later, and is needed for as long."""
    node = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
    await node.format(CHARTER)
    for charter in (THIRD,) if away else (SECOND, THIRD):
        epoch = charter.history.epoch
        await node.promise(epoch)
        await node.adopt(epoch, charter)
    state = await node.fill(3, [*([Extent(0, 1000, 9000, b"")] if away else []), *LOG_OF_ONE])
    assert state.scls == {0: 9100, 1: 11_000}
    await node.adopt(3, replace(THIRD, revision=1, floor=5000, collected=5000))
    await node.close()
    again = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
    assert (await again.state()).scls == {0: 9100, 1: 11_000}
    size = again._journal.size
    await again.adopt(3, replace(THIRD, revision=2, floor=9100, collected=9100))
    assert again._journal.size < size
    await again.close()
    third = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
    assert (await third.state()).scls == {0: 9100, 1: 11_000}
    await third.close()


async def test_a_chain_whose_log_is_garbage_is_closed_as_far_as_before(tmp_path: Path) -> None:
    """An epoch begins where the one before did: what closes the chain waits beyond a hole until garbage is known."""
    again = History((FIRST, EpochStart(2, 9000), EpochStart(3, 9000)))
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000)), Sink()
    await node.format(CHARTER)
    for start in (1000, 3500):
        node.append(1, 1000, Extent(0, start, start, b"o" * 2500), sink)
    await until(lambda: sink.acks == [3500, 6000])
    opened = replace(SECOND, tails=((0, 6000), (1, 9000)))
    await node.promise(2)
    await node.adopt(2, opened)
    await node.fill(2, LOG_OF_ONE[:2])
    await node.promise(3)
    size = node._journal.size
    state = await node.adopt(3, Charter(again, SECOND.membership, ((0, 9000), (1, 9000)), floor=6000, collected=6000))
    assert state.scls == {0: 9000, 1: 9000}
    assert node._journal.size < size
    await node.close()
    restarted = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
    assert (await restarted.state()).scls == {0: 9000, 1: 9000}
    await restarted.close()


async def test_what_was_acknowledged_survives_restarts_in_an_epoch_that_does_not_know_what_was_removed(
    tmp_path: Path,
) -> None:
    """The metadata by which it removed log are given back as garbage themselves; its log begins there all the same."""
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000)), Sink()
    await node.format(CHARTER)
    node.append(1, 1000, Extent(0, 1000, 1000, b"o" * 8000), sink)
    await until(lambda: sink.acks == [9000])
    await node.adopt(1, replace(CHARTER, revision=1, floor=9000, collected=9000))
    await node.promise(2)
    await node.adopt(2, replace(SECOND, tails=((0, 9000),), floor=9000))
    for start in (9000, 11_500):
        node.append(2, 9000, Extent(0, start, start, b"n" * 2500), sink)
    await until(lambda: sink.acks == [9000, 11_500, 14_000])
    for revision in (1, 2):
        await node.close()
        node = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
        assert (await node.adopt(2, replace(SECOND, revision=revision, floor=9000, collected=5000))).scls == {0: 14_000}
    await node.close()


async def test_a_peer_gives_nothing_of_which_it_has_removed_the_beginning(tmp_path: Path) -> None:
    """What lies beyond a hole would only be written, again and again."""
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
    await node.format(CHARTER)
    for start in (1000, 1100, 1250):
        node.append(1, 1000, Extent(0, start, start, bytes(150 if start > 1000 else 100)), sink)
    await until(lambda: sink.acks == [1100, 1250, 1400])
    await node.adopt(1, COLLECTED)
    assert node.pull(1, 0, 1050, 1000) == []
    assert [extent.start for extent in node.pull(1, 0, 1150, 1000)] == [1100, 1250]
    await node.close()


@pytest.mark.parametrize("rotten", [{3}, {2, 3}], ids=["its charter", "its promise too"])
@pytest.mark.parametrize("later", [False, True], ids=["rewritten", "and another epoch"])
async def test_the_log_of_an_epoch_whose_metadata_rotted_is_there_after_a_restart(
    tmp_path: Path, *, rotten: set[int], later: bool
) -> None:
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
    await node.format(CHARTER)
    for start in (1000, 5000):
        node.append(1, 1000, Extent(0, start, start, b"o" * 4000), sink)
    await until(lambda: sink.acks == [5000, 9000])
    await node.promise(2)
    await node.adopt(2, replace(SECOND, history=CHARTER.history.extend(2, 8000), tails=((0, 8000),)))
    node.append(2, 8000, Extent(0, 8000, 8000, b"n" * 4000), sink)
    await until(lambda: sink.acks == [5000, 9000, 12_000])
    rot(the_file(tmp_path), lambda header: header.kind == METADATA and header.prev in rotten)
    assert await node.find_damage() == (2 * len(rotten), [])
    await node.rewrite_metadata()
    await node.retire_damage()
    if later:
        await node.promise(3)
        third = CHARTER.history.extend(2, 8000).extend(3, 11_000)
        await node.adopt(3, replace(SECOND, history=third, tails=((0, 11_000),)))
    told = node.replica.state()
    await node.close()
    again = StorageNode(0, DiskJournal(tmp_path, sync=False))
    assert again.replica.state().scls == told.scls == {0: 11_000 if later else 12_000}
    assert again.read(0, 7999, 2) == b"on"
    await again.close()


@pytest.mark.parametrize("dead", [1, 2])
async def test_what_an_epoch_that_never_was_wrote_does_not_come_back_when_metadata_rot(
    tmp_path: Path, dead: int
) -> None:
    """Its own metadata are lost, or those of the promise after it: the next ones do not have it in their history."""
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
    await node.format(CHARTER)
    node.append(1, 1000, Extent(0, 1000, 1000, b"o" * 4000), sink)
    await until(lambda: sink.acks == [5000])
    await node.promise(2)
    await node.adopt(2, replace(SECOND, history=CHARTER.history.extend(2, 5000), tails=((0, 5000),)))
    node.append(2, 5000, Extent(0, 5000, 5000, b"d" * 4000), sink)
    await until(lambda: sink.acks == [5000, 9000])
    await node.promise(3)
    await node.adopt(3, replace(SECOND, history=CHARTER.history.extend(3, 8000), tails=((0, 8000),)))
    await node.fill(3, [Extent(0, 5000, 5000, b"o" * 3000)])
    rot(the_file(tmp_path), lambda header: header.kind == METADATA and header.prev in range(dead + 1, 5))
    await node.find_damage()
    await node.rewrite_metadata()
    await node.retire_damage()
    await node.close()
    again = StorageNode(0, DiskJournal(tmp_path, sync=False))
    assert again.replica.state().scls == {0: 8000}
    assert again.read(0, 5000, 10) == b"o" * 10
    await again.close()


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "its end"])
async def test_a_scrub_finds_all_log_of_a_file_that_is_gone(tmp_path: Path, *, whole: bool) -> None:
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000)), Sink()
    await node.format(CHARTER)
    for start in range(1000, 9000, 1000):
        node.append(1, 1000, Extent(0, start, start, b"n" * 1000), sink)
        await until(lambda end=start + 1000: sink.acks and sink.acks[-1] == end)  # type: ignore[misc]
    gone = second_file(tmp_path)
    if whole:
        gone.unlink()
    else:
        os.truncate(gone, 1100)  # within the header of its second frame
    _, lost = await node.find_damage()
    assert lost
    assert node.replica.state().scl(0) == lost[0].span.start
    await node.rewrite_metadata()
    told = node.replica.state()
    await node.close()
    again = StorageNode(0, DiskJournal(tmp_path, sync=False, file_size=3000))
    assert again.replica.state() == told  # what cannot be read after a restart was lost before
    await again.close()


async def test_what_closes_a_chain_is_given_again_by_a_peer_when_its_frame_rots(tmp_path: Path) -> None:
    node, mark = StorageNode(0, DiskJournal(tmp_path, sync=False)), Extent(0, 1000, 9000, b"")
    await node.format(CHARTER)
    await node.promise(3)
    await node.adopt(3, THIRD)
    assert (await node.fill(3, [mark, *LOG_OF_ONE])).scls == {0: 9100, 1: 11_000}
    rot(the_file(tmp_path), lambda header: header.kind == LOG and header.group == 0)
    assert await node.find_damage() == (1, [Loss(0, Span(1000, 9000, 9000))])
    assert node.replica.state().scls == {0: 1000, 1: 11_000}
    await node.fill(3, [mark])
    await node.rewrite_metadata()
    await node.retire_damage()
    assert await node.find_damage() == (0, [])
    await node.close()
    again = StorageNode(0, DiskJournal(tmp_path, sync=False))
    assert again.replica.state().scls == {0: 9100, 1: 11_000}
    await again.close()


async def test_of_a_kept_branch_nothing_that_rotted_counts_as_held(tmp_path: Path) -> None:
    node, sink = StorageNode(0, DiskJournal(tmp_path, sync=False)), Sink()
    log = [Extent(0, start, start, b"k" * 100) for start in (1000, 1100, 1200)]
    await node.format(CHARTER)
    for extent in log:
        node.append(1, 1000, extent, sink)
    await until(lambda: sink.acks == [1100, 1200, 1300])
    left = Branch(Line(), CHARTER.history, 1300, 5.0)
    back = CHARTER.history.extend(2, 1100)
    await node.promise(2)
    await node.adopt(2, replace(CHARTER, history=back, tails=((0, 1100),), line=Line(2, 1, 1100, 2), kept=(left,)))
    assert node.replica.state().kept == {1: {0: 1300}}
    rot(the_file(tmp_path), lambda header: header.kind == LOG and header.lsn >= 1100)
    assert (await node.find_damage())[0] == 2
    assert (await node.fill(2, [log[1]], branch=1)).kept == {1: {0: 1200}}
    assert (await node.fill(2, [log[2]], branch=1)).kept == {1: {0: 1300}}
    await node.close()


def second_file(directory: Path) -> Path:
    return sorted(directory.glob("*.frames"))[1]


def rot(path: Path, which: Callable[[Header], bool]) -> None:
    """The last byte of each of these frames flips."""
    data = bytearray(path.read_bytes())
    for entry in list(scan(bytes(data), 1 << 32)):
        if isinstance(entry, DiskFrame) and which(entry.header):
            data[(entry.header.end & 0xFFFFFFFF) - 1] ^= 1
    path.write_bytes(data)
