"""How long a lost writer costs a client: ours beside the incumbent, psycopg's list of hosts and SQLAlchemy's pre-ping.

Every contender runs the same loop (`contender_child`) in a process of its own. *The earliest possible* is the ack of
an independent probe that has a connection to every reader beforehand and asks each for a write about every
millisecond: it pays neither for noticing nor for a dial. What one dial and one write cost at that moment is printed
beside it, since every contender has to pay for them.

* *kill*: every process of the writer gets SIGKILL. One contender at a time, in an order drawn for each round, with
  no other one beside it but the probe. Figure: first ack on the new writer minus the probe's.
* *freeze*: every process of the writer is stopped, and *black hole*: its packets are dropped, none is reset. All
  contenders at once, since each of them waits most of the time. Figure: the error that the loop sees (*noticed*) and
  the first ack, both from the fault on.
* *readers*: connections to the readers while the writer is killed. Figure: errors where the reader stayed up.
* *pool*: the writer is frozen, replaced, and let go on as a zombie; then a pool of 20 is checked out. Figure: the
  connections to the zombie among them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router_cluster import LocalCluster
from benchmarks import contenders, incumbent
from benchmarks.contenders import INCUMBENT, LISTED, OURS, PRE_PING, Contender, Field, Process
from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from benchmarks.setting import Setting

KILLS, HANGS, READERS, POOLS = 50, 10, 10, 5  # rounds
LATE_MEDIAN_MS, LATE_P99_MS = 20.0, 150.0
PATIENCE = 15.0  # seconds after which a contender counts as one that did not notice
LONG_PATIENCE = 200.0  # the same, once, for those that do not notice by then


@dataclass(frozen=True)
class Outage:
    """What a contender reported of one fault, in seconds.

    Attributes:
        noticed: from the fault to its first error.
        acked: from the fault to its first ack on the new writer.
        late: from the probe's ack to that.
    """

    noticed: float
    acked: float
    late: float


Rounds = dict[str, list["Outage | None"]]
"""Contender -> what it reported in each round; None: nothing."""


def measure(setting: Setting) -> Iterator[Figure]:
    """The figures of all faults; ends with a table of the contenders side by side."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    with tempfile.TemporaryDirectory(prefix="aurora-router-bench-") as directory:
        field = _field(setting.cluster, Path(directory))
        make_ledger(setting.cluster)
        yield _a_dial(setting.cluster)
        yield from _report_kills(field, _kills(field, setting), cells)
        yield from _report_readers(field, setting.rounds(READERS))
        freezes = _hangs(field, setting.rounds(HANGS), setting.cluster.freeze, setting.cluster.thaw)
        yield from _report_hangs(field, "freeze", freezes, cells)
        yield from _black_holes(setting, Path(directory), cells)
        yield from _report_pools(field, setting.rounds(POOLS), cells)
        if not setting.quick:
            yield from _report_patient(field, cells)
    print("\n" + _side_by_side(field.all, cells), flush=True)


def _field(cluster: LocalCluster, directory: Path) -> Field:
    try:
        incumbent.alone(_empty(directory / "hosts"))
        return Field(cluster, directory)
    except incumbent.Impossible as why:
        incumbent.not_measured(why)
        return Field(cluster, None)


def _empty(path: Path) -> Path:
    path.touch()
    return path


def make_ledger(cluster: LocalCluster) -> None:
    """Make the table that contenders and the probe write to."""
    import psycopg

    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS failover_ledger (n int)")


def _a_dial(cluster: LocalCluster) -> Figure:
    """What every contender but the probe has to pay for."""
    import psycopg

    took = []
    for _ in range(30):
        start = time.monotonic()
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
            connection.execute("INSERT INTO failover_ledger VALUES (3)")
            took.append(time.monotonic() - start)
    return Figure.unbounded(
        "failover: psycopg's dial and one write, nothing wrong, median", statistics.median(took) * 1e3, "ms"
    )


def settled(cluster: LocalCluster) -> None:
    """Wait until every instance is available again."""
    deadline = time.monotonic() + 60.0
    while any(each.state != "available" or each.frozen for each in cluster.instances):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the cluster did not recover: {cluster.instances}")
        time.sleep(0.05)


# ---------------------------------------------------------------- kill


def _kills(field: Field, setting: Setting) -> Rounds:
    """The writer killed, one contender at a time."""
    rounds: Rounds = defaultdict(list)
    for _ in range(setting.rounds(KILLS)):
        turns = field.alone
        setting.rng.shuffle(turns)
        for contender in turns:
            processes = {contender.name: field.start(contender)}
            try:
                time.sleep(setting.rng.random() * 0.2)  # at no fixed distance from the control plane's heartbeat
                found = disturb(field, processes, field.cluster.kill, PATIENCE)
            finally:
                end_all(processes.values())
            rounds[contender.name].append(found[contender.name])
    return rounds


