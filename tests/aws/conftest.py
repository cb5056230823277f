"""No AWS credentials of this machine, no network: each test says what there is."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("botocore")

from aurora_router_aws import sdk
from aurora_router_cluster.iam.tokens import Token

KEY, SECRET_KEY = "AKIDEXAMPLE", "wJalrXUtnFEMI-K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.fixture(autouse=True)
def no_aws(monkeypatch, tmp_path):
    """An environment without AWS in it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        monkeypatch.setenv(name, str(tmp_path / file))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sdk.forget()
    yield
    sdk.forget()


@pytest.fixture
def keys(monkeypatch):
    """Keys in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


def verify(text: str, secret_key: str) -> dict[str, str]:
    """What a token says; an `AssertionError` if its signature is not that of the key."""
    token = Token.parse(text)
    assert token.is_signed_by(secret_key)
    assert token.service == "rds-db"
    return {**token.parameters, "host": token.host, "region": token.region, "key": token.key}
