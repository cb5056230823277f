"""``aurora-router explain`` and ``topology``, as a person types them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aurora_router import __version__
from aurora_router.cli.inspect import read_target
from aurora_router.cli.main import main


def test_explain_tells_kind_role_and_reasons(capsys):
    assert main(["explain", "Mydb.cluster-ro-c9akciq32.eu-west-1.rds.amazonaws.com."]) == 0
    told = capsys.readouterr().out
    assert "reader endpoint" in told
    assert "reader\n" in told
    assert "instances are named {id}.c9akciq32.eu-west-1.rds.amazonaws.com" in told


def test_explain_as_json(capsys):
    assert main(["explain", "--json", "postgresql+aurora://u@db-1.c9ak.us-east-1.rds.amazonaws.com/app"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["kind"] == "instance endpoint"
    assert told["role"] == "any"
    assert told["cluster or instance"] == "db-1"
    assert told["candidates"] == []


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ("db.cluster-c9ak.us-east-1.rds.amazonaws.com", ["https://truststore.pki.rds.amazonaws.com/"]),
        ("db-1.c9ak.rds.cn-north-1.amazonaws.com.cn", ["roots for this partition"]),
        ("pool.proxy-c9ak.us-east-1.rds.amazonaws.com", ["sslrootcert=system", "prepare_threshold=None"]),
        ("ro.endpoint.proxy-c9ak.us-east-1.rds.amazonaws.com", ["sslrootcert=system", "prepare_threshold=None"]),
        ("db.cluster-c9ak.eu-test-1.rds.aurora.test", []),
    ],
)
def test_names_of_aws_get_advice(host, words, capsys):
    assert main(["explain", "--json", host]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert len(advice) == len(words)
    assert all(word in text for word, text in zip(words, advice, strict=True))
    assert main(["explain", host]) == 0
    assert all(text in capsys.readouterr().out or not words for text in advice[:1])


def test_options_change_the_explanation(capsys):
    assert main(["explain", "host=db.cluster-c9ak.us-east-1.rds.amazonaws.com aurora_role=prefer-reader"]) == 0
    assert "aurora_role=prefer-reader is given" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("host=db aurora_rol=reader", "did you mean aurora_role?"),
        ("db..example.com", "empty label"),
        ("host=db aurora_max_lag=-1", "aurora_max_lag"),
        ("host=10.0.0.300", "looks like an IPv4 address"),
    ],
)
def test_bad_input_is_said_in_one_line(target, words, capsys):
    assert main(["explain", target]) == 1
    error = capsys.readouterr().err
    assert error.startswith("aurora-router: ")
    assert words in error


def test_topology_of_nobody_says_who_was_asked(capsys):
    assert main(["topology", "host=127.0.0.1 port=1 user=x aurora_failover_timeout=0.2"]) == 1
    assert "127.0.0.1:1: connection failed" in capsys.readouterr().err


def test_a_bare_host_is_a_target():
    assert read_target("db.example.com") == "host=db.example.com"
    assert read_target("host=db port=1") == "host=db port=1"
    assert read_target("postgresql://db") == "postgresql://db"


def test_version_and_usage_errors_from_the_shell():
    done = subprocess.run([sys.executable, "-m", "aurora_router", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, f"aurora-router {__version__}")
    assert subprocess.run([sys.executable, "-m", "aurora_router"], capture_output=True).returncode == 2
