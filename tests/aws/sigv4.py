"""What a server does with an IAM token: verify its signature, by the documentation of signature version 4 alone."""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import parse_qsl, quote, urlsplit


def verify(token: str, secret_key: str) -> dict[str, str]:
    """What a token says; an `AssertionError` if its signature is not that of the key."""
    parts = urlsplit(f"https://{token}")
    query = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True))
    signature = query.pop("X-Amz-Signature")
    assert token.endswith(f"&X-Amz-Signature={signature}")
    written = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
    canonical = "\n".join(
        ["GET", "/", written, f"host:{parts.netloc.lower()}", "", "host", hashlib.sha256(b"").hexdigest()]
    )
    _, date, region, service, end = query["X-Amz-Credential"].split("/")
    key = f"AWS4{secret_key}".encode()
    for each in (date, region, service, end):
        key = hmac.digest(key, each.encode(), "sha256")
    scope = f"{date}/{region}/{service}/{end}"
    text = "\n".join(["AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    assert hmac.new(key, text.encode(), "sha256").hexdigest() == signature
    assert (query["X-Amz-Algorithm"], service, end) == ("AWS4-HMAC-SHA256", "rds-db", "aws4_request")
    assert query["X-Amz-Date"].startswith(date)
    return {**query, "host": parts.netloc, "region": region, "key": query["X-Amz-Credential"].split("/")[0]}
