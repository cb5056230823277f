"""What goes wrong with AWS credentials gets the text that docs/bad-input.md has."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import yaml
from moto import mock_aws

import aurora_router
from aurora_router import Login
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credential_dial import login_for
from aurora_router.runtime.credentials import CredentialCache
from aurora_router_aws import IamTokens, iam, sdk

CASES = yaml.safe_load((Path(__file__).parent / "bad_credentials.yaml").read_text(encoding="utf-8"))
HOST = "demo-1.c9akciq32.eu-west-1.rds.amazonaws.com"


def ask(conninfo="", *, host=HOST, user="user=app", provider=None, kind="iam"):
    """Ask as a dial of the host that is given does."""
    named = "" if provider is not None else f"aurora_credentials={kind}"
    params = read_connect_args(f"host={host} {user} {named} {conninfo}", {"credentials": provider}).params
    target = SimpleNamespace(name=host, host=host, port=5432, addresses=())
    return CredentialCache(params.provider).get(login_for(params, target))


def tls_off(place):
    ask("sslmode=prefer")


def no_user(place):
    place.delenv("PGUSER", raising=False)
    ask(user="")


def own_name(place):
    ask(host="127.0.0.1")


def wrong_region(place):
    ask("aurora_aws_region=us-east-1")


def no_region(place):
    ask(host="orders.global-abc.global.rds.amazonaws.com")


def no_keys(place):
    ask()


def no_imds(place):
    place.delenv("AWS_EC2_METADATA_DISABLED")
    place.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1/")
    ask()


def expired_keys(place):
    keys = SimpleNamespace(access_key="A", secret_key="B", token="C")
    ended = dt.datetime.now(dt.timezone.utc) - dt.timedelta(seconds=1)
    ask(
        provider=IamTokens(credentials=lambda: SimpleNamespace(get_frozen_credentials=lambda: keys, _expiry_time=ended))
    )


def token_rejected(place):
    give_keys(place)
    place.setattr(iam, "_advise", iam._advise.__wrapped__)
    warnings = []
    place.setattr(iam.log, "warning", lambda text, *args: warnings.append(text % args))
    login = Login(HOST, 5432, "app", "app")
    cache = CredentialCache(IamTokens())
    assert cache.after_rejection(login, cache.get(login)) is None
    return f"the server's own `OperationalError` (authentication failed), and once a warning: {warnings[0]}"


def unknown_profile(place):
    ask("aurora_aws_profile=nosuch")


def give_keys(place):
    """Keys in the environment."""
    place.setenv("AWS_ACCESS_KEY_ID", "A")
    place.setenv("AWS_SECRET_ACCESS_KEY", "B")


def deny(place, code, action, resource):
    """Let AWS deny an action, in its words."""
    from botocore.exceptions import ClientError

    message = f"User arn:aws:iam::123456789012:user/app is not authorized to perform: {action} on resource: {resource}"

    def refuse(*_):
        raise ClientError({"Error": {"Code": code, "Message": message}}, action.partition(":")[2])

    place.setattr("botocore.client.BaseClient._make_api_call", refuse)
    give_keys(place)


def role_denied(place):
    deny(place, "AccessDenied", "sts:AssumeRole", "arn:aws:iam::123456789012:role/db")
    place.config.write_text(
        "[profile orders]\nrole_arn = arn:aws:iam::123456789012:role/db\ncredential_source = Environment\n"
    )
    ask("aurora_aws_profile=orders")


def not_installed(place):
    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore"]:
        place.delitem(sys.modules, name)
    place.setitem(sys.modules, "botocore", None)
    ask()


def option_of_another(place):
    read_connect_args("host=a aurora_aws_region=eu-west-1", {})


def ask_secret(name, more=""):
    ask(f"aurora_secret={name} {more}", user="", kind="secret")


def stored(place, **value):
    """A secret with this value, in eu-west-1."""
    give_keys(place)
    place.setenv("AWS_REGION", "eu-west-1")
    with mock_aws():
        if value:
            boto3.client("secretsmanager", region_name="eu-west-1").create_secret(Name="orders", **value)
        ask_secret("orders" if value else "nosuch")


def secret_not_named(place):
    ask(kind="secret")


def secret_malformed_arn(place):
    ask_secret("arn:aws:s3:::bucket")


def secret_without_region(place):
    ask_secret("orders")


def secret_unknown(place):
    stored(place)


def secret_denied(place):
    deny(place, "AccessDeniedException", "secretsmanager:GetSecretValue", "orders")
    ask_secret("orders", "aurora_aws_region=eu-west-1")


def secret_no_json(place):
    stored(place, SecretString="a-word")


def secret_without_password(place):
    stored(place, SecretString='{"username": "app"}')


def secret_binary(place):
    stored(place, SecretBinary=b"{}")


def secret_unreachable(place):
    give_keys(place)
    place.setattr(sdk, "RETRIES", {"mode": "standard", "total_max_attempts": 1})
    ask_secret("orders", "aurora_aws_region=eu-west-1 aurora_secret_endpoint=http://127.0.0.1:9")


def variable_missing(place):
    place.delenv("AURORA_PASSWORD", raising=False)
    ask(kind="env")


def file_missing(place):
    ask("aurora_password_file=/nowhere/db", kind="env")


def is_as_written(text, case):
    """Whether a text is that of the documentation, where … stands for anything."""
    return re.fullmatch(".*".join(map(re.escape, case["output"].split("…"))), text) is not None


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["situation"])
def test_what_goes_wrong_is_named(case, monkeypatch, tmp_path):
    monkeypatch.config = tmp_path / "config"
    if "error" not in case:
        assert is_as_written(globals()[case["situation"]](monkeypatch), case)
        return
    kind = getattr(aurora_router, case["error"])
    with pytest.raises(kind) as raised:
        globals()[case["situation"]](monkeypatch)
    assert type(raised.value) is kind
    told = re.sub(r"^the provider of credentials gave none( for user .*? at [^:]*)?: ", "", str(raised.value))
    assert is_as_written(told, case), told
