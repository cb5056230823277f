from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from benchmarks import soak, soak_bulk

if TYPE_CHECKING:
    from pathlib import Path


def test_runs_are_chosen_by_name() -> None:
    assert {"bulk", "disks"} <= set(soak.names())
    assert soak.chosen("bulk") == ["bulk"]
    with pytest.raises(argparse.ArgumentTypeError, match="there is no nothing; there are "):
        soak.chosen("bulk,nothing")


def test_space_is_told_by_what_takes_it(tmp_path: Path) -> None:
    for name in ("volume/node-0/1.frames", "volume/base-1/base/5/1", "demo-1/data/base/5/1", "demo-1/data/pg_wal/1"):
        path = tmp_path / "aurora-x" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x" * 4096)
    found = soak_bulk.shares(tmp_path)
    assert len(found) == 4
    assert all(size > 0 for size in found.values())
    assert sum(found.values()) == soak_bulk.space(tmp_path)


def test_breaks_of_a_replay_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "LOG:  incorrect resource manager data checksum in record at 0/1\n"
        "LOG:  started streaming WAL from primary at 0/1\n"
        "LOG:  invalid record length at 0/2: wanted 24, got 0\n"  # the end of what a server has itself
        "LOG:  invalid magic number 0000 in log segment 1\n"
    )
    assert soak_bulk.breaks(log) == 2
