"""When upkeep does what: on a storage that only counts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from aurora_router_cluster.control import upkeep
from aurora_router_cluster.control.upkeep import LEAST_LOG, MANY_TIMELINES, Upkeep
from aurora_router_cluster.errors import EngineError
from tests.cluster.storage.quorum.support import until


class Storage:
    """What upkeep needs of a volume; a base takes as long as `gate` is closed."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.begun = 0
        self.grown = 0
        self.timelines_begun = 0
        self.data_size = 0
        self.collectable = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails = False
        self.membership_change = SimpleNamespace(unsettled=False, settle=self.settle)
        self.nodes = SimpleNamespace(revive=self.revive, reopen_failed=self.reopen_failed, scrub=self.scrub)

    def revive(self):
        self.done.append("revive")

    async def reopen_failed(self):
        pass

    async def settle(self):
        self.membership_change.unsettled = False
        self.done.append("settle")

    async def add_base(self, where):
        self.begun += 1
        await self.gate.wait()
        if self.fails:
            raise EngineError("no room")
        self.grown = self.timelines_begun = 0
        self.done.append("base")

    async def collect(self):
        await self.gate.wait()
        self.collectable = False
        self.done.append("collect")

    async def scrub(self):
        self.done.append("scrub")
        return [SimpleNamespace(damaged=2, refilled=100, lost=(), failure=None)]


@pytest.fixture
def state():
    return SimpleNamespace(lock=asyncio.Lock(), writer=SimpleNamespace(available=True, where="there"))


@pytest.fixture
async def start(state, monkeypatch):
    monkeypatch.setattr(upkeep, "TICK", 0.005)
    monkeypatch.setattr(upkeep, "AGAIN", 0.01)
    made: list[Upkeep] = []

    def begin(storage, **options):
        chosen = {"base_interval": 0.0, "base_bytes": 0, "scrub_interval": 0.0, "auto": False, **options}
        made.append(Upkeep(state, storage, **chosen))
        made[0].start()
        return made[0]

    yield begin
    for each in made:
        await each.close()


async def test_a_base_is_taken_by_size_and_then_the_log_is_collected(start):
    storage = Storage()
    upkeep = start(storage, base_bytes=1000)
    storage.grown = 999
    storage.collectable = True
    await until(lambda: storage.done == ["collect"], "what was superfluous is collected")
    storage.grown = 1000
    await until(lambda: storage.done == ["collect", "base"], "a base is taken")
    assert upkeep.status()["bases"] == 1


async def test_a_base_by_time_needs_log_that_is_worth_it(start):
    storage = Storage()
    upkeep = start(storage, base_interval=0.001, scrub_interval=0.001)
    storage.grown = LEAST_LOG - 1
    await until(lambda: storage.done.count("scrub") > 3, "some looks")
    assert "base" not in storage.done
    storage.grown = LEAST_LOG
    await until(lambda: "base" in storage.done, "a base is taken")
    assert upkeep.status()["damaged"] == 2
    assert upkeep.status()["refilled"] == 100 * upkeep.status()["scrubs"]


async def test_a_base_is_taken_after_many_failovers_however_little_was_written(start):
    storage = Storage()
    upkeep = start(storage, base_interval=3600.0)
    storage.timelines_begun = MANY_TIMELINES - 1
    storage.collectable = True
    await until(lambda: storage.done == ["collect"], "a look")
    storage.timelines_begun = MANY_TIMELINES
    await until(lambda: storage.done == ["collect", "base"], "a base is taken")
    assert upkeep.status()["bases"] == 1


async def test_the_more_data_the_more_log_is_worth_a_base(start):
    storage = Storage()
    start(storage, base_bytes=1000)
    storage.data_size, storage.grown = 160_000, 9_999
    await asyncio.sleep(0.05)
    assert storage.begun == 0
    storage.grown = 10_000
    await until(lambda: storage.done == ["base"], "a base is taken")


async def test_a_collection_makes_way_for_a_change_of_the_cluster_and_is_done_again(start, state):
    storage = Storage()
    storage.gate.clear()
    storage.collectable = True
    upkeep = start(storage)
    async with state.lock:
        await until(lambda: upkeep.status()["broken_off"] <= 1, "it is broken off, or not begun")
        storage.gate.set()
        await asyncio.sleep(0.05)
        assert storage.done == []
    await until(lambda: storage.done == ["collect"], "it is done afterwards")


async def test_a_base_goes_on_while_the_cluster_changes(start, state):
    storage = Storage()
    storage.gate.clear()
    upkeep = start(storage, base_bytes=1000)
    storage.grown = 1000
    await until(lambda: storage.begun == 1, "a base is under way")
    async with state.lock:
        storage.gate.set()
        await until(lambda: storage.done == ["base"], "it ends")
    assert (storage.begun, upkeep.status()["bases"], upkeep.status()["broken_off"]) == (1, 1, 0)


async def test_what_fails_is_tried_again_and_lost_nodes_are_revived(start, state):
    storage = Storage()
    storage.fails = True
    start(storage, base_bytes=1000, auto=True)
    storage.grown = 1000
    await until(lambda: storage.begun > 2, "it is tried again")
    storage.fails = False
    await until(lambda: "base" in storage.done, "it works in the end")
    assert "revive" in storage.done


async def test_a_change_of_the_members_that_was_interrupted_is_settled(start, state):
    storage = Storage()
    storage.membership_change.unsettled = True
    async with state.lock:
        start(storage)
        await asyncio.sleep(0.05)
        assert storage.done == []  # a failover comes first
    await until(lambda: storage.done == ["settle"], "it is settled")
