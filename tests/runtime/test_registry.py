"""Clusters of a process: found by identity, merged by a common instance, forgotten in the child of a fork."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from aurora_router.flow.cluster import Cluster
from aurora_router.model.observation import Row, Topology
from aurora_router.policy.route import identity, route
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.registry import Registry

DOMAIN = "abc123.eu-west-1.rds.amazonaws.com"


def routed(conninfo):
    request = read_connect_args(conninfo, {}).request
    return request, route(request)


def find(registry, conninfo):
    return registry.find(*routed(conninfo))


def learn(registry, conninfo, *ids, observer=None):
    """Connect through a name: an answer of `observer` (the writer by default) that lists these, the writer first."""
    cluster, observer = find(registry, conninfo), observer or ids[0]
    rows = tuple(Row(id_, writer=number == 0, token=1) for number, id_ in enumerate(ids))
    topology = Topology(rows, observer, observer_is_writer=observer == ids[0])
    cluster = registry.match_cluster(cluster, identity(*routed(conninfo)), topology)
    cluster.observe(topology, 1.0)
    return cluster


class Conn:
    """A connection, as far as it is counted."""


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


CLUSTER = f"host=demo.cluster-{DOMAIN} port=5432"
INSTANCE = f"host=demo-2.{DOMAIN} port=5432"
CUSTOM = f"host=analytics.cluster-custom-{DOMAIN} port=5432"


@pytest.mark.parametrize("name", [INSTANCE, CUSTOM])
def test_a_name_within_a_cluster_is_attached_to_it(name):
    registry = Registry()
    whole = learn(registry, CLUSTER, "demo-1", "demo-2")
    assert find(registry, name) is not whole
    assert learn(registry, name, "demo-1", "demo-2", observer="demo-2") is whole
    assert find(registry, name) is whole


def test_the_clusters_own_name_takes_over_one_that_was_known_by_an_instance():
    registry = Registry()
    single = learn(registry, INSTANCE, "demo-1", "demo-2", observer="demo-2")
    single.track("demo-2", held := Conn())
    assert learn(registry, CLUSTER, "demo-1", "demo-2") is single
    assert single.name == "demo"
    assert single.tracked_connections() == {"demo-2": [held]}


@pytest.mark.case
@pytest.mark.parametrize(
    ("one", "other"),
    [
        (f"host=orders.cluster-{DOMAIN}", f"host=users.cluster-{DOMAIN}"),
        ("host=orders.db.internal aurora_instance_host={id}.i", "host=users.db.internal aurora_instance_host={id}.i"),
        ("host=pooler port=6432 dbname=orders", "host=pooler port=6432 dbname=users"),
        ("host=10.0.0.1 dbname=orders", "host=10.0.0.1 dbname=users"),
        (
            f"host=orders.cluster-{DOMAIN} aurora_instance_host={{id}}.i",
            f"host=users.cluster-{DOMAIN} aurora_instance_host={{id}}.i",
        ),
        (f"host=demo.cluster-{DOMAIN} port=1", f"host=demo.cluster-{DOMAIN} port=2"),
    ],
)
def test_a_common_instance_makes_no_common_cluster(one, other):
    registry = Registry()
    orders = learn(registry, one, "orders-1", "orders-2")
    users = learn(registry, other, "users-1", "users-2", "orders-2")
    assert users is not orders
    assert learn(registry, one, "orders-1", "users-2") is orders
    assert set(orders.view.instances) == {"orders-1", "orders-2", "users-2"}
    assert set(users.view.instances) == {"users-1", "users-2", "orders-2"}


def test_two_labels_are_two_clusters_whatever_their_instances_are_called():
    registry = Registry()
    one = learn(registry, CLUSTER, "demo-1", "demo-2")
    other = learn(registry, f"host=other.cluster-{DOMAIN} port=5432", "demo-1", "demo-2")
    assert other is not one
    between = learn(registry, INSTANCE, "demo-1", "demo-2", observer="demo-2")
    assert find(registry, CLUSTER) is one
    assert find(registry, f"host=other.cluster-{DOMAIN} port=5432") is other
    assert between in (one, other)


@pytest.mark.case
def test_a_name_is_detached_when_its_answers_do_not_know_the_cluster_any_more():
    registry = Registry()
    orders = learn(registry, CLUSTER, "demo-1", "demo-2")
    assert learn(registry, INSTANCE, "demo-1", "demo-2", observer="demo-2") is orders
    orders.track("demo-2", held := Conn())
    moved = learn(registry, INSTANCE, "users-1", "demo-2", observer="demo-2")
    assert moved is not orders
    assert moved.view.writer == "users-1"
    assert orders.view.writer == "demo-1"
    assert orders.tracked_connections() == {"demo-2": [held]}, "it is counted where it was opened"
    assert find(registry, INSTANCE) is moved
    assert find(registry, CLUSTER) is orders
    users = learn(registry, f"host=users.cluster-{DOMAIN} port=5432", "users-1", "demo-2")
    assert find(registry, INSTANCE) is users


def test_a_name_that_leads_to_other_instances_altogether_means_another_cluster():
    registry = Registry()
    before = learn(registry, CLUSTER, "blue-1", "blue-2")
    after = learn(registry, CLUSTER, "green-1", "green-2")
    assert after is not before
    assert (before.view.writer, after.view.writer) == ("blue-1", "green-1")


def test_an_answer_without_a_writer_attaches_nothing():
    registry = Registry()
    whole = learn(registry, CLUSTER, "demo-1", "demo-2")
    single = find(registry, INSTANCE)
    partial = Topology((Row("demo-2"),), "demo-2", observer_is_writer=False)
    assert registry.match_cluster(single, identity(*routed(INSTANCE)), partial) is single is not whole


def test_equal_ids_elsewhere_are_another_cluster():
    registry = Registry()
    one = learn(registry, CLUSTER, "demo-1")
    for host in (
        "host=demo.cluster-xyz.eu-west-2.rds.amazonaws.com port=5432",
        f"host=demo.cluster-{DOMAIN} port=6000",
        "host=127.0.0.1 port=5432 aurora_instance_host=demo-1=127.0.0.1:6001",
    ):
        assert learn(registry, host, "demo-1") is not one


def test_a_cluster_with_a_name_of_its_own_is_never_attached():
    registry = Registry()
    learn(registry, CLUSTER, "demo-1")
    mine = find(registry, f"{CLUSTER} aurora_cluster=mine")
    assert learn(registry, f"{CLUSTER} aurora_cluster=mine", "demo-1") is mine


def test_names_of_ones_own_with_one_template_share_where_they_know_the_same_writer():
    registry = Registry()
    whole = learn(registry, "host=db.internal aurora_instance_host={id}.db.internal", "demo-1", "demo-2")
    again = learn(registry, "host=ro.internal aurora_instance_host={id}.db.internal", "demo-1", "demo-2")
    assert again is whole


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
        "from aurora_router.runtime.connect_args import read_connect_args\n"
        "from aurora_router.policy.route import route\n"
        "request = read_connect_args('host=10.0.0.1', {}).request\n"
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


# ---------------------------------------------------------------- signal handlers


def test_a_signal_handler_finds_the_cluster_that_the_frame_it_interrupted_was_making(monkeypatch):
    registry, found = Registry(), []
    make = Registry._new

    def interrupted(self, key):
        monkeypatch.setattr(Registry, "_new", make)
        found.append(find(registry, CLUSTER))  # the handler's connect
        return make(self, key)

    monkeypatch.setattr(Registry, "_new", interrupted)
    thread = threading.Thread(target=lambda: found.append(find(registry, CLUSTER)), daemon=True)
    thread.start()
    thread.join(20)
    assert len(found) == 2
    assert found[0] is found[1] is find(registry, CLUSTER)


def test_hosts_of_a_list_are_observed_without_the_lock(monkeypatch):
    """An observation may publish, and a subscriber may connect."""
    registry, seen = Registry(), []
    observe = Cluster.observe

    def observed(self, *args):
        seen.append(registry._lock._is_owned())
        return observe(self, *args)

    monkeypatch.setattr(Cluster, "observe", observed)
    cluster = find(registry, "host=10.0.0.1,10.0.0.2")
    assert (seen, len(cluster.view.instances)) == ([False], 2)
