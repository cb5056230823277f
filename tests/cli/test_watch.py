"""``aurora-router watch``: what it shows of a real failover."""

from __future__ import annotations

import json
import threading

import pytest

from aurora_router.cli import main as cli

pytestmark = pytest.mark.cluster


def test_a_failover_is_shown_as_lines_and_as_json(aurora_cluster_factory, capsys):
    cluster = aurora_cluster_factory(readers=1)
    old = cluster.writer
    timer = threading.Timer(1.0, cluster.failover)
    timer.start()
    assert cli.main(["watch", cluster.conninfo(), "--seconds", "8", "--refresh", "0.3", "--json"]) == 0
    timer.join()
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    changes = [line for line in lines if line.get("event") == "WriterChanged"]
    assert [line["old"] for line in changes] == [None, old]
    views = [line["view"] for line in lines if "view" in line]
    assert views[0]["writer"] == old
    assert views[-1]["writer"] == cluster.writer != old
    assert cli.main(["watch", cluster.conninfo(), "--seconds", "0.6"]) == 0
    assert f"{cluster.writer}=writer" in capsys.readouterr().out


def test_an_unknown_host_is_an_error(capsys):
    assert cli.main(["watch", "host=nowhere.invalid aurora_connect_timeout=1"]) == 1
    assert "nowhere.invalid" in capsys.readouterr().err
