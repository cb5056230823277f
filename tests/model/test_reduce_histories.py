"""What holds of `reduce` for a cluster: instances that are promoted, die, freeze and come back, and answer honestly.

An answer is true when it is given, and may arrive late, in any order, with rows missing. A writer that loses its role
without noticing (a zombie) goes on claiming it; the storage has fenced it, so its token stands still.

Invariants: no instance is accepted as the writer that one accepted before had fenced; no instance that lives is
removed by an incomplete answer; once everything that lives has answered completely, and what does not has failed, the
true writer is accepted and exactly the living instances are known.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aurora_router.model.event import InstanceRemoved, WriterChanged
from aurora_router.model.observation import MISSING_SECONDS, ROW_AGE_SECONDS, Failure, Row, Topology
from aurora_router.model.reduce import reduce
from aurora_router.model.view import PROOF_SECONDS, View

IDS = "abcd"
WHAT = {"ask": 10, "deliver": 9, "look": 6, "promote": 2, "zombie": 2, "fail": 2, "return": 2}
STANDING = {**WHAT, "stand": 3}
STAND_SECONDS = 3.0
"""For how long an instance's rows stand still: no longer than higher tokens need more proof (`PROOF_SECONDS`)."""
CLOCK = 1000.0
"""Of all instances, ahead of the client's."""
SEEDS = st.lists(st.integers(0, 2**32), min_size=10, max_size=10)
"""Ten clusters by one example: hypothesis' own choice of steps seldom leads anywhere."""


def steps_of(seed, weights=WHAT):
    """A story: steps in an order that lets most of them do something."""
    rng = random.Random(seed)
    what = rng.choices(list(weights), list(weights.values()), k=60)
    return [(each, rng.choice(IDS[: rng.randint(2, 4)]), rng.randint(0, 7)) for each in what]


@dataclass
class Server:
    """One instance: what it takes itself for, whether it runs, and until when its rows show an earlier moment."""

    writer: bool = False
    alive: bool = True
    fenced_at: int | None = None
    stands: tuple[float, float, int] = (0.0, 0.0, 0)


@dataclass
class World:
    """The truth, and one client's view of it.

    Attributes:
        lower: whether a promoted writer reports a token that is lower than its predecessor's last, for good.
        late: whether one reports for `ROW_AGE_SECONDS` what it had seen of its predecessor's.
        standing: whether the rows of instances stand still at times.
    """

    lower: bool = False
    late: bool = False
    standing: bool = False
    now: float = 1.0
    lsn: int = 100
    writer: str = "a"
    servers: dict = field(default_factory=lambda: {id_: Server(writer=id_ == "a") for id_ in IDS})
    reigns: list = field(default_factory=lambda: ["a"])
    under_way: list = field(default_factory=list)
    view: View = field(default_factory=View)
    accepted: int = -1
    complete: bool = True
    seen: tuple = (0.0, 100)

    def token(self):
        """What the writer, and instances that follow it, report to be durable."""
        until, lsn = self.seen
        return lsn if self.late and self.now < until else self.lsn

    def answer(self, id_, lack=0):
        """What an instance answers now; `lack`: how the answer is damaged."""
        server = self.servers[id_]
        zombie = server.fenced_at is not None and server.writer
        named = id_ if server.writer else self.writer
        token = server.fenced_at if zombie else self.token()
        until, stood_at, shown = server.stands
        written, token = (stood_at, min(shown, token)) if self.now < until else (self.now, token)
        rows = [
            Row(each, writer=each == named, token=token, updated=written + CLOCK)
            for each, at in self.servers.items()
            if at.alive
        ]
        if lack == 1:
            rows = [row for row in rows if not row.writer]
        elif lack == 2:
            rows = [row for row in rows if row.id != id_]
        elif lack == 3:
            rows = []
        malformed = ("NULL",) if lack == 4 else ()
        told = Topology(tuple(rows), id_, server.writer, malformed=malformed, asked_at=self.now)
        return told, len(self.reigns) - 1

    def deliver(self, observation, reign=None):
        """Let the client see something; `reign`: how far the history had got when it was said."""
        before = self.view
        self.view, events = reduce(before, observation, self.now)
        accepted = self.servers.get(before.writer or (before.outage and before.outage.writer))
        is_lost = accepted is not None and not accepted.alive  # so that it could not be asked what it made durable
        for event in events:
            if isinstance(event, WriterChanged):
                known = self.reigns if event.new == self.writer else self.reigns[: reign + 1]  # it is the writer by now
                last = max(number for number, id_ in enumerate(known) if id_ == event.new)
                lapsed = is_lost and before.fresh and self.now - before.accepted_at >= PROOF_SECONDS
                assert last >= self.accepted or lapsed, f"{event.new} was fenced by one that was accepted before"
                self.accepted = last
            if isinstance(event, InstanceRemoved):
                assert not self.servers[event.id].alive or lacks(observation, event.id), event

    def step(self, what, id_, number):
        """One thing that happens."""
        self.now += 0.5
        self.lsn += number
        server = self.servers[id_]
        if self.late or self.standing:
            self.ask_accepted()
        if what == "ask" and server.alive:
            self.under_way.append(self.answer(id_, number))
        elif what == "look":
            self.look(id_)
        elif what == "deliver" and self.under_way:
            self.deliver(*self.under_way.pop(number % len(self.under_way)))
        elif what in {"promote", "zombie"} and server.alive and id_ != self.writer:
            self.promote(id_, number, zombie=what == "zombie" and self.view.writer == self.writer)
        elif what == "stand":
            server.stands = (self.now + STAND_SECONDS, self.now, self.token())
        elif what == "fail":
            server.alive = False
            self.fails(id_)
        elif what == "return" and not server.alive:
            server.alive = True
            server.writer = id_ == self.writer

    def ask_accepted(self):
        """A new writer that is not heard by itself is asked in time, as a monitor does, or a dial of it fails."""
        accepted = self.view.instances.get(self.view.writer)
        if accepted is not None and self.view.fresh and self.now - self.view.accepted_at >= PROOF_SECONDS - 1.0:
            self.look(accepted.id)

    def look(self, id_):
        """An instance is asked, and answers at once, or the dial fails."""
        self.deliver(*self.answer(id_)) if self.servers[id_].alive else self.fails(id_)

    def promote(self, id_, number, *, zombie):
        """Another instance is made the writer; the old one restarts as a reader, or does not notice."""
        old = self.servers[self.writer]
        old.fenced_at = self.lsn
        old.writer = zombie
        self.seen = self.now + ROW_AGE_SECONDS, self.token() - number
        self.lsn += -60 if self.lower else 1 + number
        self.servers[id_] = Server(writer=True, stands=self.servers[id_].stands)
        self.writer = id_
        self.reigns.append(id_)

    def fails(self, id_):
        """A dial of the client's fails."""
        known = self.view.instances.get(id_)
        if known is not None:
            self.deliver(Failure(id_, known.generation, gone=False, reason="refused"))

    def settle(self):
        """All is quiet; everything that lives is asked, again and again, and the rest is dialled in vain."""
        for _ in range(6):
            self.now += MISSING_SECONDS / 2
            self.lsn += 1
            for id_, server in self.servers.items():
                if not server.alive:
                    self.fails(id_)
            for id_, server in self.servers.items():
                if server.alive:
                    self.deliver(*self.answer(id_))


