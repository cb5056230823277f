"""How a signature of AWS's version 4 is calculated, so that a server can verify one.

A request is signed over its canonical form (method, path, query, signed headers, hash of the body) with a key that is
derived from the secret key and the *scope*: day, region, service and a fixed end. So a server that has the secret key
can repeat the signature. Source: the AWS documentation, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALGORITHM, END = "AWS4-HMAC-SHA256", "aws4_request"
SIGNATURE = "X-Amz-Signature"
"""The parameter that holds the signature of a presigned request; all others are signed."""
STAMP = "%Y%m%dT%H%M%SZ"


def parse_stamp(text: str) -> datetime:
    """When a request was signed, by its ``X-Amz-Date``.

    Raises:
        ValueError: it is malformed.
    """
    return datetime.strptime(text, STAMP).replace(tzinfo=timezone.utc)


def canonicalize(
    method: str,
    path: str,
    query: Iterable[tuple[str, str]],
    headers: Iterable[tuple[str, str]],
    body: bytes = b"",
) -> str:
    """The canonical form of a request; `headers` are the signed ones, their names in lower case."""
    encoded = sorted((_quote(name), _quote(value)) for name, value in query if name != SIGNATURE)
    parameters = "&".join(f"{name}={value}" for name, value in encoded)
    signed = sorted(headers)
    lines = [f"{name}:{' '.join(value.split())}" for name, value in signed]
    return "\n".join([method, path, parameters, *lines, "", ";".join(name for name, _ in signed), _hash(body)])


def is_signed(canonical: str, secret: str, stamp: str, scope: Sequence[str], signature: str) -> bool:
    """Whether a secret key makes this signature.

    Args:
        canonical: what `canonicalize` returns.
        secret: the secret key.
        stamp: the ``X-Amz-Date``.
        scope: day, region, service and end.
        signature: in hexadecimal.
    """
    text = "\n".join([ALGORITHM, stamp, "/".join(scope), _hash(canonical.encode())])
    key = f"AWS4{secret}".encode()
    for part in (*scope, text):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.compare_digest(key.hex().encode(), signature.encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _quote(text: str) -> str:
    return quote(text, safe="-_.~")
