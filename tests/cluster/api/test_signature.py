"""The server's verification of signatures, against botocore's signing."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("botocore")

from aurora_router_cluster.api import signature
from aurora_router_cluster.api.errors import ApiError
from tests.cluster.api.signing import KEY, SECRET, signed

KEYS = {KEY: SECRET}
LIST = {"Action": "DescribeDBClusters", "Version": "2014-10-31"}
texts = st.text(st.characters(codec="utf-8"), max_size=12)


def now():
    return datetime.now(timezone.utc)


def verify(request, keys=KEYS, at=None):
    return signature.verify(request, keys, "rds", at or now())


def refused(request, **how):
    with pytest.raises(ApiError) as caught:
        verify(request, **how)
    return caught.value


@given(st.dictionaries(texts, texts), st.booleans())
def test_what_botocore_signs_is_accepted_and_its_region_returned(parameters, presign):
    assert verify(signed(parameters, presign=presign, region="us-west-2")) == "us-west-2"


@given(st.dictionaries(texts, texts, min_size=1), st.booleans(), st.data())
def test_what_is_changed_afterwards_is_refused(parameters, presign, data):
    request = signed(parameters, presign=presign)
    part = data.draw(st.sampled_from(["query", "body", "method", "host"]))
    if part == "host":
        changed = replace(request, headers={**request.headers, "host": "elsewhere:80"})
    elif part == "method":
        changed = replace(request, method="PUT")
    elif part == "body":
        changed = replace(request, body=request.body + b"&More=1")
    else:
        changed = replace(request, query=f"{request.query}&More=1")
    assert refused(changed).code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("presign", [False, True])
def test_a_wrong_secret_is_another_error_than_an_unknown_key(presign):
    error = refused(signed(LIST, presign=presign, secret="other"))
    assert (error.code, error.status) == ("SignatureDoesNotMatch", 403)
    error = refused(signed(LIST, presign=presign), keys={"AKIAOTHER": SECRET})
    assert (error.code, error.status) == ("InvalidClientTokenId", 403)


@pytest.mark.parametrize("presign", [False, True])
def test_a_session_token_belongs_to_no_test_key(presign):
    assert refused(signed(LIST, presign=presign, token="session")).code == "InvalidClientTokenId"


def test_a_request_is_valid_for_fifteen_minutes_and_a_presigned_one_for_as_long_as_it_says():
    request, presigned = signed(LIST), signed(LIST, presign=True)
    verify(request, at=now() + timedelta(minutes=14))
    verify(request, at=now() - timedelta(minutes=14))
    error = refused(request, at=now() + timedelta(minutes=16))
    assert error.code == "SignatureDoesNotMatch"
    assert error.message.startswith("Signature expired: ")
    assert error.message.endswith(" - 15 min.)")
    assert refused(request, at=now() - timedelta(minutes=16)).message.startswith("Signature not yet current: ")
    verify(presigned, at=now() + timedelta(seconds=50))
    assert refused(presigned, at=now() + timedelta(seconds=62)).message.startswith("Signature expired: ")


def test_the_scope_has_to_be_of_this_service():
    assert "scoped to correct service: 'rds'" in refused(signed(LIST, service="rds-db")).message


def header(change):
    request = signed(LIST)
    return replace(request, headers={**request.headers, "authorization": change(request.headers["authorization"])})


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (lambda: _headed("authorization"), "MissingAuthenticationToken", "missing Authentication"),
        (lambda: header(lambda text: text.replace("Credential", "Credentials")), "IncompleteSignature", "'Credential'"),
        (lambda: header(lambda text: text.partition(", Signature")[0]), "IncompleteSignature", "'Signature'"),
        (lambda: header(lambda _: "Basic abc"), "IncompleteSignature", "begin with AWS4-HMAC-SHA256"),
        (lambda: header(lambda text: text.replace("/rds/", "/")), "IncompleteSignature", "5 elements"),
        (lambda: header(lambda text: text.replace("aws4_", "aws5_")), "SignatureDoesNotMatch", "valid terminator"),
        (lambda: header(lambda text: text.replace("host;", "")), "SignatureDoesNotMatch", "'Host' must be"),
        (lambda: header(lambda text: text.replace(";x-amz-date", "")), "SignatureDoesNotMatch", "'X-Amz-Date' must"),
        (lambda: _dated("20260101"), "IncompleteSignature", "basic format"),
        (lambda: _dated("20200101T000000Z"), "SignatureDoesNotMatch", "Date in Credential scope"),
        (lambda: _headed("x-amz-date"), "IncompleteSignature", "existence of 'X-Amz-Date'"),
        (lambda: header(lambda text: text.replace("host;", "host;host;")), "SignatureDoesNotMatch", "does not match"),
        (lambda: header(lambda text: text[:-1] + "é"), "SignatureDoesNotMatch", "does not match"),
        (lambda: _presigned("Signature=", "Signature=%C3%A9"), "SignatureDoesNotMatch", "does not match"),
        (lambda: _presigned("X-Amz-Expires=60", "X-Amz-Expires=0"), "IncompleteSignature", "1 to 604800"),
        (lambda: _presigned("X-Amz-Expires=60", "X-Amz-Expires=1e3"), "IncompleteSignature", "1 to 604800"),
        (lambda: _presigned("X-Amz-Date", "X-Amz-Dote"), "IncompleteSignature", "must include 'X-Amz-Date'"),
        (lambda: _presigned("AWS4-HMAC-SHA256", "AWS5"), "IncompleteSignature", "has to be AWS4"),
    ],
)  # fmt: skip
def test_a_signature_that_cannot_be_read_is_explained(request_, code, text):
    error = refused(request_())
    assert error.code == code
    assert text in error.message


def _dated(stamp):
    request = signed(LIST)
    return replace(request, headers={**request.headers, "x-amz-date": stamp})


def _headed(without):
    request = signed(LIST)
    return replace(request, headers={name: text for name, text in request.headers.items() if name != without})


def _presigned(old, new):
    request = signed(LIST, presign=True)
    return replace(request, query=request.query.replace(old, new))
