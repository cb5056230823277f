from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aurora_router_cluster.postgres import binaries, template
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.engine import Engine, State
from aurora_router_cluster.storage.disk.errors import IdentityError
from aurora_router_cluster.storage.disk.identity import new_system_identifier, set_system_identifier, system_identifier
from tests.cluster.wire.support import asked, installed

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=[15, 18])
def programs(request: pytest.FixtureRequest) -> binaries.Binaries:
    found = installed().get(request.param)
    if found is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    return found


@pytest.mark.cluster
async def test_a_copy_gets_its_own_identifier_and_runs(run_directory: Path, programs: binaries.Binaries) -> None:
    account = Account.default()
    original = template.ensure(programs, account)
    engine = Engine("copy", run_directory / "copy", programs, account)
    await engine.clone(original)
    identifier = new_system_identifier()
    assert set_system_identifier(engine.data, identifier) == 1
    assert system_identifier(engine.data) == identifier != system_identifier(original)
    control = template.control_data(programs, account, engine.data)
    assert control["Database system identifier"] == str(identifier)
    assert "WARNING" not in account.run([programs.program("pg_controldata"), engine.data]).stdout

    engine.configure({}, standby=False)
    try:
        for _ in range(2):  # the second time it reads log that it wrote itself, after a crash
            engine.start()
            await engine.wait(State.READY)
            assert await asked(engine, "select system_identifier from pg_control_system()") == str(identifier)
            with pytest.raises(IdentityError, match="server seems to run"):
                set_system_identifier(engine.data, 1)
            await asked(engine, "create table if not exists t(i int)")
            engine.kill()
    finally:
        engine.kill()


@pytest.mark.cluster
async def test_damaged_or_foreign_files_are_refused_and_left_alone(
    run_directory: Path, programs: binaries.Binaries
) -> None:
    account = Account.default()
    engine = Engine("copy", run_directory / "copy", programs, account)
    await engine.clone(template.ensure(programs, account))
    control = engine.data / "global" / "pg_control"
    (segment,) = [path for path in (engine.data / "pg_wal").iterdir() if len(path.name) == 24]
    intact, first = control.read_bytes(), segment.read_bytes()

    def refused(match: str) -> None:
        before = control.read_bytes(), segment.read_bytes()
        with pytest.raises(IdentityError, match=match):
            set_system_identifier(engine.data, 42)
        assert (control.read_bytes(), segment.read_bytes()) == before

    control.write_bytes(intact[:100] + bytes([intact[100] ^ 1]) + intact[101:])
    refused("checksum was not found")
    control.write_bytes(intact[:8] + (1201).to_bytes(4, "little") + intact[12:])
    refused("control version 1201")
    control.write_bytes(b"")
    refused("control version 0")
    control.write_bytes(intact)
    segment.write_bytes(first[:2] + b"\0\0" + first[4:])
    refused("long page header")
    segment.write_bytes(first[:10])
    refused("too short")
    segment.write_bytes(first)
    for wrong in (0, -1, 1 << 64):
        with pytest.raises(ValueError, match="system identifier"):
            set_system_identifier(engine.data, wrong)
    with pytest.raises(IdentityError, match="not a data directory"):
        system_identifier(run_directory)
    assert set_system_identifier(engine.data, 42) == 1
    assert system_identifier(engine.data) == 42


def test_new_identifiers_differ() -> None:
    made = {new_system_identifier() for _ in range(100)}
    assert len(made) > 95
    assert all(0 < one < 1 << 64 for one in made)
