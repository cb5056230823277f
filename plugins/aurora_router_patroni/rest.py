"""Asks Patroni's REST API: HTTP and HTTPS by the standard library, basic authentication, a client certificate."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 2.0
"""How long a member may take to accept a connection, and to send a part of its answer."""
LONGEST = 1 << 20
"""Bytes of an answer; a list of members is much shorter."""


class RestFailed(Exception):
    """A member's REST API gave no answer that can be used; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class RestApi:
    """How to reach the REST API; what the files hold is read with each question, so they may change.

    Attributes:
        login: file with ``user:password``; None: no login.
        ca: file with the certificates by which those of the servers are verified; None: the system's.
        cert: file with the certificate and key of this client; None: it has none.
    """

    login: str | None = None
    ca: str | None = None
    cert: str | None = None

    def get(self, url: str, path: str) -> Any:
        """Return what a member answers to a GET, read from JSON.

        Raises:
            RestFailed: it does not answer, not with 200, or not in JSON.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise RestFailed(f"{url}: {error}: correct it in aurora_patroni") from error
        where = f"{host}:{port or (443 if parts.scheme == 'https' else 80)}"
        try:
            connection = self._connect(parts.scheme, host, port)
            try:
                connection.request("GET", parts.path.rstrip("/") + path, headers=self._headers())
                response = connection.getresponse()
                status, text = response.status, response.read(LONGEST)
            finally:
                connection.close()
        except ssl.SSLError as error:
            raise RestFailed(
                f"{where}: TLS failed ({error.reason or error}): check aurora_patroni_ca, _cert"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise RestFailed(f"{where}: {type(error).__name__}: {error}") from error
        except ValueError as error:  # of a host or a path that cannot be encoded
            raise RestFailed(f"{url}: no such server can be asked ({error}): correct it in aurora_patroni") from error
        if status in {401, 403}:
            raise RestFailed(f"{where}: refused with {status}: name a file with user:password in aurora_patroni_login")
        if status != http.client.OK and path != "/patroni":  # which has another status where PostgreSQL is down
            raise RestFailed(f"{where}: answered {status} to GET {path}")
        try:
            return json.loads(text)
        except ValueError as error:
            raise RestFailed(
                f"{where}: the answer to GET {path} is no JSON, so it is not Patroni's REST API"
            ) from error

    def _connect(self, scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
        if scheme != "https":
            return http.client.HTTPConnection(host, port, timeout=SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=SECONDS, context=self._context())

    def _context(self) -> ssl.SSLContext:
        with _reading("aurora_patroni_ca", self.ca, "certificates in PEM"):
            context = ssl.create_default_context(cafile=self.ca)
        if self.cert is not None:
            with _reading("aurora_patroni_cert", self.cert, "a certificate and its key, not encrypted, in PEM"):
                context.load_cert_chain(self.cert, password=_refuse_encrypted)
        return context

    def _headers(self) -> dict[str, str]:
        if self.login is None:
            return {}
        with (
            _reading("aurora_patroni_login", self.login, "one line user:password in UTF-8"),
            open(self.login, encoding="utf-8") as file,  # noqa: PTH123 - a path as it was given
        ):
            login = file.read().strip()
        return {"Authorization": "Basic " + base64.b64encode(login.encode()).decode()}


def _refuse_encrypted() -> str:
    """What OpenSSL asks for the password of a key; without it, it would ask at the terminal."""
    raise ValueError("the key is encrypted")


@contextlib.contextmanager
def _reading(option: str, path: str | None, expected: str) -> Iterator[None]:
    """Let an error of reading the file of an option say which one it is, and what belongs there.

    Raises:
        RestFailed: the file cannot be read, or holds something else.
    """
    try:
        yield
    except (OSError, ValueError) as error:  # SSLError is an OSError; UnicodeDecodeError, a NUL: ValueErrors
        if isinstance(error, ssl.SSLError):
            why = f"is not what TLS needs ({error.reason or error})"
        elif isinstance(error, OSError):
            why = f"cannot be read ({error.strerror or error})"
        else:
            why = f"is not what is expected ({_describe(error)})"
        raise RestFailed(f"{option}={path} {why}: name a file that this process may read, with {expected}") from error


def _describe(error: ValueError) -> str:
    """What is wrong, without the bytes of a file with a password."""
    return f"no {error.encoding.upper()}" if isinstance(error, UnicodeDecodeError) else str(error)
