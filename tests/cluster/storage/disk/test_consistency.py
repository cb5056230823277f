from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.postgres import template
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.engine import Engine
from aurora_router_cluster.storage.disk.consistency import (
    minimum_recovery_point,
    raise_minimum_recovery_point,
    timeline_of,
)
from tests.cluster.storage.disk.test_identity import programs  # noqa: F401  # a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from aurora_router_cluster.postgres import binaries


@pytest.mark.cluster
async def test_postgresql_reads_the_point_that_was_set(
    run_directory: Path,
    programs: binaries.Binaries,  # noqa: F811
) -> None:
    account = Account.default()
    engine = Engine("copy", run_directory / "copy", programs, account)
    await engine.clone(template.ensure(programs, account))
    before = template.control_data(programs, account, engine.data)
    assert minimum_recovery_point(engine.data) == (0, 0)
    assert raise_minimum_recovery_point(engine.data, 0x1_2345_6788, 7)
    control = template.control_data(programs, account, engine.data)
    changed = {"Minimum recovery ending location": "1/23456788", "Min recovery ending loc's timeline": "7"}
    assert {name: value for name, value in control.items() if before[name] != value} == changed
    assert "WARNING" not in account.run([programs.program("pg_controldata"), engine.data]).stdout
    assert not raise_minimum_recovery_point(engine.data, 0x1_2345_6700, 8)
    assert minimum_recovery_point(engine.data) == (0x1_2345_6788, 7)


@pytest.mark.parametrize(
    ("position", "timeline"), [(0xC000A0, 1), (0xC000A1, 3), (0xD00000, 3), (0xE00000, 3), (0xE00001, 4)]
)
def test_the_timeline_of_a_position_by_the_history_file(position: int, timeline: int) -> None:
    """The log of a clone begins at 0/D00000, after its writer's switch to timeline 3."""
    history = b"# a comment\n1\t0/C000A0\tbefore 2026-11-28\n\n3\t0/E00000\tno recovery target specified\n"
    assert timeline_of(position, 4, history) == timeline
    assert timeline_of(position, 1, None) == 1
    assert timeline_of(position, 4, b"1\t0/C000A0\tx\n") == (1 if position <= 0xC000A0 else 4)
