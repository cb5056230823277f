from __future__ import annotations

import pytest

from aurora_router_cluster.errors import AddressInUseError, RequestError
from aurora_router_cluster.hosts.hosts import SECRET, AgentHosts, Host, Plan
from aurora_router_cluster.options import ClusterOptions

NODES = [f"eu-test-1{'abc'[i // 2]}=10.0.0.{i + 20}:7433" for i in range(6)]
OPTIONS = {"instances": ["eu-test-1a=10.0.0.10:7432", "eu-test-1b=10.0.0.11:7432"], "nodes": NODES}


@pytest.fixture(autouse=True)
def secret(monkeypatch):
    monkeypatch.setenv(SECRET, "between us")


def test_a_host_is_a_zone_and_an_address():
    assert Host.parse("eu-test-1a=10.0.0.10:7432") == Host("eu-test-1a", "10.0.0.10", 7432)
    assert Host.parse("10.0.0.10:7432").zone == ""


@pytest.mark.parametrize("text", ["", "10.0.0.1", "a=10.0.0.1:", "a=db.example:5", "a=10.0.0.1:x", "a=10.0.0.300:1"])
def test_what_is_no_host_is_named(text):
    with pytest.raises(RequestError, match="want ZONE=ADDRESS:PORT"):
        Host.parse(text)


def test_a_plan():
    plan = Plan.from_options({**OPTIONS, "advertise": "10.0.0.2", "name_server": "10.0.0.3:7434"})
    assert (plan.advertise, plan.secret) == ("10.0.0.2", "between us")
    assert plan.name_server == Host("", "10.0.0.3", 7434)
    assert plan.zones == ("eu-test-1a", "eu-test-1b", "eu-test-1c")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hosts": []}, "there is no hosts"),
        ({"instances": []}, "0 instances and 6 nodes"),
        ({"nodes": NODES[:5]}, "2 instances and 5 nodes"),
        ({"instances": ["10.0.0.1:1"]}, "needs its zone"),
        ({"name_server": "dns"}, "want ZONE=ADDRESS:PORT"),
    ],
)
def test_what_a_plan_cannot_be(change, says):
    with pytest.raises(RequestError, match=says):
        Plan.from_options({**OPTIONS, **change})


@pytest.mark.parametrize("value", ["", "zwölf", "a\nb"])
def test_without_a_secret_there_is_none(monkeypatch, value):
    monkeypatch.setenv(SECRET, value)
    with pytest.raises(RequestError, match=SECRET):
        Plan.from_options(OPTIONS)


@pytest.mark.parametrize("more", [{"flavour": "direct"}, {"isolated": True}, {"tls": True}])
def test_what_does_not_go_with_it(more):
    with pytest.raises(RequestError, match="remote goes with flavour 'quorum'"):
        ClusterOptions(name="demo", key="demo", remote=OPTIONS, **more)


async def test_instances_are_placed_where_a_host_is_free():
    hosts = AgentHosts(Plan.from_options(OPTIONS), 5432)
    second, second_zone = hosts.place("demo-1", "eu-test-1b")
    first, first_zone = hosts.place("demo-2", None)
    assert (second.host, second_zone) == ("10.0.0.11", "eu-test-1b")
    assert (first.host, first_zone) == ("10.0.0.10", "eu-test-1a")
    assert first.where.address == ("10.0.0.10", 5432)
    with pytest.raises(AddressInUseError, match="no host is free for demo-3"):
        hosts.place("demo-3", None)
    first.remove()
    with pytest.raises(AddressInUseError, match="no host in eu-test-1b is free"):
        hosts.place("demo-3", "eu-test-1b")
    assert hosts.place("demo-3", None)[0].host == "10.0.0.10"
