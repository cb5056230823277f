from __future__ import annotations

import argparse
import re
from types import SimpleNamespace

import pytest

from aurora_router_cluster.client.cluster import LocalCluster
from aurora_router_cluster.commands.cluster import _configure_up
from aurora_router_cluster.errors import RequestError
from aurora_router_cluster.options import KEYWORDS, PACES, ClusterOptions, Pace
from aurora_router_cluster.postgres import settings
from aurora_router_cluster.scaling.capacity import CapacityLimits
from aurora_router_cluster.scaling.tracking import Metric, ScalingPolicy
from aurora_router_cluster.storage.rebuilding import recovery_settings
from aurora_router_cluster.storage.targets import Target


def test_there_and_back():
    options = ClusterOptions("demo", "demo-1", readers=3, settings={"work_mem": "1MB"}, port=5432)
    assert ClusterOptions.from_json(options.to_json()) == options


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        ("flavour", "nosuch", "unknown flavour 'nosuch'; there are direct"),
        ("detect", 0.0, "heartbeat interval"),
        ("dns_ttl", -1, "cannot be negative"),
        ("dns_delay", -0.5, "cannot be negative"),
        ("promotion", -1.0, "cannot be negative"),
        ("pace", "slow", "unknown pace 'slow'; there are fast, aws"),
        ("port", 70000, "70000 is not a port"),
        ("dns_port", -1, "-1 is not a port"),
        ("port", 0, "0 is not a port number .1 to 65535.; leave it out"),
        ("address", "::1", "IPv4 addresses only.*name one of 127.0.0.0/8"),
        ("address", "localhost", "'localhost' is no IP address"),
        ("address", "0.0.0.0", "is not the address of one instance"),
        ("readers", "2", "readers='2': want int, not str"),
        ("tls", 1, "tls=1: want bool"),
        ("iam_token_lifetime", 60.0, "with iam, tokens count for 1 to 900 seconds"),
        ("target_cpu", 50.0, "go with auto_scale=MIN..MAX"),
        ("scale_period", 0.0, "scale_period=0: want 0.05 to 3600 seconds"),
        ("scale_drain", -1.0, "cannot be negative"),
        ("serverless", "big", "serverless='big': want MIN..MAX"),
        ("serverless", "0.3..4", "multiples of 0.5 from 0 to 256 ACU"),
        ("serverless", "8..4", "not below the minimum"),
        ("scrub_interval", float("nan"), "want a number of seconds"),
        ("segment_size", 4096, "segment_size=4096: a segment is at least 1048576"),
    ],
)
def test_values_out_of_range_are_refused(option, value, complaint):
    with pytest.raises(RequestError, match=complaint):
        ClusterOptions("demo", "demo", **{option: value})


@pytest.mark.parametrize("option", [{"isolated": True}, {"segment_size": 1 << 20}])
def test_what_the_quorum_storage_has_the_direct_flavour_has_not(option):
    with pytest.raises(RequestError, match="options of flavour 'quorum', not of 'direct'"):
        ClusterOptions("demo", "demo", flavour="direct", **option)


def test_a_pace_is_a_default_of_which_parts_can_be_replaced():
    assert ClusterOptions("demo", "demo").failover == Pace()
    assert ClusterOptions("demo", "demo", pace="aws").failover == PACES["aws"]
    chosen = ClusterOptions("demo", "demo", pace="aws", promotion=0.5, restart_readers=False).failover
    assert chosen == Pace(detection=5.0, promotion=0.5, dns_delay=3.0, restart_readers=False)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"auto_scale": "1..5"}, "needs one of target_connections and target_cpu"),
        ({"auto_scale": "1..5", "target_cpu": 50.0, "target_connections": 5.0}, "needs one of"),
        ({"auto_scale": "3", "target_cpu": 50.0}, "want MIN..MAX"),
        ({"auto_scale": "5..1", "target_cpu": 50.0}, "not below the minimum"),
        ({"auto_scale": "1..16", "target_cpu": 50.0}, "0 to 15 readers"),
        ({"auto_scale": "0..0", "target_cpu": 50.0}, "the maximum is at least 1"),
        ({"auto_scale": "-1..2", "target_cpu": 50.0}, "want MIN..MAX"),
        ({"auto_scale": "1..2", "target_cpu": 101.0}, "at most 100 percent"),
        ({"auto_scale": "1..2", "target_connections": 0.0}, "above 0"),
        ({"auto_scale": "1..2", "target_cpu": 50.0, "readers": 3}, "above the maximum of auto_scale='1..2'"),
        ({"serverless": "0.5..2", "pause_after": 5.0}, "goes with a capacity that may be 0"),
        ({"pause_after": 5.0}, "goes with a capacity that may be 0"),
        ({"serverless": "0..2", "pause_after": 0.0}, "above 0 seconds"),
        ({"serverless": "0..2", "flavour": "direct"}, "leave out flavour 'direct'"),
        ({"serverless": "1..2", "instance_class": "db.r7g.large"}, "leave out instance_class"),
    ],
)
def test_scaling_that_makes_no_sense_is_refused_with_a_reason(given, complaint):
    with pytest.raises(RequestError, match=re.escape(complaint)):
        ClusterOptions("demo", "demo", **given)


