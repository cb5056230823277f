"""Requests as botocore signs them."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from aurora_router_cluster.api.signature import Request

KEY, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
HOST = "127.0.0.1:5055"


def signed(parameters, *, secret=SECRET, region="eu-test-1", service="rds", presign=False, headers=None, token=None):
    """A request with these parameters, in the body, or presigned in the query."""
    credentials = Credentials(KEY, secret, token)
    if presign:
        made = AWSRequest("GET", f"http://{HOST}/", params=parameters)
        SigV4QueryAuth(credentials, service, region, expires=60).add_auth(made)
    else:
        made = AWSRequest("POST", f"http://{HOST}/", data=urlencode(parameters), headers=headers or {})
        made.headers["Content-Type"] = "application/x-www-form-urlencoded; charset=utf-8"
        SigV4Auth(credentials, service, region).add_auth(made)
    prepared = made.prepare()
    parts = urlsplit(prepared.url)
    arrived = {"host": HOST, **{name.lower(): _text(value) for name, value in prepared.headers.items()}}
    body = prepared.body or b""
    return Request(made.method, parts.path, parts.query, arrived, body if isinstance(body, bytes) else body.encode())


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
