"""Patroni's REST API as the source reads it: over HTTP and TLS, with logins, and with all that can be wrong."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aurora_router.sources import Member, MembersFailed
from aurora_router_patroni import PatroniSource
from aurora_router_patroni.rest import RestFailed
from aurora_router_patroni.source import read_members

LISTED = [
    {"name": "n1", "role": "leader", "state": "running", "host": "10.0.0.1", "port": 5432, "timeline": 3},
    {"name": "n2", "role": "sync_standby", "state": "streaming", "host": "10.0.0.2", "port": 5433, "timeline": 3,
     "lag": 0, "tags": {"noloadbalance": True, "zone": "b"}},
]  # fmt: skip
MEMBERS = (Member("10.0.0.1", 5432, None, leads=True), Member("10.0.0.2", 5433, "b", serves_reads=False))


@contextlib.contextmanager
def serving(members=LISTED, system="7001", status=200, login=None, text=None):
    """A member's REST API with an answer of ours; yields its URL."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            own = {"/cluster": {"members": members}, "/patroni": {"database_system_identifier": system}}
            allowed = login is None or self.headers.get("Authorization") == login
            body = (text if text is not None else json.dumps(own[self.path])).encode()
            self.send_response(status if allowed else 401)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(*urls, hosts=(), **options):
    return PatroniSource.from_options({"patroni": urls, **options}).members(hosts)


def test_two_members_that_agree_are_the_whole_cluster():
    with serving() as one, serving() as other:
        found = ask(one, other)
    assert (found.members, found.system, found.complete, found.advice) == (MEMBERS, "7001", True, None)


def test_one_that_answers_is_not():
    with serving() as one:
        assert ask("http://127.0.0.1:1", one).complete is False


def test_members_that_disagree_give_all_that_either_lists_and_advice():
    with serving() as one, serving(members=LISTED[:1]) as other:
        found = ask(other, one)
    assert ({each.port for each in found.members}, found.complete) == ({5432, 5433}, False)
    assert "members of Patroni disagree: " in found.advice
    assert "lists 10.0.0.1:5432, 10.0.0.2:5433" in found.advice


@pytest.mark.parametrize(
    ("served", "says"),
    [
        ({"status": 503}, "answered 503 to GET /cluster"),
        ({"login": "Basic x"}, "refused with 401: name a file with user:password in aurora_patroni_login"),
        ({"text": "<html>"}, "is no JSON, so it is not Patroni's REST API"),
        ({"text": "[]"}, "has no members, so it is not Patroni's REST API"),
        ({"system": None}, "has no system identifier"),
    ],
    ids=["status", "login", "html", "other", "down"],
)
def test_what_is_wrong_is_named(served, says):
    with serving(**served) as url, pytest.raises(MembersFailed, match=says):
        ask(url)


def test_nothing_listens_there():
    with pytest.raises(MembersFailed, match=r"127.0.0.1:1: ConnectionRefusedError.*check aurora_patroni"):
        ask("http://127.0.0.1:1")


def test_a_login_is_read_from_its_file(tmp_path):
    (tmp_path / "login").write_text("monitor:secret\n")
    with serving(login="Basic bW9uaXRvcjpzZWNyZXQ=") as url:
        assert ask(url, url, patroni_login=str(tmp_path / "login")).members == MEMBERS
    with pytest.raises(MembersFailed, match="No such file"):
        ask("http://127.0.0.1:1", patroni_login=str(tmp_path / "none"))


FILE_OPTIONS = {
    "ca": "certificates in PEM",
    "cert": "a certificate and its key, not encrypted, in PEM",
    "login": "one line user:password in UTF-8",
}


@pytest.mark.parametrize("option", FILE_OPTIONS)
@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot be read (No such file or directory)"), (b"m\xf6:x", "is not what ")]
)
def test_a_bad_file_is_named_with_its_option(tmp_path, option, content, says):
    path = tmp_path / option
    if content is not None:
        path.write_bytes(content)
    expected = f"aurora_patroni_{option}={path} {says}.*name a file that this process may read, with "
    with pytest.raises(MembersFailed, match=expected.replace("(", r"\(").replace(")", r"\)") + FILE_OPTIONS[option]):
        ask("https://127.0.0.1:1", **{f"patroni_{option}": str(path)})


def test_bytes_of_a_login_are_in_no_message(tmp_path):
    (tmp_path / "login").write_bytes(b"monitor:secr\xf6t")
    with pytest.raises(MembersFailed, match="no UTF-8") as caught:
        ask("http://127.0.0.1:1", patroni_login=str(tmp_path / "login"))
    assert "f6" not in str(caught.value)


def test_an_encrypted_key_is_refused_instead_of_asking_at_the_terminal(tmp_path):
    pytest.importorskip("cryptography")
    trustme = pytest.importorskip("trustme")
    from cryptography.hazmat.primitives import serialization

    issued = trustme.CA().issue_cert("client")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "client.pem").write_bytes(key + issued.cert_chain_pems[0].bytes())
    with pytest.raises(MembersFailed, match=r"aurora_patroni_cert=.* \(the key is encrypted\): name a file"):
        ask("https://127.0.0.1:1", patroni_cert=str(tmp_path / "client.pem"))


BAD_URLS = [
    "http://127.0.0.1:99999",
    "http://127.0.0.1:x",
    "http://[::1",
    "http://pg..1:8008",
    "http://127.0.0.1:1/\u20ac",
]


@pytest.mark.parametrize("bad", BAD_URLS)
def test_one_bad_url_does_not_end_the_list(bad):
    with serving() as one, serving() as other:
        assert ask(bad, one, other).members == MEMBERS
    with pytest.raises(MembersFailed) as caught:
        ask(bad)
    assert f"({bad}: " in str(caught.value)
    assert "correct it in aurora_patroni" in str(caught.value)


def test_the_given_hosts_are_asked_where_no_url_is_given():
    with pytest.raises(MembersFailed, match=r"127.0.0.1:8008.*::1:8008"):
        PatroniSource.from_options({}).members(["127.0.0.1", "::1"])


def test_tls_is_verified(tmp_path):
    trustme = pytest.importorskip("trustme")
    import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with serving() as url:
        port = _behind_tls(url, context)
        assert ask(port, port, patroni_ca=str(tmp_path / "ca.pem")).members == MEMBERS
        with pytest.raises(MembersFailed, match=r"TLS failed .*check aurora_patroni_ca"):
            ask(port)


def _behind_tls(url, context):
    """A server with TLS before another one, for as long as the process runs."""
    import urllib.request

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with urllib.request.urlopen(url + self.path, timeout=5) as answer:
                body = answer.read()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"https://127.0.0.1:{server.server_port}"


@pytest.mark.parametrize(
    "member",
    [
        None, "n1", {}, {"host": "h"}, {"host": "", "port": 1}, {"host": "h", "port": "5432"}, {"host": "h", "port": 0},
        {"host": 5, "port": 5432},
    ],
)  # fmt: skip
def test_a_member_that_makes_no_sense_is_left_out(member):
    assert read_members({"members": [member, LISTED[0]]}) == MEMBERS[:1]


@pytest.mark.parametrize("answer", [None, [], {}, {"members": None}, "x"])
def test_an_answer_without_members_is_none_of_patronis(answer):
    with pytest.raises(RestFailed):
        read_members(answer)


@pytest.mark.parametrize(
    ("role", "leads"), [("leader", True), ("master", True), ("standby_leader", False), ("replica", False)]
)
def test_the_leader_in_the_words_of_each_version(role, leads):
    (found,) = read_members({"members": [{**LISTED[0], "role": role}]})
    assert found.leads is leads