def test_scaling_is_read():
    options = ClusterOptions("demo", "demo", auto_scale="1..5", target_connections=40.0, serverless="0..16")
    assert options.scaling == ScalingPolicy(1, 5, Metric.CONNECTIONS, 40.0)
    assert options.capacity == CapacityLimits(0.0, 16.0)
    assert ClusterOptions.from_json(options.to_json()) == options


def test_an_unknown_option_is_named():
    with pytest.raises(RequestError, match="nonsense"):
        ClusterOptions.from_json('{"name": "demo", "key": "demo", "nonsense": 1}')


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("dir", "did you mean directory"),
        ("set", "did you mean settings"),
        ("no_auto_failover", "did you mean auto"),
        ("reader", "did you mean readers"),
        ("flavor", "did you mean flavour"),
        ("xyzzy", "there are readers, "),
        ("owner", "there are readers, "),
    ],
)
def test_a_keyword_that_does_not_exist_is_answered_with_the_nearest(name, near):
    with pytest.raises(RequestError, match=f"^unknown option of a cluster: {name}; {near}"):
        LocalCluster.start(**{name: "x"})


def test_each_option_of_the_command_line_is_a_keyword_of_the_same_name():
    parser = argparse.ArgumentParser()
    _configure_up(parser)
    for action in parser._actions:
        if action.dest not in {"help", "detach"}:
            assert action.dest in KEYWORDS
            assert action.option_strings[0] == "--" + action.dest.replace("_", "-")
            assert action.default is None or action.default == getattr(ClusterOptions("demo", "demo"), action.dest)


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("synchronous_standby_names", "", "synchronous_standby_names cannot be set.*write quorum"),
        ("Port", "5432", "Port cannot be set.*use --port"),
        ("unix_socket_directories", "/tmp", "cannot be set"),
        ("primary_conninfo", "host=x", "cannot be set.*failover"),
        ("config_file", "/x", "cannot be set"),
        ("hot_standby", "off", "takes no connections"),
        ("wal_level", "minimal", "'replica' .the default. or 'logical'"),
        ("a'b", "1", "is not the name of a server setting"),
        ("a = 1\nb", "1", "is not the name of a server setting"),
        ("", "1", "is not the name of a server setting"),
        ("work_mem", "8MB\nx=1", "the value of work_mem has a line break"),
        ("work_mem", 8, "the value of work_mem is 8, a int"),
    ],
)
def test_settings_that_are_the_cluster_s_or_none_are_refused(name, value, complaint):
    with pytest.raises(RequestError, match=complaint):
        ClusterOptions("demo", "demo", settings={name: value})


def test_other_settings_are_the_user_s():
    ClusterOptions("demo", "demo", settings={"wal_level": "logical", "auto_explain.log_nested_statements": "on"})
    ClusterOptions("demo", "demo", flavour="direct", settings={"synchronous_standby_names": "*"})


def test_what_an_instance_is_configured_with_belongs_to_the_cluster():
    """What the engine, the volumes and a recovery write is refused, unless it only is a default for the user."""
    engine = {"listen_addresses", "port", "unix_socket_directories", "cluster_name"}
    assert engine <= settings.OWNED.keys()
    recovery = recovery_settings(Target(lsn=1), SimpleNamespace(end=1)).keys() - {"hot_standby_feedback"}
    assert recovery <= settings.OWNED.keys() | settings.OWNED_WHERE_COMMITS_WAIT.keys()
