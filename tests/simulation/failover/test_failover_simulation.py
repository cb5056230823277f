"""The simulated client is clean, its schedules are deterministic, and every planted bug is found."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import fields, replace

import pytest

from tests.simulation import campaign
from tests.simulation.campaign import ENOUGH, draw_base
from tests.simulation.failover.dimensions import NONE, Dimensions
from tests.simulation.failover.mutants import MUTANTS, Mutant
from tests.simulation.failover.run import CAMPAIGN
from tests.simulation.failover.schedule import play


@pytest.mark.parametrize("part", range(4))
def test_schedules_are_clean(part: int) -> None:
    CAMPAIGN.check(20)


@pytest.mark.parametrize("seed", [3488, 7121, 9277, 11438, 14002, 502396, 502827, 504005, 508054])
def test_what_went_wrong_once_does_so_no_more(seed: int) -> None:
    play(seed, NONE)


SEVEN = Dimensions.just(
    "constant_reports",
    "reset_dials",
    "stalled_accepting",
    "stalled_clients",
    "refused_threads",
    "changed_passwords",
    "rebuilt_readers",
)


TWELVE = Dimensions.just(
    *("constant_reports", "reset_dials", "stalled_accepting", "stalled_clients", "refused_threads"),
    *("changed_passwords", "rebuilt_readers", "frozen_dials", "unknown_addresses", "hidden_notices", "own_endings"),
    "stale_lag",
)
ALL = Dimensions.just(*TWELVE.names, "pooler", "odd_rows", "shared_template", "shared_pooler")
ODD_ROWS = Dimensions.just("odd_rows")
PLACES = Dimensions.just("unknown_addresses", "rebuilt_readers")
STALE_LAG = Dimensions.just("stale_lag")
LOST_SYN = Dimensions.just("frozen_dials", "lost_packets")
UNEXAMINED = Dimensions.just("lost_packets", "rebuilt_readers")
OLD_PASSWORD = Dimensions.just("changed_passwords", "rebuilt_readers")
OVERTAKEN = Dimensions.just("own_endings", "pooler")
UNMARKED = Dimensions.just("odd_rows", "refused_threads")


@pytest.mark.parametrize(
    ("seed", "dimensions"),
    [
        (100162, SEVEN),
        (700013, TWELVE),
        *((seed, TWELVE) for seed in (995623204, 995623894, 320508186, 320508914)),
        *((seed, ALL) for seed in (463488972, 463489143)),
        *((seed, PLACES) for seed in (651161015, 651161049, 651161066)),
        *((seed, ODD_ROWS) for seed in (95473326, 95473353, 95473355, 95473549, 5000037)),
        *((seed, STALE_LAG) for seed in (29429493, 562418333)),
        *((seed, LOST_SYN) for seed in (29431082, 29431870)),
        (29432608, UNEXAMINED),
        (29432997, OLD_PASSWORD),
        (29433996, OVERTAKEN),
        (29432570, UNMARKED),
        (494558569, Dimensions.just("lost_packets", "shared_pooler")),
        (494558700, Dimensions.just("pooler")),
        (494559186, Dimensions.just("stalled_postmasters", "shared_pooler")),
        (494559478, NONE),
        (217372720, Dimensions.just("stalled_accepting", "odd_rows")),
        (793968446, Dimensions.just("odd_rows")),
        (217373071, Dimensions.just("lost_packets")),
        (494558889, Dimensions.just("constant_reports", "unknown_addresses")),
        (89724803, Dimensions.just("frozen_dials")),
        (89730259, Dimensions.just("stalled_accepting", "constant_reports")),
        (89731545, Dimensions.just("odd_rows", "frozen_dials")),
        (89731645, ODD_ROWS),
        (89735515, Dimensions.just("stalled_accepting", "reset_dials")),
        (512118567, Dimensions.just("reset_dials")),
        (512121548, Dimensions.just("stalled_clients", "silent_kernels")),
        (512125060, Dimensions.just("frozen_dials", "unknown_addresses")),
        (961436674, Dimensions.just("frozen_dials", "changed_passwords")),
        (524978464, Dimensions.just("constant_reports", "stalled_clients")),
        (961449415, Dimensions.just("constant_reports")),
        (611596481, Dimensions.just("changed_passwords")),
        (611597506, Dimensions.just("frozen_dials")),
        (595173008, Dimensions.just("reset_dials")),
        (595173030, Dimensions.just("slow_logins")),
        (522561746, Dimensions.just("changed_passwords", "frozen_dials")),
        (157529406, Dimensions.just("frozen_dials")),
        (157535313, Dimensions.just("odd_rows", "stale_lag")),
        (157535665, Dimensions.just("hidden_notices", "lost_packets")),
        (472074044, Dimensions.just("hidden_notices")),
        (974742830, Dimensions.just("slow_logins", "stale_lag")),
        (522565185, Dimensions.just("rebuilt_readers")),
        (236368162, NONE),
        (624660413, Dimensions.just("unknown_sentences", "shared_template")),
        (157535054, Dimensions.just("rebuilt_readers", "slow_logins")),
        (472072553, Dimensions.just("unknown_addresses", "rebuilt_readers")),
        (472073668, NONE),
        (472077771, NONE),
        (274121032, Dimensions.just("slow_logins", "stale_lag")),
        (259669592, Dimensions.just("slow_logins")),
        (689856654, Dimensions.just("reset_dials")),
        (904705218, Dimensions.just("lost_packets")),
        (831803330, Dimensions.just("idle_logs", "reset_dials")),
        (482937057, Dimensions.just("changed_passwords", "slow_logins")),
        (268598668, Dimensions.just("rebuilt_readers")),
        (874694448, Dimensions.just("idle_logs")),
        (874697604, NONE),
        (874698145, Dimensions.just("idle_logs", "shared_pooler")),
        (874698162, Dimensions.just("stalled_accepting")),
        (831805269, Dimensions.just("idle_logs", "shared_pooler")),
        (232994916, Dimensions.just("slow_logins")),
        (232995259, Dimensions.just("idle_logs", "pooler")),
        (232995924, Dimensions.just("idle_logs", "pooler")),
        (232996223, Dimensions.just("idle_logs", "late_tokens")),
        (232997165, Dimensions.just("late_tokens")),
        (87169475, Dimensions.just("idle_logs", "slow_logins")),
        *((seed, Dimensions.just("idle_logs")) for seed in (87165215, 87172690)),
        (87157884, Dimensions.just("constant_reports")),
        (87156908, Dimensions.just("stale_lag", "own_endings")),
        (100216226, Dimensions.just("idle_logs", "shared_pooler")),
        *((seed, Dimensions.just("late_tokens")) for seed in (77000069, 77000072, 77000079, 77000393)),
        (786734928, Dimensions.just("slow_logins", "unknown_addresses")),
        (496079685, Dimensions.just("unknown_sentences", "late_tokens")),
        (383112154, NONE),
        (384097728, Dimensions.just("late_tokens")),
        (512001495, Dimensions.just("reset_dials", "slow_logins")),
        (512018377, Dimensions.just("idle_logs", "shared_pooler")),
        (905726340, Dimensions.just("silent_kernels", "slow_logins")),
        (110583140, Dimensions.just("constant_reports", "rebuilt_readers")),
        (398620987, Dimensions.just("unknown_addresses", "slow_logins")),
        (398629102, Dimensions.just("frozen_dials", "unknown_sentences")),
        (398636391, Dimensions.just("rebuilt_readers", "constant_reports")),
        (544662165, Dimensions.just("rebuilt_readers")),
        (697480214, Dimensions.just("stalled_accepting")),
        (905726454, Dimensions.just("idle_logs", "shared_pooler")),
        (697462116, Dimensions.just("frozen_dials", "reset_dials")),
        (697469624, Dimensions.just("idle_logs")),
        (319229079, Dimensions.just("late_tokens")),
        (338317680, Dimensions.just("slow_logins", "rebuilt_readers")),
    ],
)
def test_what_went_wrong_once_with_dimensions_does_so_no_more(seed: int, dimensions: Dimensions) -> None:
    play(seed, dimensions)


def test_dimensions_follow_from_the_seed_and_leave_the_rest_of_it_alone() -> None:
    every = Dimensions.just(*(each.name for each in fields(Dimensions)))
    assert {name for seed in range(200) for name in every.draw(seed)} == set(every.names)
    assert max(len(every.draw(seed)) for seed in range(200)) == 2
    assert every.draw(7) == every.draw(7)
    undrawn = next(seed for seed in range(200) if not every.draw(seed))
    assert play(undrawn, every) == play(undrawn, NONE)


def test_the_same_seed_plays_the_same_schedule() -> None:
    assert [play(seed) for seed in range(3)] == [play(seed) for seed in range(3)]


PRINTED = """
from tests.simulation.failover.schedule import Schedule
for seed in range(4):
    schedule = Schedule(seed)
    with schedule.clock as clock:
        clock.run(schedule.play())
    print([(at, str(event)) for each in schedule.processes for at, _, event in each.events])
