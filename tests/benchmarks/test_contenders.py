from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import contender_child as child
from benchmarks import failover
from benchmarks.contenders import AGGRESSIVE, OURS, PRE_PING, Field, Process
from benchmarks.failover import Outage


class Recorded:
    """A contender that fails at its second write and then is on another instance."""

    def __init__(self):
        self.writes, self.renewed, self.instance = 0, [], "demo-1"

    async def write(self):
        self.writes += 1
        if self.writes == 2:
            raise ConnectionError("gone")

    async def where(self):
        return self.instance

    async def renew(self, error):
        self.renewed.append(str(error))
        self.instance = "demo-2"

    async def pause(self):
        pass


def test_the_loop_ends_with_the_first_ack_elsewhere(capsys):
    client = Recorded()
    reported = child.run(child.loop(client))
    assert reported["instance"] == "demo-2"
    assert reported["last"] <= reported["noticed"] <= reported["acked"]
    assert (client.writes, client.renewed) == (3, ["gone"])
    assert '"ready": "demo-1"' in capsys.readouterr().out


def test_a_procedure_that_suspends_is_a_bug():
    class Pause:
        def __await__(self):
            yield

    async def procedure():
        await Pause()

    with pytest.raises(RuntimeError, match="suspended"):
        child.run(procedure())


def test_kills_are_reported_with_their_bounds():
    from types import SimpleNamespace

    cells = {OURS[0].name: {}, PRE_PING.name: {}}
    rounds = {OURS[0].name: [Outage(0.01, 0.2, 0.015), None], PRE_PING.name: [Outage(0.01, 0.2, 0.030)]}
    who = SimpleNamespace(alone=[OURS[0], PRE_PING])
    ended, median, p99, *others = failover._report_kills(who, rounds, cells)
    assert (ended.value, median.value, median.bound, p99.ok) == (1, 15.0, 20.0, True)
    assert [figure.bound for figure in others] == [None] * 3
    assert cells[PRE_PING.name] == {"kill: ack after the earliest possible, median / p99": "30.0 / 30.0 ms"}


def test_hangs_are_reported_with_their_bounds_and_which_were_not_noticed():
    from types import SimpleNamespace

    cells = {AGGRESSIVE.name: {}, PRE_PING.name: {}}
    rounds = {AGGRESSIVE.name: [Outage(0.7, 0.9, 0.1)], PRE_PING.name: [None]}
    figures = list(failover._report_hangs(SimpleNamespace(all=[AGGRESSIVE, PRE_PING]), "freeze", rounds, cells))
    assert [figure.ok for figure in figures] == [True, False, True, True]
    assert cells[PRE_PING.name] == {"freeze: noticed / first ack": "not in 15 s"}


def test_the_table_has_a_line_for_each_and_a_column_for_each_figure():
    table = failover._side_by_side(
        [OURS[0], PRE_PING], {OURS[0].name: {"kill": "1 ms"}, PRE_PING.name: {"stale": "20"}}
    )
    header, _, ours, other = table.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["contender", "kill", "stale"]
    assert [cell.strip() for cell in ours.split("|")[1:-1]] == [OURS[0].name, "1 ms", ""]
    assert [cell.strip() for cell in other.split("|")[1:-1]] == [PRE_PING.name, "", "20"]


def test_a_contender_ends_with_who_started_it(tmp_path):
    starter = (
        "import os, sys; from benchmarks.contenders import Process; "
        "process = Process('psycopg', 'host=127.0.0.1'); print(process._process.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", starter], capture_output=True, text=True, timeout=60, check=True)
    cmdline = Path("/proc") / done.stdout.strip() / "cmdline"

    def goes_on() -> bool:
        try:
            return "contender_child" in cmdline.read_text()
        except OSError:
            return False

    deadline = time.monotonic() + 60
    while goes_on():
        assert time.monotonic() < deadline, "it goes on"
        time.sleep(0.05)


@pytest.mark.cluster
def test_a_contender_tells_what_a_kill_was_to_it(aurora_cluster_factory):
    cluster = aurora_cluster_factory(readers=1)
    failover.make_ledger(cluster)
    field = Field(cluster, None)
    process = field.start(OURS[0])
    try:
        reported = failover.disturb(field, {"ours": process}, cluster.kill, 60.0)["ours"]
    finally:
        process.end()
    assert 0 < reported.noticed < reported.acked
    assert isinstance(process, Process)
