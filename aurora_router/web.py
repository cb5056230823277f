"""Middleware that carries a causal token from one request of a client to its next: WSGI and ASGI, any framework.

>>> app = WsgiCausalMiddleware(app, keys=[key])
>>> router.run_transaction(work, on_causal=web.keep)  # in a request that writes
>>> router.connect(role="reader", after=web.current())  # in one that reads, the same or a later one

The token travels in a signed cookie, or in a header for clients that keep none. Within a request it is in a context
variable, so that threads and tasks of the request have it, too. What arrives without a valid signature counts as no
token. See ``docs/read-your-writes.md``.
"""

from __future__ import annotations

from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aurora_router.errors import CausalTokenRejected
from aurora_router.model.causal_token import CausalToken

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping, Sequence
    from contextvars import Context

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Any]]
    Send = Callable[[Any], Awaitable[None]]

__all__ = ["AsgiCausalMiddleware", "WsgiCausalMiddleware", "current", "forget", "is_in_request", "keep"]


@dataclass(slots=True)
class _Request:
    """The token of a request; one object, so that what a thread of the request keeps is seen by all of them."""

    token: CausalToken | None = None
    is_changed: bool = False


_request: ContextVar[_Request | None] = ContextVar("causal request", default=None)


def current() -> CausalToken | None:
    """Return the token of the request: what its client has written and seen so far; None: nothing, or no request."""
    request = _request.get()
    return None if request is None else request.token


def is_in_request() -> bool:
    """Return whether this code runs in a request of the middleware: whether what is kept reaches a client."""
    return _request.get() is not None


def keep(token: CausalToken) -> None:
    """Let the rest of this request, and later requests of its client, see what a token stands for.

    Outside of a request it does nothing.
    """
    request = _request.get()
    if request is not None:
        request.token, request.is_changed = token, True


def forget() -> None:
    """Drop the client's token: for the handler of `CausalTokenRejected`, after a cluster took another one's place."""
    request = _request.get()
    if request is not None:
        request.token, request.is_changed = None, True


class _Carrier:
    """What both kinds of middleware share: where the token is, and how it is signed.

    Args:
        app: the application.
        keys: the first one signs, each of them verifies; of at least 16 bytes, the same in all processes.
        cookie: the name of the cookie.
        header: the name of a header that carries the token, both ways, in the place of the cookie.
        secure: whether the client sends the cookie only over HTTPS.

    Raises:
        ValueError: there is no key, one is too short, or a name has characters that are not permitted.
    """

    def __init__(
        self,
        app: Any,
        *,
        keys: Sequence[bytes],
        cookie: str = "causal_token",
        header: str | None = None,
        secure: bool = True,
    ) -> None:
        if isinstance(keys, (bytes, str)) or not keys:
            raise ValueError("keys= takes a list of keys, of which the first one signs: keys=[key]")
        for key in keys:
            CausalToken.check_key(key)
        for name in (cookie, header or "x"):
            if not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
                raise ValueError(f"{name!r}: a cookie or header is named by letters, digits, - and _")
        self.app = app
        self._keys = tuple(keys)
        self._cookie = cookie
        self._header = header
        self._attributes = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")

    def _read(self, cookies: str, header: str | None) -> _Request:
        """The request, with the first valid token that its client sent."""
        given = [header] if header is not None else []
        if self._header is None:
            pairs = (each.strip().partition("=") for each in cookies.split(";"))
            given = [value for name, _, value in pairs if name == self._cookie]
        for text in given:
            for key in self._keys:
                try:
                    return _Request(CausalToken.parse(text, key=key))
                except CausalTokenRejected:
                    continue
        return _Request()

    def _answer(self, request: _Request) -> list[tuple[str, str]]:
        """The headers that give the client its token, if that has changed."""
        if not request.is_changed:
            return []
        text = "" if request.token is None else request.token.sign(self._keys[0])
        if self._header is not None:
            return [(self._header, text)]
        expired = "" if text else "; Max-Age=0"
        return [("Set-Cookie", f"{self._cookie}={text}{self._attributes}{expired}")]


class WsgiCausalMiddleware(_Carrier):
    """Carries the token through a WSGI application (PEP 3333), such as one of Flask or Django."""

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request."""
        named = None if self._header is None else "HTTP_" + self._header.upper().replace("-", "_")
        request = self._read(environ.get("HTTP_COOKIE", ""), None if named is None else environ.get(named))

        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            return start_response(status, [*headers, *self._answer(request)], *error)

        context = copy_context()
        context.run(_request.set, request)
        body = context.run(self.app, environ, start)
        return body if isinstance(body, (list, tuple)) else _Body(context, body)


class _Body:
    """The body of an answer, made in the request's context."""

    def __init__(self, context: Context, body: Iterable[bytes]) -> None:
        self._context = context
        self._body = body
        self._parts = context.run(iter, body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._context.run(next, self._parts)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            self._context.run(close)


class AsgiCausalMiddleware(_Carrier):
    """Carries the token through an ASGI application, such as one of Starlette, FastAPI or Django."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; what is not HTTP passes unchanged."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        sent = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
        cookies = "; ".join(value for name, value in sent if name == "cookie")
        named = None if self._header is None else dict(sent).get(self._header.lower())
        request = self._read(cookies, named)

        async def send_with_token(message: Any) -> None:
            if message["type"] == "http.response.start" and (added := self._answer(request)):
                headers = [(name.lower().encode(), value.encode()) for name, value in added]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        mark = _request.set(request)
        try:
            await self.app(scope, receive, send_with_token)
        finally:
            _request.reset(mark)
