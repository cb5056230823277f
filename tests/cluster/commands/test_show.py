from __future__ import annotations

from types import SimpleNamespace

from aurora_router_cluster import datadir
from aurora_router_cluster.commands import show


def test_data_that_were_moved_are_not_said_to_be_kept(tmp_path):
    """Following the advice would make a new, empty cluster."""
    kept = tmp_path / "a"
    cluster = SimpleNamespace(data=str(kept), directory="/run/aurora-x")
    kept.mkdir()
    (kept / datadir.RECORD).touch()
    assert (
        show.fate(cluster)
        == f"its data are kept in {kept}; start it again with: aurora-router cluster up --data {kept}"
    )
    kept.rename(tmp_path / "b")
    said = show.fate(cluster)
    assert f"{kept}, where its data were kept, is not there any more" in said
    assert f"--data {kept}" not in said
