"""What killed postmasters leave in the kernel is removed."""

from __future__ import annotations

import subprocess

import pytest

from aurora_router_cluster.postgres import sysv


def test_a_directory_without_a_postmaster_has_none(tmp_path):
    assert sysv.segment(tmp_path) is None
    (tmp_path / "postmaster.pid").write_text("1\n/data\n")
    assert sysv.segment(tmp_path) is None
    assert not sysv.remove(tmp_path)


def test_the_id_is_the_second_number_of_the_seventh_line(tmp_path):
    (tmp_path / "postmaster.pid").write_text(
        "1\n/data\n1700000000\n5432\n/run\n127.0.0.1\n  9851450    131073\nready\n"
    )
    assert sysv.segment(tmp_path) == 131073


def segments():
    told = subprocess.run(["ipcs", "-m"], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in told.splitlines() if line.startswith("0x")}


@pytest.mark.cluster
def test_a_killed_instance_leaves_none(aurora_cluster_factory, eventually):
    cluster = aurora_cluster_factory(readers=1)
    from pathlib import Path

    data = {each.name: Path(each.socket_directory) / "data" for each in cluster.instances}
    own = {name: str(sysv.segment(place)) for name, place in data.items()}
    assert set(own.values()) <= segments()
    cluster.kill("demo-2", hold=True)
    eventually(lambda: own["demo-2"] not in segments())  # not before its last process, killed, has gone
    cluster.close()
    eventually(lambda: not set(own.values()) & segments())