def disturb(
    field: Field, processes: dict[str, Process], fault: Callable[[str], object], patience: float
) -> dict[str, Outage | None]:
    """Let all processes connect, do it to the writer, and read what they report."""
    settled(field.cluster)
    probe = field.probe()
    try:
        for each in [*processes.values(), probe]:
            each.begin()
        for name, each in [*processes.items(), ("the probe", probe)]:
            if each.line(contenders.PATIENCE) is None:
                raise RuntimeError(f"{name} could not connect")
        time.sleep(0.1)
        old = field.cluster.writer
        assert old is not None
        began = time.monotonic()
        fault(old)
        earliest = probe.line(30.0)
        if earliest is None:
            raise RuntimeError("no write was possible within 30 s of the fault")
        found = {name: each.line(began + patience - time.monotonic()) for name, each in processes.items()}
    finally:
        probe.end()
    return {name: reported and _from(began, reported, earliest["acked"]) for name, reported in found.items()}  # type: ignore[misc]


def _from(began: float, reported: dict[str, Any], earliest: float) -> Outage:
    return Outage(reported["noticed"] - began, reported["acked"] - began, reported["acked"] - earliest)


def end_all(processes: Iterable[Process]) -> None:
    for each in processes:
        each.end()


def _report_kills(field: Field, rounds: Rounds, cells: dict[str, dict[str, str]]) -> Iterator[Figure]:
    for contender in field.alone:
        there = [each for each in rounds[contender.name] if each is not None]
        name = f"failover, kill, {contender.name}"
        yield _ended(name, rounds[contender.name])
        if not there:
            continue
        late = sorted(each.late * 1e3 for each in there)
        median, worst = statistics.median(late), p99(late)
        cells[contender.name]["kill: ack after the earliest possible, median / p99"] = f"{median:.1f} / {worst:.1f} ms"
        for what, value, bound in (("median", median, LATE_MEDIAN_MS), ("p99", worst, LATE_P99_MS)):
            text = f"{name}: ack after the probe's, {what}"
            if contender.bounded:
                yield Figure.at_most(text, value, "ms", bound, f"of {len(late)}")
            else:
                yield Figure.unbounded(text, value, "ms", f"of {len(late)}")


def _ended(name: str, rounds: list[Outage | None]) -> Figure:
    ended = sum(each is not None for each in rounds)
    return Figure.unbounded(f"{name}: rounds that ended within {PATIENCE:g} s", ended, "", f"of {len(rounds)}")


def p99(ordered: list[float]) -> float:
    """Of values in order."""
    return ordered[round(0.99 * (len(ordered) - 1))]


# ---------------------------------------------------------------- hangs


def _black_holes(setting: Setting, directory: Path, cells: dict[str, dict[str, str]]) -> Iterator[Figure]:
    """On a cluster of its own: the relay through which packets get lost takes time as well."""
    with LocalCluster.start(**{"readers": 2, **setting.options, "faults": True}) as cluster:
        field = _field(cluster, directory)
        make_ledger(cluster)
        rounds = _hangs(field, setting.rounds(HANGS), cluster.faults.partition, lambda _: cluster.faults.heal())
        yield from _report_hangs(field, "black hole", rounds, cells)


def _hangs(field: Field, count: int, begin: Callable[[str], object], heal: Callable[[str], object]) -> Rounds:
    """A writer that says nothing any more, all contenders at once."""
    rounds: Rounds = defaultdict(list)
    for _ in range(count):
        for name, reported in _hung(field, field.all, begin, heal, PATIENCE).items():
            rounds[name].append(reported)
    return rounds


def _hung(
    field: Field,
    chosen: list[Contender],
    begin: Callable[[str], object],
    heal: Callable[[str], object],
    patience: float,
) -> dict[str, Outage | None]:
    processes = {contender.name: field.start(contender) for contender in chosen}
    try:
        old = field.cluster.writer
        assert old is not None
        return disturb(field, processes, begin, patience)
    finally:
        end_all(processes.values())
        heal(old)
        settled(field.cluster)


def _report_hangs(field: Field, fault: str, rounds: Rounds, cells: dict[str, dict[str, str]]) -> Iterator[Figure]:
    for contender in field.all:
        there = [each for each in rounds[contender.name] if each is not None]
        name = f"failover, {fault}, {contender.name}"
        yield _ended(name, rounds[contender.name])
        if not there:
            cells[contender.name][f"{fault}: noticed / first ack"] = f"not in {PATIENCE:g} s"
            continue
        noticed = max(each.noticed for each in there)
        acked = max(each.acked for each in there)
        cells[contender.name][f"{fault}: noticed / first ack"] = f"{noticed:.2f} / {acked:.2f} s"
        text = f"{name}: noticed, from the {fault}, longest"
        if contender.noticed is not None:
            yield Figure.at_most(text, noticed, "s", contender.noticed, f"of {len(there)}")
        else:
            yield Figure.unbounded(text, noticed, "s", f"of {len(there)}")
        yield Figure.unbounded(f"{name}: first ack, from the {fault}, longest", acked, "s", f"of {len(there)}")


