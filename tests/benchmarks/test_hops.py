from __future__ import annotations

import sys

import pytest

from aurora_router.policy.route import Address
from aurora_router.policy.slow_start import SlowStart
from benchmarks.hops import main, tracing


def test_files_and_the_deepest_stack_of_a_package_are_counted():
    """Frames of other packages in between do not count; a file counts once."""
    with tracing("aurora_router") as trace:
        assert max([Address("a", 1)], key=str).host == "a"
        SlowStart.begin(0.0, 0.5, None)
    assert trace.files == ["policy/route.py", "model/endpoint.py", "policy/slow_start.py"]
    assert trace.deepest[0] == "policy/route.py:__str__"
    assert sys.getprofile() is None


@pytest.mark.cluster
def test_a_warm_connect_keeps_its_bounds(capsys):
    assert main(["--only", "connect"]) == 0, capsys.readouterr().out


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("path", "entered"),
    [
        ("commit", ["storage/journal.py", "storage/driver.py", "wire/walreceiver.py", "commit: deepest"]),
        ("failover", ["control/failover.py", "storage/recovery.py", "planned failover: deepest"]),
    ],
)
def test_a_path_through_the_cluster_is_counted(path, entered, capsys):
    main(["--only", path, "--list"])
    listed = capsys.readouterr().out
    assert all(each in listed for each in entered), listed