def lacks(observation, id_):
    """Whether a complete answer does not list an instance (it may have been given before that one came back)."""
    return isinstance(observation, Topology) and id_ not in {row.id for row in observation.rows}


def played(steps, *, lower=False, late=False, standing=False):
    """A cluster after these steps, the client of which knew it at the beginning."""
    world = World(lower, late, standing)
    world.deliver(*world.answer("a"))
    for what, id_, number in steps:
        world.step("promote" if lower and what == "zombie" else what, id_, number)
    return world


@pytest.mark.parametrize("late", [False, True])
@given(seeds=SEEDS)
@example(seeds=[8268])
def test_no_zombie_is_accepted_again(late, seeds):
    for seed in seeds:
        played(steps_of(seed), late=late)


@pytest.mark.parametrize("late", [False, True])
@given(seeds=SEEDS)
@example(seeds=[895])
@example(seeds=[451789278])
def test_no_zombie_is_accepted_again_where_rows_stand_still(late, seeds):
    for seed in seeds:
        played(steps_of(seed, STANDING), late=late, standing=True)


@given(SEEDS)
def test_no_late_answer_brings_a_former_writer_back_where_tokens_decrease(seeds):
    for seed in seeds:
        played(steps_of(seed), lower=True)


@pytest.mark.parametrize("kind", [{}, {"lower": True}, {"late": True}], ids=str)
@given(seeds=SEEDS)
def test_honest_and_complete_answers_lead_to_the_truth(kind, seeds):
    for seed in seeds:
        world = played(steps_of(seed), **kind)
        world.servers[world.writer] = Server(writer=True)
        for id_, server in world.servers.items():
            if id_ != world.writer:
                server.writer = False
        world.settle()
        assert world.view.writer == world.writer
        assert set(world.view.instances) == {id_ for id_, server in world.servers.items() if server.alive}


@given(st.integers(0, 2**32), st.integers(1, 4), st.sampled_from(IDS))
def test_no_incomplete_answer_removes_an_instance_or_withdraws_a_writer(seed, lack, id_):
    world = played(steps_of(seed))
    before = world.view
    for _ in range(3):
        world.now += MISSING_SECONDS
        told, _ = world.answer(id_, lack)
        view, _ = reduce(world.view, told, world.now)
        assert view.instances.keys() >= before.instances.keys()
        if view.writer != before.writer:
            assert before.writer == id_ or view.writer == id_, "its own report"
        world.view = replace(view)


@pytest.mark.case
def test_a_promoted_writer_with_a_lower_token_is_accepted_when_the_old_one_is_silent():
    world = played([], lower=True)
    world.step("promote", "b", 0)
    world.deliver(*world.answer("b"))
    assert world.view.writer == "a", "the accepted writer is not known to have failed"
    world.servers["a"].alive = False
    world.fails("a")
    world.deliver(*world.answer("b"))
    assert world.view.writer == "a", "c may name another one"
    for id_ in "cd":
        world.deliver(*world.answer(id_))
    world.deliver(*world.answer("b"))
    assert world.view.writer == "b"
    zombie = Topology((Row("a", writer=True, token=150),), "a", observer_is_writer=True)
    world.view, _ = reduce(world.view, zombie, world.now)
    assert world.view.writer == "b", "a higher token of a fenced writer proves nothing then"
