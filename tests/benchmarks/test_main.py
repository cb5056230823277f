from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from benchmarks import __main__ as command
from benchmarks import incumbent, loops
from benchmarks.figures import Figure
from benchmarks.setting import CONTROL, OURS, STOCK, Setting, compared


def family(*figures):
    return SimpleNamespace(measure=lambda setting: iter(figures))


@pytest.mark.parametrize(("value", "status"), [(1.0, 0), (2.0, 1)])
def test_figures_are_told_written_and_decide_the_exit_status(monkeypatch, tmp_path, capsys, value, status):
    monkeypatch.setattr(command, "import_module", lambda name: family(Figure.at_most(name, value, "x", 1.5)))
    path = tmp_path / "figures.json"
    assert command.main(["--only", "checkout", "--quick", "--json", str(path)]) == status
    assert json.loads(path.read_text())["benchmarks.checkout"]["value"] == value
    assert f"1 figures, {status} not ok" in capsys.readouterr().out


def test_an_unknown_family_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["--only", "nonsense"])
    assert "startup" in capsys.readouterr().err


def test_every_family_can_be_imported():
    for name in command.FAMILIES:
        assert callable(command.import_module(command._module(name)).measure)


def test_beside_a_ratio_stands_its_control():
    samples = {OURS: [1.1] * 10, STOCK: [1.0] * 10, CONTROL: [1.0] * 10}
    mine, control = compared("connect", samples, 1.05)
    assert (mine.name, mine.bound, mine.ok) == ("connect, ours / stock", 1.05, False)
    assert (control.name, control.value, control.bound) == ("connect, stock / stock", 1.0, None)


def test_what_can_not_be_measured_is_skipped_loudly(monkeypatch, capsys):
    def impossible():
        raise incumbent.Impossible("no network")

    monkeypatch.setattr(incumbent, "environment", impossible)
    assert list(incumbent.measure(Setting())) == []
    assert "NOT measured: no network" in capsys.readouterr().err


@pytest.mark.cluster
@pytest.mark.parametrize("name", loops.LOOPS)
async def test_the_loops_run_on_what_they_are_given(aurora_cluster, name):
    import psycopg

    loop, awaited = loops.LOOPS[name]
    with psycopg.connect(aurora_cluster.plain_conninfo()) as connection:
        assert loop(connection, 2) > 0
    async with await psycopg.AsyncConnection.connect(aurora_cluster.plain_conninfo()) as connection:
        assert await awaited(connection, 2) > 0
