"""When the certificates of a cluster's instances end.

libpq verifies a certificate and does not show it. So the TLS handshake is done once more, with the address that a
connection has, and no login: PostgreSQL answers a request for TLS with one byte before it. The certificate is not
judged here, the connection did that.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import psycopg

from aurora_router.errors import AuroraRouterError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aurora_router.router import Router

REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""PostgreSQL documentation, "Message Formats": SSLRequest."""
SECONDS = 3.0
"""For one instance that does not answer."""
_VERSION, _UTC_TIME = 0xA0, 0x17


def find_expiries(router: Router, instances: Iterable[str]) -> dict[str, datetime]:
    """When the certificate of each instance ends; not of those without TLS, and not of those that cannot be reached."""
    found: dict[str, datetime] = {}
    for each in instances:
        try:
            with router.connect(instance=each, aurora_failover_timeout=0, aurora_connect_timeout=SECONDS) as connection:
                info = connection.info
                if connection.pgconn.ssl_in_use:
                    found[each] = read_expiry(info.host, info.hostaddr, info.port)
        except (psycopg.Error, AuroraRouterError, OSError, ValueError):
            continue
    return found


def read_expiry(host: str, address: str, port: int) -> datetime:
    """When the certificate of a server ends.

    Raises:
        OSError: it cannot be reached, or does not do TLS.
        ValueError: its certificate is malformed.
    """
    with socket.create_connection((address, port), SECONDS) as plain:
        plain.sendall(REQUEST)
        if plain.recv(1) != b"S":
            raise ssl.SSLError(f"the server at {address}, port {port}, does not do TLS")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with context.wrap_socket(plain, server_hostname=host) as secure:
            return expiry_of(secure.getpeercert(binary_form=True) or b"")


def expiry_of(certificate: bytes) -> datetime:
    """When a certificate in DER ends (RFC 5280, section 4.1: the second time of its validity).

    Raises:
        ValueError: it is malformed.
    """
    _, content, _ = _read(certificate)
    _, rest, _ = _read(content)
    tag, _, after = _read(rest)
    if tag == _VERSION:
        rest = after
    for _ in ("serial number", "signature", "issuer"):
        _, _, rest = _read(rest)
    _, validity, _ = _read(rest)
    _, _, rest = _read(validity)
    tag, end, _ = _read(rest)
    text = end.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of DER, and what follows it."""
    if len(data) < 2:
        raise ValueError("the certificate is cut short")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    return tag, data[start : start + size], data[start + size :]
