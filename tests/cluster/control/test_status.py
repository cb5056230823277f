"""The status of a cluster as JSON and back."""

from __future__ import annotations

import pytest

from aurora_router_cluster.control.status import ClusterStatus
from aurora_router_cluster.errors import SupervisorError

FACTS = {
    "name": "demo", "key": "demo", "domain": "a.b.test", "flavour": "quorum", "version": "18.6", "port": 5432,
    "dns": "127.0.0.1:53", "writer_endpoint": "w", "reader_endpoint": "r", "writer": None, "epoch": 1, "instances": [],
    "custom_endpoints": [], "cnames": {}, "certificate_authority": None, "supervisor": 4711, "volume": {}, "faults": [],
}  # fmt: skip


def test_what_an_older_supervisor_does_not_say_has_a_default():
    status = ClusterStatus.from_dict(FACTS)
    assert (status.data, status.directory) == (None, "")
    assert ClusterStatus.from_dict(status.as_dict()) == status


@pytest.mark.parametrize("change", [{"colour": "red"}, {"instances": [{"name": "demo-1"}]}])
def test_the_status_of_another_version_is_a_sentence(change):
    with pytest.raises(SupervisorError, match=r"'demo' is of another version .*or end the process 4711"):
        ClusterStatus.from_dict({**FACTS, **change})
