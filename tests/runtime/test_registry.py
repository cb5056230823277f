"""Clusters of a process: found by identity, merged by a common instance, forgotten in the child of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from aurora_router.model.observation import Row, Topology
from aurora_router.policy.route import route
from aurora_router.runtime.call import read_call
from aurora_router.runtime.registry import Registry

DOMAIN = "abc123.eu-west-1.rds.amazonaws.com"


def find(registry, conninfo):
    request = read_call(conninfo, {}).request
    return registry.find(request, route(request))


def learn(registry, cluster, *ids):
    rows = tuple(Row(id_, writer=number == 0) for number, id_ in enumerate(ids))
    cluster.observe(Topology(rows, ids[0], observer_is_writer=True), 1.0)
    return registry.settle(cluster)


def test_the_same_cluster_is_found_again():
    registry = Registry()
    first = find(registry, f"host=demo.cluster-{DOMAIN} port=5432")
    assert find(registry, f"host=DEMO.cluster-ro-{DOMAIN} port=5432 user=other") is first
    assert find(registry, f"host=other.cluster-{DOMAIN} port=5432") is not first
    assert first.name == "demo"


def test_many_threads_find_one():
    registry = Registry()
    with ThreadPoolExecutor(16) as executor:
        found = executor.map(lambda _: find(registry, f"host=demo.cluster-{DOMAIN}"), range(200))
    assert len({id(each) for each in found}) == 1


def test_an_instance_endpoint_turns_out_to_be_of_a_known_cluster():
    registry = Registry()
    whole = find(registry, f"host=demo.cluster-{DOMAIN} port=5432")
    learn(registry, whole, "demo-1", "demo-2")
    single = find(registry, f"host=demo-2.{DOMAIN} port=5432")
    assert single is not whole
    assert learn(registry, single, "demo-1", "demo-2") is whole
    assert find(registry, f"host=demo-2.{DOMAIN} port=5432") is whole


def test_equal_ids_elsewhere_are_another_cluster():
    registry = Registry()
    one = find(registry, f"host=demo.cluster-{DOMAIN} port=5432")
    learn(registry, one, "demo-1")
    for host in (
        "host=demo.cluster-xyz.eu-west-2.rds.amazonaws.com port=5432",
        f"host=demo.cluster-{DOMAIN} port=6000",
    ):
        other = find(registry, host)
        assert learn(registry, other, "demo-1") is other
    behind = find(registry, "host=127.0.0.1 port=5432 aurora_instance_host=demo-1=127.0.0.1:6001")
    assert learn(registry, behind, "demo-1") is behind


def test_a_cluster_with_a_name_of_its_own_is_never_merged():
    registry = Registry()
    learn(registry, find(registry, f"host=demo.cluster-{DOMAIN} port=5432"), "demo-1")
    mine = find(registry, f"host=demo.cluster-{DOMAIN} port=5432 aurora_cluster=mine")
    assert learn(registry, mine, "demo-1") is mine


def test_the_hosts_of_a_list_are_its_instances():
    cluster = find(Registry(), "host=a.example.com,b.example.com port=5432,5433")
    assert list(cluster.view.instances) == ["a.example.com:5432", "b.example.com:5433"]
    assert not cluster.view.known


@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_knows_nothing():
    code = (
        "import os\n"
        "from aurora_router.runtime.registry import REGISTRY\n"
        "from aurora_router.runtime import dns\n"
        "from aurora_router.runtime.call import read_call\n"
        "from aurora_router.policy.route import route\n"
        "request = read_call('host=10.0.0.1', {}).request\n"
        "REGISTRY.find(request, route(request))\n"
        "dns.names_for(None, 1.0)\n"
        "REGISTRY._lock.acquire()\n"
        "if os.fork() == 0:\n"
        "    known = len(REGISTRY._clusters) + len(dns._shared)\n"
        "    REGISTRY.find(request, route(request))\n"
        "    os._exit(known)\n"
        "assert len(REGISTRY._clusters) == 1\n"
        "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=os.environ)
    assert ended.stdout == "0\n", ended.stderr
