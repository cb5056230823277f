"""The token goes from one request of a client to its next, whatever the server's protocol."""

from __future__ import annotations

import asyncio
import threading

import pytest

from aurora_router import CausalToken, web
from aurora_router.model.causal_token import LogPosition

KEY, OTHER = b"k" * 32, b"o" * 32
TOKEN = CausalToken(LogPosition("7", 1, 255))
NEWER = CausalToken(LogPosition("7", 1, 256))


class Wsgi:
    """Serves requests through the middleware as a WSGI server does."""

    def __init__(self, act, **options):
        self.app = web.WsgiCausalMiddleware(self._make(act), **{"keys": [KEY], **options})

    def _make(self, act):
        def app(environ, start_response):
            act()
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [b"done"]

        return app

    def request(self, headers):
        environ = {"HTTP_" + name.upper().replace("-", "_"): value for name, value in headers}
        answered = []
        body = self.app(environ, lambda status, headers: answered.extend(headers))
        assert b"".join(body) == b"done"
        return [(name.lower(), value) for name, value in answered]


class Streaming(Wsgi):
    """An application that is a generator: it begins when its body is asked for."""

    def _make(self, act):
        def app(environ, start_response):
            act()
            start_response("200 OK", [("Content-Type", "text/plain")])
            yield b"do"
            yield b"ne"

        return app


class Asgi:
    """The same as an ASGI server does."""

    def __init__(self, act, **options):
        async def app(scope, receive, send):
            act()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"done"})

        self.app = web.AsgiCausalMiddleware(app, **{"keys": [KEY], **options})

    def request(self, headers):
        scope = {"type": "http", "headers": [(name.lower().encode(), value.encode()) for name, value in headers]}
        sent = []

        async def send(message):
            sent.append(message)

        asyncio.run(self.app(scope, None, send))
        assert [each["type"] for each in sent] == ["http.response.start", "http.response.body"]
        return [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]


SERVERS = [Wsgi, Streaming, Asgi]


def cookie_of(headers):
    """The cookie that a client would send back, and its attributes."""
    found = [value for name, value in headers if name == "set-cookie"]
    if not found:
        return None, ()
    pair, *attributes = found[0].split("; ")
    return pair, attributes


@pytest.mark.parametrize("server", SERVERS)
def test_a_cookie_carries_the_token_to_the_next_request(server):
    seen = []
    cookie, attributes = cookie_of(server(lambda: web.keep(TOKEN)).request([]))
    assert attributes == ["Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
    answered = server(lambda: seen.append(web.current())).request([("Cookie", f"theme=dark; {cookie}; a")])
    assert seen == [TOKEN]
    assert seen[0].is_trusted
    assert cookie_of(answered) == (None, ()), "it is the same token"


@pytest.mark.parametrize("server", SERVERS)
def test_a_later_token_takes_its_place(server):
    seen = []
    cookie, _ = cookie_of(server(lambda: web.keep(TOKEN)).request([]))

    def write():
        web.keep(NEWER)
        seen.append(web.current())

    cookie, _ = cookie_of(server(write).request([("Cookie", cookie)]))
    assert seen == [NEWER]
    assert CausalToken.parse(cookie.partition("=")[2], key=KEY) == NEWER


@pytest.mark.parametrize("server", SERVERS)
def test_a_header_carries_it_for_clients_without_cookies(server):
    seen = []
    (_, (name, value)) = server(lambda: web.keep(TOKEN), header="X-Causal-Token").request([])
    assert name == "x-causal-token"
    reader = server(lambda: seen.append(web.current()), header="X-Causal-Token")
    reader.request([("X-Causal-Token", value)])
    reader.request([("Cookie", f"causal_token={value}")])
    assert seen == [TOKEN, None]


@pytest.mark.parametrize("server", SERVERS)
@pytest.mark.parametrize("text", [str(TOKEN), TOKEN.sign(OTHER), "", "nonsense", "1l.1.1.1.s" + "A" * 22])
def test_what_was_not_signed_counts_as_no_token(server, text):
    seen = []
    server(lambda: seen.append(web.current())).request([("Cookie", f"causal_token={text}")])
    assert seen == [None]


@pytest.mark.parametrize("server", SERVERS)
def test_keys_change_without_a_token_that_is_lost(server):
    seen = []
    cookie, _ = cookie_of(server(lambda: web.keep(TOKEN), keys=[OTHER]).request([]))
    server(lambda: seen.append(web.current()), keys=[KEY, OTHER]).request([("Cookie", cookie)])
    assert seen == [TOKEN]


@pytest.mark.parametrize("server", SERVERS)
def test_a_token_that_was_refused_is_dropped_at_the_client(server):
    cookie, attributes = cookie_of(server(web.forget).request([("Cookie", f"causal_token={TOKEN.sign(KEY)}")]))
    assert cookie == "causal_token="
    assert "Max-Age=0" in attributes


@pytest.mark.parametrize("server", SERVERS)
def test_requests_do_not_see_each_other(server):
    server(lambda: web.keep(TOKEN)).request([])
    seen = []
    server(lambda: seen.append(web.current())).request([])
    assert seen == [None]
    assert web.current() is None


def test_a_thread_of_the_request_keeps_a_token_for_it():
    from contextvars import copy_context

    def work():
        thread = threading.Thread(target=copy_context().run, args=(web.keep, TOKEN))
        thread.start()
        thread.join()

    cookie, _ = cookie_of(Asgi(work).request([]))
    assert cookie == f"causal_token={TOKEN.sign(KEY)}"


def test_outside_of_a_request_there_is_nothing_to_keep():
    web.keep(TOKEN)
    web.forget()
    assert web.current() is None


def test_a_body_is_closed_once_the_server_closes_it():
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"done"])

        def close(self):
            closed.append(True)

    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()

    body = web.WsgiCausalMiddleware(app, keys=[KEY])({}, lambda status, headers: None)
    assert list(body) == [b"done"]
    body.close()
    assert closed == [True]


async def test_what_is_not_http_passes():
    seen = []

    async def app(scope, receive, send):
        seen.append((scope, receive, send))

    await web.AsgiCausalMiddleware(app, keys=[KEY])({"type": "lifespan"}, None, None)
    assert seen == [({"type": "lifespan"}, None, None)]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"keys": []}, "list of keys"),
        ({"keys": KEY}, "list of keys"),
        ({"keys": [b"short"]}, "at least 16 bytes"),
        ({"keys": ["k" * 32]}, "at least 16 bytes"),
        ({"keys": [KEY], "cookie": "a b"}, "named by letters"),
        ({"keys": [KEY], "header": "a:b"}, "named by letters"),
        ({"keys": [KEY], "cookie": ""}, "named by letters"),
    ],
)
def test_a_wrong_set_up_is_refused_when_it_is_made(options, why):
    for kind in (web.WsgiCausalMiddleware, web.AsgiCausalMiddleware):
        with pytest.raises(ValueError, match=why):
            kind(None, **options)
