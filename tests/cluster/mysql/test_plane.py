"""What the control plane reads off a reader's replication; whole failovers are in `test_cluster`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_router_cluster.mysql.plane import _find_trouble, _sequence
from aurora_router_cluster.postgres.addresses import Address

WRITER = SimpleNamespace(server=SimpleNamespace(replication=Address("127.0.0.5", 2000)))
WELL = {
    "Master_Host": "127.0.0.5", "Master_Port": 2000, "Slave_IO_Running": "Yes", "Slave_SQL_Running": "Yes",
    "Last_IO_Errno": 0, "Last_SQL_Errno": 0, "Last_IO_Error": "", "Last_SQL_Error": "",
}  # fmt: skip


@pytest.mark.parametrize("changed", [{}, {"Slave_IO_Running": "Connecting", "Last_IO_Errno": 2003}])
def test_nothing_is_wrong(changed):
    assert _find_trouble({**WELL, **changed}, WRITER) is None


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"Master_Host": "127.0.0.6"}, "it does not follow the writer"),
        ({"Master_Port": "2001"}, "it does not follow the writer"),
        ({"Slave_IO_Running": "No"}, "the IO thread"),
        ({"Slave_SQL_Running": "No"}, "the SQL thread"),
        ({"Slave_IO_Running": "No", "Last_IO_Errno": 1236, "Last_IO_Error": "not in the log"}, "not in the log"),
        ({"Slave_SQL_Running": "No", "Last_SQL_Errno": 1062, "Last_SQL_Error": "duplicate"}, "duplicate"),
    ],
)
def test_something_is(changed, said):
    assert said in _find_trouble({**WELL, **changed}, WRITER)


def test_a_server_that_follows_nothing():
    assert _find_trouble({}, WRITER) == "it does not follow the writer"


@pytest.mark.parametrize(
    ("position", "sequence"), [("0-12-345", 345), ("", 0), (None, 0), ("1-1-9", 0), ("1-1-9,0-2-3", 3), ("10-1-9", 0)]
)
def test_the_position_in_the_clusters_domain(position, sequence):
    assert _sequence(position) == sequence
