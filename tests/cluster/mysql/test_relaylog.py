"""Where a relay log has to be gone on with; whole files of real servers are in `test_cluster`."""

from __future__ import annotations

import pytest

from aurora_router_cluster.mysql.relaylog import GTID, GTID_EVENT, HEADER, MAGIC, find_unapplied


def event(kind, body=b""):
    return HEADER.pack(0, kind, 1, HEADER.size + len(body), 0, 0) + body


def transaction(sequence):
    return event(GTID_EVENT, GTID.pack(sequence, 0) + b"\0" * 7) + event(2, b"insert") + event(16, b"xid")


@pytest.fixture
def data(tmp_path):
    (tmp_path / "relay.index").write_text("./relay.000001\n./relay.000002\n./relay.000003\n")
    (tmp_path / "relay.000001").write_bytes(MAGIC + event(15, b"format") + transaction(7) + transaction(8))
    (tmp_path / "relay.000002").write_bytes(MAGIC + event(15, b"format") + transaction(9) + transaction(10)[:-3])
    return tmp_path


@pytest.mark.parametrize(
    ("applied", "name", "before"),
    [
        (6, "relay.000001", b""),
        (7, "relay.000001", transaction(7)),
        (8, "relay.000002", b""),
        (9, "relay.000002", transaction(9)),
    ],
)
def test_the_first_transaction_that_was_not_applied(data, applied, name, before):
    position = len(MAGIC + event(15, b"format") + before)
    assert find_unapplied(data, applied) == (name, position)


def test_nothing_is_left(data, tmp_path):
    assert find_unapplied(data, 10) is None
    assert find_unapplied(tmp_path / "nowhere", 0) is None


def test_a_torn_or_damaged_end_ends_the_file(data):
    whole = (data / "relay.000002").read_bytes()
    for cut in range(len(MAGIC), len(whole)):
        (data / "relay.000002").write_bytes(whole[:cut])
        found = find_unapplied(data, 8)
        assert found is None or found[0] == "relay.000002"
    (data / "relay.000002").write_bytes(MAGIC + HEADER.pack(0, GTID_EVENT, 1, 3, 0, 0) + b"x" * 40)
    assert find_unapplied(data, 8) is None
