"""What is at the other end of an address before any login, and its certificate.

libpq verifies a certificate and does not show it. So the TLS handshake is done once more, and no login: PostgreSQL
answers a request for TLS with one byte before it. The certificate is not judged here; libpq does that.
"""

from __future__ import annotations

import socket
import ssl
from datetime import datetime, timezone
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aurora_router.doctor.facts import Certificate, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
"""PostgreSQL documentation, "Message Formats": SSLRequest."""
SECONDS = 3.0
"""For one server that does not answer."""

_CONTEXT_0, _CONTEXT_3, _UTC_TIME, _DNS_NAME, _IP_ADDRESS, _BOOLEAN = 0xA0, 0xA3, 0x17, 0x82, 0x87, 0x01
_ALTERNATIVE_NAMES = bytes.fromhex("551d11")
_COMMON_NAME = bytes.fromhex("550403")


def read_wire(
    host: str | None, address: str, port: int, seconds: float = SECONDS
) -> tuple[Wire, str, Certificate | None]:
    """Return what is at an address, more about it in words, and the certificate of a server with TLS.

    Args:
        host: the name that is sent to the server (SNI).
        address: numeric.
        port: TCP port.
        seconds: how long each step may take.
    """
    try:
        plain = socket.create_connection((address, port), seconds)
    except ConnectionRefusedError as refused:
        return Wire.REFUSED, str(refused), None
    except OSError as failed:
        return Wire.UNREACHABLE, str(failed) or "no answer", None
    with plain:
        try:
            plain.sendall(REQUEST)
            answer = plain.recv(1)
        except TimeoutError:
            return Wire.SILENT, f"no byte within {seconds:g} s", None
        except OSError as failed:
            return Wire.FOREIGN, str(failed), None
        if answer == b"N":
            return Wire.PLAIN, "", None
        if answer != b"S":
            return Wire.FOREIGN, f"it answers {answer!r}" if answer else "it ends the connection", None
        try:
            return Wire.TLS, "", _shake_hands(plain, host)
        except (OSError, ValueError) as failed:
            return Wire.TLS, str(failed), None


def _shake_hands(plain: socket.socket, host: str | None) -> Certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(plain, server_hostname=host or None) as secure:
        return certificate_of(secure.getpeercert(binary_form=True) or b"")


def certificate_of(data: bytes) -> Certificate:
    """Read a certificate in DER (RFC 5280, section 4.1).

    Raises:
        ValueError: it is malformed.
    """
    _, content, _ = _read(data)
    _, rest, _ = _read(content)
    tag, _, after = _read(rest)
    if tag == _CONTEXT_0:  # the version
        rest = after
    for _ in ("serial number", "signature", "issuer"):
        _, _, rest = _read(rest)
    _, validity, rest = _read(rest)
    begins, ends = (_time(tag, text) for tag, text in _elements(validity))
    _, subject, rest = _read(rest)
    names = tuple(_alternative_names(rest)) or tuple(_common_names(subject))  # libpq looks at the second without
    return Certificate(names, begins, ends)


def _alternative_names(after_subject: bytes) -> Iterator[str]:
    for tag, content in _elements(after_subject):
        if tag != _CONTEXT_3:  # the extensions
            continue
        _, extensions, _ = _read(content)
        for _, extension in _elements(extensions):
            parts = [part for kind, part in _elements(extension) if kind != _BOOLEAN]
            if parts[0] == _ALTERNATIVE_NAMES:
                for kind, name in _elements(_read(parts[1])[1]):
                    if kind == _DNS_NAME:
                        yield name.decode("ascii", "replace")
                    elif kind == _IP_ADDRESS:
                        yield str(ip_address(name))


def _common_names(subject: bytes) -> Iterator[str]:
    for _, group in _elements(subject):
        for _, attribute in _elements(group):
            parts = [part for _, part in _elements(attribute)]
            if parts[0] == _COMMON_NAME:
                yield parts[1].decode("utf-8", "replace")


def _time(tag: int, text: bytes) -> float:
    digits = text.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year, 1950 to 2049
        digits = ("19" if digits >= "50" else "20") + digits
    return datetime.strptime(digits, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc).timestamp()


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    while data:
        tag, content, data = _read(data)
        yield tag, content


def _read(data: bytes) -> tuple[int, bytes, bytes]:
    """Tag and content of the first element of DER, and what follows it."""
    if len(data) < 2:
        raise ValueError("the certificate is cut short")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    return tag, data[start : start + size], data[start + size :]
