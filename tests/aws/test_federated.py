"""The example of a federated login in the documentation logs in, by moto's STS, and renews itself."""

from __future__ import annotations

import re
import time
from base64 import b64encode
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from moto import mock_aws

from aurora_router import Login
from aurora_router_aws import Secret, sdk

from .conftest import verify

PAGE = Path(__file__).parents[2] / "docs/howto-credentials.md"
HOST = "demo-1.c9akciq32.eu-west-1.rds.amazonaws.com"
ATTRIBUTE = (
    '<saml:Attribute Name="https://aws.amazon.com/SAML/Attributes/{}">'
    "<saml:AttributeValue>{}</saml:AttributeValue></saml:Attribute>"
)
ROLE = "arn:aws:iam::123456789012:role/orders-database,arn:aws:iam::123456789012:saml-provider/corp"
ASSERTION = (
    '<samlp:Response xmlns:samlp="urn:oasis:names:tc:SAML:2.0:protocol">'
    '<saml:Assertion xmlns:saml="urn:oasis:names:tc:SAML:2.0:assertion"><saml:AttributeStatement>'
    f"{ATTRIBUTE.format('Role', ROLE)}{ATTRIBUTE.format('RoleSessionName', 'app')}"
    f"{ATTRIBUTE.format('SessionDuration', '3600')}"
    "</saml:AttributeStatement></saml:Assertion></samlp:Response>"
)


@pytest.fixture
def example(keys, monkeypatch):
    """The names of the example, after it ran; ``given`` are the arguments of its connect."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    blocks = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (source,) = [each for each in blocks if "assume_role_with_saml" in each]
    asked, given = [], {}

    def fetch_assertion():
        asked.append(1)
        return b64encode(ASSERTION.encode()).decode()

    names = {
        "conninfo": "host=a",
        "my_identity_provider": SimpleNamespace(fetch_assertion=fetch_assertion),
        "aurora_router": SimpleNamespace(connect=lambda conninfo, **options: given.update(options)),
        "asked": asked,
        "given": given,
    }
    with mock_aws():
        exec(compile(source, PAGE.name, "exec"), names)
        yield names


def test_it_signs_tokens_with_the_keys_of_the_role(example):
    frozen = example["federated"].get_frozen_credentials()
    credential = example["given"]["credentials"](Login(HOST, 5432, "app", "app"))
    said = verify(credential.password, frozen.secret_key)
    assert (said["key"], said["X-Amz-Security-Token"], said["DBUser"]) == (frozen.access_key, frozen.token, "app")
    assert credential.expires_at - time.time() == pytest.approx(900.0, abs=10.0)
    assert len(example["asked"]) == 1, "the keys are good for an hour"


def test_it_logs_in_again_before_the_keys_end(example):
    federated = example["federated"]
    federated._expiry_time -= federated._expiry_time.resolution * 3_500_000_000  # an hour but for 100 s
    before = federated._frozen_credentials
    credential = example["given"]["credentials"](Login(HOST, 5432, "app", "app"))
    assert len(example["asked"]) == 2
    assert before.access_key not in credential.password
    assert credential.expires_at - time.time() > 800.0


def test_it_reads_secrets_too(example, monkeypatch):
    client = boto3.client("secretsmanager", region_name="eu-west-1")
    arn = client.create_secret(Name="orders", SecretString='{"username": "app", "password": "word"}')["ARN"]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    sdk.forget()
    found = Secret(arn, credentials=lambda: example["federated"])(Login(HOST, 5432, None, None))
    assert (found.user, found.password) == ("app", "word")
