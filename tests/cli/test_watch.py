"""``aurora-router watch``: what it shows of a real failover."""

from __future__ import annotations

import json
import threading

import pytest

from aurora_router.cli import main as cli
from aurora_router.cli.watch import _Lines
from aurora_router.model.event import WriterChanged
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import View

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
    assert cli.main(["watch", cluster.conninfo(), "--seconds", "0"]) == 0
    assert f"{cluster.writer}=writer" in capsys.readouterr().out, "it looks once"


def test_events_are_shown_as_sentences(capsys):
    view = View(instances={"demo-1": Instance("demo-1", Role.WRITER)})
    _Lines(as_json=False).show(view, [(0.0, WriterChanged("demo-2", "demo-1", 2))])
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  writer is now demo-1 (was demo-2)")
    assert second == "demo-1=writer"


def test_an_unknown_host_is_an_error(capsys):
    assert cli.main(["watch", "host=nowhere.invalid aurora_connect_timeout=1"]) == 1
    assert "nowhere.invalid" in capsys.readouterr().err
