"""The ends of the certificates of a real cluster."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from aurora_router.cli.main import main
from aurora_router_cluster import LocalCluster

trustme = pytest.importorskip("trustme")
x509 = pytest.importorskip("cryptography.x509")


@pytest.mark.cluster
def test_topology_says_when_they_end(capsys):
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not places:
        pytest.skip("needs the system's PostgreSQL: the one in the wheel is without TLS")
    with LocalCluster.start(readers=1, tls=True, postgres=str(places[-1].parent)) as cluster:
        tls = {"sslmode": "verify-full", "sslrootcert": cluster.certificate_authority}
        assert main(["topology", "--json", cluster.conninfo("writer", **tls)]) == 0
        found = json.loads(capsys.readouterr().out)["instances"]
        written = [
            x509.load_pem_x509_certificate((Path(each.socket_directory) / "server.crt").read_bytes())
            for each in cluster.instances
        ]
        assert [dt.datetime.fromisoformat(each["certificate_expires"]) for each in found] == [
            each.not_valid_after_utc for each in written
        ]
        cluster.kill("demo-2", hold=True)
        assert main(["topology", "--json", cluster.conninfo("writer", **tls)]) == 0
        ends = {each["id"]: each["certificate_expires"] for each in json.loads(capsys.readouterr().out)["instances"]}
        assert ends["demo-1"] is not None
        assert ends.get("demo-2") is None
        assert main(["topology", "--json", cluster.conninfo("writer", sslmode="disable")]) == 0
        assert {each["certificate_expires"] for each in json.loads(capsys.readouterr().out)["instances"]} == {None}