def _report_patient(field: Field, cells: dict[str, dict[str, str]]) -> Iterator[Figure]:
    """Once, those that take minutes."""
    cluster, chosen = field.cluster, [LISTED, PRE_PING, *([INCUMBENT] if INCUMBENT in field.all else [])]
    for name, reported in _hung(field, chosen, cluster.freeze, cluster.thaw, LONG_PATIENCE).items():
        noticed = reported.noticed if reported is not None else None
        text = f"failover, freeze for {LONG_PATIENCE:g} s, {name}"
        yield Figure.unbounded(
            f"{text}: noticed", noticed or LONG_PATIENCE, "s", "" if noticed else "or never: it did not"
        )
        cells[name]["freeze: noticed / first ack"] = (
            f"{reported.noticed:.0f} / {reported.acked:.0f} s"
            if reported is not None
            else f"not in {LONG_PATIENCE:g} s"
        )


# ---------------------------------------------------------------- readers and pools


def _report_readers(field: Field, count: int) -> Iterator[Figure]:
    """Connections to readers while the writer is killed."""
    reads, errors = 0, []
    for _ in range(count):
        settled(field.cluster)
        process = field.readers()
        try:
            process.begin()
            process.line(contenders.PATIENCE)
            old = field.cluster.writer
            assert old is not None
            field.cluster.kill(old)
            while field.cluster.writer == old:
                time.sleep(0.01)
            settled(field.cluster)
            process.go()
            reported = process.line(30.0)
        finally:
            process.end()
        assert reported is not None, "the readers' process reported nothing"
        reads += sum(reported["reads"].values())
        errors += [f"{instance}: {each}" for instance, found in reported["errors"].items() for each in found]
    note = errors[0] if errors else f"in {reads} reads during {count} failovers, the promoted reader's among them"
    yield Figure.at_most(
        "failover, kill, ours: errors of connections to readers that stayed up", len(errors), "", 0, note
    )


def _report_pools(field: Field, count: int, cells: dict[str, dict[str, str]]) -> Iterator[Figure]:
    """Pools of 20 beside a zombie."""
    stale: dict[str, list[int]] = defaultdict(list)
    for _ in range(count):
        for name, number in _zombie(field).items():
            stale[name].append(number)
    for contender in (OURS[2], PRE_PING):
        text = f"pool of 20, {contender.name}: connections to the demoted instance handed out"
        most, note = max(stale[contender.name]), f"the most of {count} failovers, a zombie each"
        cells[contender.name]["stale of a pool of 20"] = str(most)
        yield Figure.at_most(text, most, "", 0, note) if contender.bounded else Figure.unbounded(text, most, "", note)


def _zombie(field: Field) -> dict[str, int]:
    """Freeze the writer, let it be replaced, let it go on, and have pools of 20 checked out."""
    cluster = field.cluster
    settled(cluster)
    old = cluster.writer
    assert old is not None
    processes = {each.name: Process(f"pool:{each.kind}", field.place(each)) for each in (OURS[2], PRE_PING)}
    witness = field.start(OURS[0])
    try:
        for each in [*processes.values(), witness]:
            each.begin()
        for each in [*processes.values(), witness]:
            each.line(contenders.PATIENCE)
        cluster.freeze(old)
        witness.line(30.0)  # a client like that of the pool has noticed, and written to the new writer
        time.sleep(0.5)
        cluster.thaw(old)
        for each in processes.values():
            each.go()
        return {name: (each.line(30.0) or {"stale": 0})["stale"] for name, each in processes.items()}
    finally:
        end_all([*processes.values(), witness])
        cluster.thaw(old)
        settled(cluster)


# ---------------------------------------------------------------- the table


def _side_by_side(chosen: list[Contender], cells: dict[str, dict[str, str]]) -> str:
    """One line for each contender, one column for each figure."""
    columns = list(dict.fromkeys(column for row in cells.values() for column in row))
    rows = [["contender", *columns], ["---"] * (len(columns) + 1)]
    rows += [[each.name, *(cells[each.name].get(column, "") for column in columns)] for each in chosen]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns) + 1)]
    return "\n".join("| " + " | ".join(map(str.ljust, row, widths)) + " |" for row in rows)
