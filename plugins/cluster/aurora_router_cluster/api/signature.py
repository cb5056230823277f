"""Signature version 4, the server's side: by which key a request was signed, and whether it is still valid.

`iam.sigv4` has how it is calculated. It is in the ``Authorization`` header, or, in a *presigned* request, in the query.
The codes and sentences are those of AWS's query services.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from aurora_router_cluster.api.errors import ApiError
from aurora_router_cluster.iam import sigv4
from aurora_router_cluster.iam.sigv4 import ALGORITHM, END, SIGNATURE, STAMP

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

SKEW = timedelta(minutes=15)
"""By how much a request may be older or newer than the server's clock."""
LONGEST_EXPIRY = 604_800  # seconds that a presigned request may be valid: seven days


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived.

    Attributes:
        method: e.g. ``POST``.
        path: as it was sent, without the query.
        query: as it was sent, without the question mark.
        headers: name in lower case -> value.
        body: of it.
    """

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says about its signature.

    Attributes:
        key: access key.
        date: of the scope, ``YYYYMMDD``.
        region: of the scope.
        service: of the scope.
        end: of the scope.
        headers: names of the signed headers.
        signature: in hexadecimal.
        stamp: when it was signed.
        expiry: seconds that it is valid; None: as long as clocks may differ.
    """

    key: str
    date: str
    region: str
    service: str
    end: str
    headers: tuple[str, ...]
    signature: str
    stamp: str
    expiry: int | None = None

    @property
    def scope(self) -> tuple[str, str, str, str]:
        return self.date, self.region, self.service, self.end


def verify(request: Request, secrets: Mapping[str, str], service: str, now: datetime) -> str:
    """Verify the signature of a request; returns the region that it is meant for.

    Args:
        request: as it arrived.
        secrets: access key -> secret key, of the keys that are valid.
        service: what is served here.
        now: aware.

    Raises:
        ApiError: it is not signed, not by one of the keys, not for this service, too old, or was changed.
    """
    claim = _read_claim(request)
    _check_scope(claim, service)
    secret = secrets.get(claim.key)
    if secret is None or "x-amz-security-token" in request.headers or "X-Amz-Security-Token" in _query(request):
        raise ApiError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    _check_time(claim, now)
    if not sigv4.is_signed(_canonicalize(request, claim.headers), secret, claim.stamp, claim.scope, claim.signature):
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details."
        )
    return claim.region


def _mismatch(message: str) -> ApiError:
    return ApiError("SignatureDoesNotMatch", message, 403)


def _incomplete(message: str) -> ApiError:
    return ApiError("IncompleteSignature", message)


def _query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query, keep_blank_values=True))


def _read_claim(request: Request) -> _Claim:
    query = _query(request)
    if SIGNATURE in query:
        return _read_presigned(query)
    header = request.headers.get("authorization")
    if header is None:
        raise ApiError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    algorithm, _, rest = header.partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Authorization header has to begin with {ALGORITHM}, not with {algorithm!r}.")
    parts: dict[str, str] = dict(re.findall(r"([A-Za-z]+)=([^,\s]+)", rest))
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if not parts.get(name)]
    stamp = request.headers.get("x-amz-date") or ""
    if missing or not stamp:
        wanted = [f"Authorization header requires '{name}' parameter." for name in missing]
        wanted += [] if stamp else ["Authorization header requires existence of 'X-Amz-Date' header."]
        raise _incomplete(" ".join(wanted))
    return _make_claim(parts["Credential"], parts["SignedHeaders"], parts["Signature"], stamp)


def _read_presigned(query: Mapping[str, str]) -> _Claim:
    names = ("X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-SignedHeaders", "X-Amz-Expires")
    if missing := [name for name in names if not query.get(name)]:
        raise _incomplete(" ".join(f"AWS query-string parameters must include '{name}'." for name in missing))
    if query["X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm has to be {ALGORITHM}.")
    expires = query["X-Amz-Expires"]
    if not re.fullmatch(r"[0-9]{1,6}", expires) or not 0 < int(expires) <= LONGEST_EXPIRY:
        raise _incomplete(f"X-Amz-Expires has to be 1 to {LONGEST_EXPIRY} seconds.")
    stamp, headers = query["X-Amz-Date"], query["X-Amz-SignedHeaders"]
    return _make_claim(query["X-Amz-Credential"], headers, query[SIGNATURE], stamp, int(expires))


def _make_claim(credential: str, headers: str, signature: str, stamp: str, expiry: int | None = None) -> _Claim:
    parts = credential.split("/")
    if len(parts) != 5:
        raise _incomplete("Credential must have exactly 5 elements: KEY/DATE/REGION/SERVICE/aws4_request")
    names = tuple(headers.lower().split(";"))
    key, date, region, service, end = parts
    return _Claim(key, date, region, service, end, names, signature, stamp, expiry)


def _check_scope(claim: _Claim, service: str) -> None:
    if claim.service != service:
        raise _mismatch(f"Credential should be scoped to correct service: '{service}'.")
    if claim.end != END:
        raise _mismatch(f"Credential should be scoped with a valid terminator: '{END}', not '{claim.end}'.")
    if "host" not in claim.headers:
        raise _mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization.")
    if claim.expiry is None and "x-amz-date" not in claim.headers:
        raise _mismatch("'X-Amz-Date' must be a 'SignedHeader' in the AWS Authorization.")


def _check_time(claim: _Claim, now: datetime) -> None:
    try:
        signed = sigv4.parse_stamp(claim.stamp)
    except ValueError:
        message = f"Date must be in ISO-8601 'basic format'. Got '{claim.stamp}'."
        raise _incomplete(message) from None
    if claim.date != claim.stamp[:8]:
        raise _mismatch(
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: "
            f"'{claim.date}' != '{claim.stamp[:8]}', from '{claim.stamp}'."
        )
    valid = SKEW if claim.expiry is None else timedelta(seconds=claim.expiry)
    oldest, newest, seen = now - valid, now + SKEW, now.strftime(STAMP)
    minutes = int(SKEW.total_seconds() // 60)
    if signed < oldest:
        span = f"{minutes} min." if claim.expiry is None else f"{claim.expiry} s"
        raise _mismatch(
            f"Signature expired: {claim.stamp} is now earlier than {oldest.strftime(STAMP)} ({seen} - {span})"
        )
    if signed > newest:
        raise _mismatch(
            f"Signature not yet current: {claim.stamp} is still later than {newest.strftime(STAMP)} "
            f"({seen} + {minutes} min.)"
        )


def _canonicalize(request: Request, signed: tuple[str, ...]) -> str:
    query = parse_qsl(request.query, keep_blank_values=True)
    headers = [(name, request.headers.get(name, "")) for name in signed]
    return sigv4.canonicalize(request.method, request.path or "/", query, headers, request.body)
