"""What is at an address before any login; certificates in DER."""

from __future__ import annotations

import contextlib
import datetime as dt
import socket
import threading

import pytest

from aurora_router.doctor.facts import Wire
from aurora_router.doctor.gathering import wire
from aurora_router.doctor.gathering.wire import certificate_of, read_wire

trustme = pytest.importorskip("trustme")
x509 = pytest.importorskip("cryptography.x509")


def make_certificate(*names, end=None, common_name=None):
    """A certificate in DER."""
    from cryptography.hazmat.primitives.serialization import Encoding

    made = trustme.CA().issue_cert(*names, not_after=end, common_name=common_name)
    return x509.load_pem_x509_certificate(made.cert_chain_pems[0].bytes()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("year", [2027, 2049, 2050, 2127])
def test_the_end_is_read_in_both_of_its_forms(year):
    end = dt.datetime(year, 5, 17, 11, 22, 33, tzinfo=dt.timezone.utc)
    assert certificate_of(make_certificate("db.example.com", end=end)).ends == end.timestamp()


def test_names_and_addresses_are_read():
    found = certificate_of(make_certificate("db.example.com", "*.example.org", "10.1.2.3", "fd00::1"))
    assert sorted(found.names) == ["*.example.org", "10.1.2.3", "db.example.com", "fd00::1"]
    assert found.begins < found.ends


def test_without_alternative_names_the_common_name_counts():
    from cryptography import x509 as x
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding

    key = ec.generate_private_key(ec.SECP256R1())
    name = x.Name([x.NameAttribute(x.NameOID.COMMON_NAME, "old.example.com")])
    begin = dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)
    built = x.CertificateBuilder(name, name, key.public_key(), 7, begin, begin + dt.timedelta(days=9))
    data = built.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert certificate_of(data).names == ("old.example.com",)


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x03abc", b"no certificate at all"])
def test_what_is_no_certificate_is_refused(data):
    with pytest.raises(ValueError):
        certificate_of(data)


@contextlib.contextmanager
def listening(answer):
    """A server that answers the request for TLS in its own way; None: not at all."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            connection, _ = server.accept()
            with connection:
                assert connection.recv(8) == wire.REQUEST
                if answer is not None:
                    connection.sendall(answer)
                done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()
        finally:
            done.set()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "what"),
    [(b"N", Wire.PLAIN), (b"HTTP/1.1 400 Bad Request\r\n\r\n", Wire.FOREIGN), (b"", Wire.SILENT), (None, Wire.SILENT)],
)
def test_what_answers_is_recognised_by_one_byte(answer, what):
    with listening(answer) as (address, port):
        assert read_wire("db.example.com", address, port, seconds=0.3)[0] is what


def test_where_nothing_listens():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address, port = server.getsockname()
    assert read_wire(None, address, port)[0] is Wire.REFUSED