"""


def test_a_seed_plays_the_same_schedule_in_every_process() -> None:
    """Nothing depends on the order of a set, so that a seed that is printed shows again what it showed."""
    played = {
        subprocess.run(
            [sys.executable, "-c", PRINTED],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            check=True,
            capture_output=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert len(played) == 1


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_still_has_its_place(mutant: Mutant) -> None:
    with mutant.plant():
        pass


@pytest.mark.parametrize("mutant", [each for each in MUTANTS if each.soon], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found_soon(mutant: Mutant) -> None:
    base = draw_base()
    assert CAMPAIGN.hunt(mutant, base, 400, enough=1), f"base seed {base}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("mutant", [each for each in MUTANTS if not each.soon], ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found(mutant: Mutant) -> None:
    base = draw_base()
    assert len(CAMPAIGN.hunt(mutant, base)) == ENOUGH, f"base seed {base}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_schedules(tmp_path) -> None:
    figures = tmp_path / "figures.json"
    assert CAMPAIGN.main("", ["--schedules", "1000", "--jobs", "2", "--json", str(figures)]) == 0
    assert '"violations"' in figures.read_text()


def broken(seed: int):
    raise AssertionError(f"a planted violation of seed {seed}")


def test_a_violation_prints_its_seed_and_how_to_replay_it(capsys) -> None:
    assert replace(CAMPAIGN, play=broken).main("", ["--seed", "7", "--schedules", "1", "--jobs", "1"]) == 1
    printed = capsys.readouterr().out
    assert "python -m tests.simulation.failover.run --seed 7 --schedules 1" in printed
    assert "a planted violation of seed 7" in printed
    with pytest.raises(AssertionError, match=r"--seed [0-9]+ --schedules 1\n(.*\n)+.*a planted violation"):
        replace(CAMPAIGN, play=broken).check(1)


def test_each_campaign_starts_at_a_base_seed_of_its_own_and_prints_it(capsys) -> None:
    played = replace(CAMPAIGN, play=lambda _: Counter())
    for _ in range(2):
        assert played.main("", ["--schedules", "1", "--jobs", "1"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("base seed")]
    assert len(set(lines)) == 2
    assert all("replay: python -m tests.simulation.failover.run --seed" in line for line in lines)


def test_a_planted_bug_that_one_seed_finds_by_luck_is_not_found(capsys) -> None:
    """Enough seeds have to find it."""
    mutants = [replace(each, play=None) for each in MUTANTS]
    play_lucky = lambda seed: broken(seed) if seed % 100 == 0 else Counter()  # noqa: E731
    lucky = replace(CAMPAIGN, play=play_lucky, mutants=mutants, hunted=200)
    assert lucky.hunt(MUTANTS[0], 1) == [100, 200]
    assert lucky.main("", ["--seed", "1", "--schedules", "1", "--jobs", "2", "--mutants"]) == 1
    assert f"{MUTANTS[0].name}: TOO FEW 2 seeds" in capsys.readouterr().out
    assert lucky.main("", ["--seed", "1", "--schedules", "1", "--jobs", "2", "--mutants", "--enough", "2"]) == 0


def test_a_schedule_without_an_end_is_a_violation(monkeypatch) -> None:
    def endless(_: int):
        while True:
            pass

    monkeypatch.setattr(campaign, "LONGEST", 0.1)
    with pytest.raises(AssertionError, match="used more than"):
        replace(CAMPAIGN, play=endless).check(1)
