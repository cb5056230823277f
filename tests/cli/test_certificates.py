"""The ends of certificates: of certificates in DER, and of a real cluster's."""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
from pathlib import Path

import pytest

from aurora_router.cli import certificates
from aurora_router.cli.certificates import expiry_of, read_expiry
from aurora_router.cli.main import main
from aurora_router_cluster import LocalCluster

trustme = pytest.importorskip("trustme")
x509 = pytest.importorskip("cryptography.x509")


def make_certificate(end, host="db.example.com"):
    """A certificate in DER."""
    made = trustme.CA().issue_cert(host, not_after=end)
    return x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).public_bytes(encoding())


def encoding():
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.DER


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2127])
def test_the_end_is_read_in_both_of_its_forms(year):
    end = dt.datetime(year, 5, 17, 11, 22, 33, tzinfo=dt.timezone.utc)
    assert expiry_of(make_certificate(end)) == end


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x03abc", b"no certificate at all"])
def test_what_is_no_certificate_is_refused(data):
    with pytest.raises(ValueError):
        expiry_of(data)


def test_a_server_without_tls_is_named():
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer():
            connection, _ = server.accept()
            with connection:
                assert connection.recv(8) == certificates.REQUEST
                connection.sendall(b"N")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(OSError, match="does not do TLS"):
            read_expiry("db.example.com", *server.getsockname())
        thread.join()


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
