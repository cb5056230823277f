"""Secrets of Secrets Manager: read once, renewed, bridged while they rotate, never shown; with real PostgreSQL too."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
import traceback

import boto3
import psycopg
import pytest
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import ClientError, EndpointConnectionError
from moto import mock_aws

import aurora_router
from aurora_router import CredentialsUnavailable, InvalidOption, Login
from aurora_router.runtime import credentials
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credentials import CredentialCache
from aurora_router.runtime.registry import REGISTRY
from aurora_router_aws import Secret, sdk
from aurora_router_aws import secret as secret_module
from aurora_router_cluster import LocalCluster
from tests.superuser import run_as_superuser

from .conftest import SECRET_KEY
from .rotation import HIDDEN, PATIENT, REGION, Rotation, login, rotate_under_load, store, who

LOGIN = Login("demo-1.c9akciq32.eu-west-1.rds.amazonaws.com", 5432, None, "app", "demo-1")


@pytest.fixture
def manager(keys):
    """Secrets Manager, in this process."""
    with mock_aws():
        yield boto3.client("secretsmanager", region_name=REGION)
        sdk.forget()


def said(credential):
    return credential.user, credential.password.removeprefix(f"{HIDDEN} ")


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("more", [{}, {"engine": "postgres", "host": "elsewhere", "port": 1, "dbname": "other"}])
def test_user_and_password_alone_count(manager, more):
    arn = store(manager, {"username": "seller", "password": "word", **more})
    credential = Secret(arn)(LOGIN)
    assert (credential.user, credential.password, credential.expires_at) == ("seller", "word", None)
    assert 0.8 * 900 - 5 <= credential.renew_at - time.time() <= 900


def test_a_name_needs_a_region(manager, monkeypatch):
    store(manager, login(1), name="prod/orders@db")
    with pytest.raises(CredentialsUnavailable, match=r"does not say the region.*aurora_aws_region or AWS_REGION"):
        Secret("prod/orders@db")(LOGIN)
    assert said(Secret("prod/orders@db", REGION)(LOGIN)) == ("seller", "1")
    monkeypatch.setenv("AWS_REGION", REGION)
    assert said(Secret("prod/orders@db")(LOGIN)) == ("seller", "1")


def test_a_replica_is_read_in_its_own_region(manager):
    arn = manager.create_secret(Name="orders", SecretString=login(1), AddReplicaRegions=[{"Region": "eu-central-1"}])[
        "ARN"
    ]
    assert said(Secret(arn, "eu-central-1")(LOGIN)) == ("seller", "1")
    with pytest.raises(CredentialsUnavailable, match="ResourceNotFoundException"):
        Secret(arn, "eu-north-1")(LOGIN)


@pytest.mark.parametrize(
    ("arn", "region"),
    [
        ("arn:aws:secretsmanager:eu-west-1:123456789012:secret:orders-AbCdEf", "eu-west-1"),
        ("arn:aws-cn:secretsmanager:cn-north-1:123456789012:secret:orders-AbCdEf", "cn-north-1"),
        ("arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:rds!cluster-1-AbCdEf", "us-gov-west-1"),
        ("arn:aws-eusc:secretsmanager:eusc-de-east-1:123456789012:secret:a/b-AbCdEf", "eusc-de-east-1"),
        ("arn:aws-iso-b:secretsmanager:us-isob-east-1:123456789012:secret:orders-AbCdEf", "us-isob-east-1"),
    ],
)
def test_the_region_is_that_of_the_arn(keys, monkeypatch, arn, region):
    asked = []

    class Client:
        def get_secret_value(self, **given):
            return asked.append(given) or {"SecretString": login(1)}

    monkeypatch.setattr(sdk, "find_client", lambda *given: asked.append(given) or Client())
    Secret(arn, endpoint="https://vpce.example", profile="orders")(LOGIN)
    assert asked == [
        ("secretsmanager", region, "https://vpce.example", "orders", None),
        {"SecretId": arn, "VersionStage": "AWSCURRENT"},
    ]


def test_the_endpoint_is_asked(keys):
    client = sdk.run("try", lambda: sdk.find_client("secretsmanager", REGION, "http://127.0.0.1:9", None, None))
    assert client.meta.endpoint_url == "http://127.0.0.1:9"
    assert client.meta.config.retries["mode"] == "standard"
    assert client.meta.config.retries["total_max_attempts"] == 4


def test_a_client_counts_as_long_as_its_keys(keys, monkeypatch):
    def find(*given):
        return sdk.run("try", lambda: sdk.find_client("secretsmanager", REGION, None, None, *given or (None,)))

    first = find()
    assert find() is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEXT")
    assert find() is not first
    until = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1)
    held = RefreshableCredentials("AKIDHOOK", "B", "C", until, refresh_using=None, method="hook")

    def hook():
        return held

    assert find(hook) is find(hook)
    assert find(hook)._get_credentials() is held


def test_all_instances_share_it(manager, monkeypatch):
    arn, read = store(manager, login(1)), []
    monkeypatch.setattr(Secret, "_read", lambda self, stage: read.append(stage) or login(1))
    cache = CredentialCache(Secret(arn))
    for host in ("a", "b", "c"):
        assert said(cache.get(LOGIN._replace(host=host, instance=host, database=host)).credential) == ("seller", "1")
    assert read == ["AWSCURRENT"]


# ---------------------------------------------------------------- what goes wrong


def refusing(monkeypatch, error):
    def refuse(*_, **__):
        raise error

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)


def test_an_outage_is_survived_with_what_was_read_last(manager, monkeypatch, caplog):
    now = [time.time()]
    monkeypatch.setattr(credentials.time, "time", lambda: now[0])
    cache = CredentialCache(Secret(store(manager, login(1))))
    assert said(cache.get(LOGIN).credential) == ("seller", "1")
    refusing(monkeypatch, EndpointConnectionError(endpoint_url="https://secretsmanager.eu-west-1.amazonaws.com"))
    now[0] += 3 * 3600.0
    assert said(cache.get(LOGIN).credential) == ("seller", "1")
    deadline = time.monotonic() + 30.0
    while "EndpointConnectionError" not in caplog.text:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert said(cache.get(LOGIN).credential) == ("seller", "1")
    assert HIDDEN not in caplog.text


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        ("AccessDeniedException", "permit it in the policy"),
        ("ResourceNotFoundException", "check the name, the account and the region"),
        ("DecryptionFailure", "permit kms:Decrypt"),
        ("ExpiredTokenException", "renew them"),
        ("UnrecognizedClientException", "does not know the access key"),
        ("InvalidRequestException", "cannot read the secret"),
    ],
)
def test_what_aws_refuses_is_named(manager, monkeypatch, code, hint):
    arn = store(manager, login(1))
    refusing(monkeypatch, ClientError({"Error": {"Code": code, "Message": f"no\n{HIDDEN}"}}, "GetSecretValue"))
    with pytest.raises(CredentialsUnavailable, match=f"cannot read the secret {arn}: {code}: no") as raised:
        CredentialCache(Secret(arn)).get(LOGIN)
    assert hint in str(raised.value)
    assert HIDDEN not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (HIDDEN, "is no JSON object: store a JSON object with"),
        (f'{{"username": "seller", "password": "{HIDDEN}"', "is no JSON object"),
        (f'["{HIDDEN}"]', "is no JSON object"),
        (json.dumps({"user": "seller", "password": HIDDEN}), 'has no text under "username"'),
        (json.dumps({"username": HIDDEN}), 'has no text under "password"'),
        (json.dumps({"username": HIDDEN, "password": 5}), 'has no text under "password"'),
        (json.dumps({"username": HIDDEN, "password": ""}), 'has no text under "password"'),
    ],
)
def test_what_is_no_user_and_password_is_named_without_showing_it(manager, value, told):
    provider = Secret(store(manager, value))
    with pytest.raises(CredentialsUnavailable, match=told) as raised:
        CredentialCache(provider).get(LOGIN)
    assert HIDDEN not in "".join(traceback.format_exception(raised.value))
    assert HIDDEN not in repr(raised.value)


def test_a_binary_secret_is_named(manager):
    arn = manager.create_secret(Name="orders", SecretBinary=HIDDEN.encode())["ARN"]
    with pytest.raises(CredentialsUnavailable, match=r"orders.* is binary: store a JSON object"):
        Secret(arn)(LOGIN)


@pytest.mark.parametrize(
    ("conninfo", "told"),
    [
        ("aurora_credentials=secret", "needs to know which: set aurora_secret to its ARN or name"),
        ("aurora_credentials=secret aurora_secret=arn:aws:s3:::bucket", "is no ARN of a secret"),
        (
            "aurora_credentials=secret aurora_secret=a aurora_iam_host=a.b1.eu-west-1.rds.amazonaws.com",
            "no effect with",
        ),
        ("aurora_credentials=iam aurora_secret=a", "aurora_secret has no effect with aurora_credentials=iam"),
        ("aurora_secret=a", "aurora_secret has no effect without aurora_credentials"),
        ("aurora_credentials=secret aurora_secret=a aurora_secret_endpoint=host", "is no URL of a server"),
        ("aurora_credentials=secret aurora_secret=a aurora_secret_endpoint=http://u:p@h", "belongs in the conninfo"),
    ],
)
def test_options_that_contradict_each_other(conninfo, told):
    with pytest.raises(InvalidOption, match=told):
        read_connect_args(f"host=a {conninfo}", {})


def test_options_make_the_provider():
    arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:rds!cluster-1@x-AbCdEf"
    given = f"aurora_credentials=secret aurora_secret={arn} aurora_secret_endpoint=https://vpce.example/x"
    provider = read_connect_args(f"host=a {given} aurora_aws_region=eu-west-3 aurora_aws_profile=p", {}).params.provider
    assert provider == Secret(arn, "eu-west-3", "p", "https://vpce.example/x")
    assert "sslmode" not in read_connect_args(f"host=a {given}", {}).params


# ---------------------------------------------------------------- rotations


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=1) as cluster:
        run_as_superuser(cluster, f"CREATE ROLE seller LOGIN PASSWORD '{HIDDEN} 0'")
        run_as_superuser(cluster, f"CREATE ROLE seller_clone LOGIN PASSWORD '{HIDDEN} 0'")
        yield cluster


@pytest.fixture
def rotation(cluster, manager, monkeypatch):
    monkeypatch.setattr(credentials, "_by_provider", {})
    yield Rotation(
        manager, lambda user, number: run_as_superuser(cluster, f"ALTER ROLE {user} PASSWORD '{HIDDEN} {number}'")
    )
    REGISTRY.reset()


def options_of(cluster, rotation, **more):
    given = dict(each.split("=", 1) for each in cluster.conninfo("writer").split())
    del given["password"], given["user"]
    return {**given, "aurora_credentials": "secret", "aurora_secret": rotation.arn, **PATIENT, **more}


@pytest.mark.cluster
@pytest.mark.parametrize("awaited", [False, True])
def test_connects_succeed_in_each_step_of_a_rotation(cluster, rotation, awaited):
    options = options_of(cluster, rotation)
    for _ in range(2):
        assert who(options, awaited=awaited) == "seller"
        rotation.begin()
        assert who(options, awaited=awaited) == "seller"
        rotation.end()
        assert who(options, awaited=awaited) == "seller"


@pytest.mark.cluster
def test_the_user_changes_with_alternating_users(cluster, rotation):
    options = options_of(cluster, rotation, user="not-this-one")
    assert who(options) == "seller"
    rotation.begin("seller_clone")
    assert who(options) == "seller"
    rotation.end()
    rotation.change("seller", 99)
    assert who(options) == "seller_clone"


@pytest.mark.cluster
def test_a_pending_version_that_may_not_be_read_leaves_the_servers_error(cluster, rotation, monkeypatch, caplog):
    options, original = options_of(cluster, rotation), Secret._read
    assert who(options) == "seller"
    rotation.begin()

    def denied(self, stage):
        if stage == "AWSPENDING":
            told = {"Error": {"Code": "AccessDeniedException", "Message": "not authorized"}}
            raise ClientError(told, "GetSecretValue")
        return original(self, stage)

    monkeypatch.setattr(Secret, "_read", denied)
    monkeypatch.setattr(secret_module, "PAUSES", (0.0, 0.01))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        who(options)
    assert "cannot read the pending version" in caplog.text
    rotation.end()
    assert who(options) == "seller"


@pytest.mark.cluster
@pytest.mark.parametrize("code", ["ResourceNotFoundException", "AccessDeniedException"])
def test_a_rotation_that_ends_after_the_current_version_was_read(cluster, rotation, monkeypatch, code):
    options = options_of(cluster, rotation, aurora_monitor="off")  # which would read the secret, too
    original, stages = Secret._read, []
    assert who(options) == "seller"
    rotation.begin()

    def read(self, stage):
        stages.append(stage)
        if stage == "AWSPENDING":
            rotation.end()
            raise ClientError({"Error": {"Code": code, "Message": "not here"}}, "GetSecretValue")
        return original(self, stage)

    monkeypatch.setattr(Secret, "_read", read)
    assert who(options) == "seller"
    assert stages == ["AWSCURRENT", "AWSPENDING", "AWSCURRENT"]


def test_a_pending_version_that_may_not_be_read_is_waited_for_a_while(manager, monkeypatch):
    """The rotation ends in the second pause: the current version is another one then."""
    provider, pauses, original = Secret(store(manager, login(1))), [], Secret._read
    rejected = provider(LOGIN)

    def read(self, stage):
        if stage == "AWSPENDING":
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no"}}, "GetSecretValue")
        return original(self, stage)

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 2:
            manager.put_secret_value(SecretId=provider.secret, SecretString=login(2))

    monkeypatch.setattr(Secret, "_read", read)
    monkeypatch.setattr(secret_module.time, "sleep", sleep)
    found = provider.stand_in(LOGIN, rejected)
    assert (said(found), pauses) == (("seller", "2"), [0.0, 0.5])
    assert found.expires_at - time.time() <= secret_module.PENDING_SECONDS
    with pytest.raises(CredentialsUnavailable, match=r"cannot read the pending version.*AccessDeniedException"):
        provider.stand_in(LOGIN, found)
    assert pauses[2:] == [0.0, 0.5, 1.0]


@pytest.mark.cluster
def test_what_was_pending_is_not_used_after_the_current_version_was_read(cluster, rotation, monkeypatch):
    options = options_of(cluster, rotation)
    assert who(options) == "seller"
    rotation.begin()
    assert who(options) == "seller"
    (cache,) = credentials._by_provider.values()
    (held,) = cache._held.values()
    assert said(held.credential) == ("seller", "2")
    assert held.credential.expires_at is not None
    rotation.end()
    rotation.begin()
    rotation.end()  # the database wants the third one, and both labels are at it
    assert who(options) == "seller"
    (held,) = cache._held.values()
    assert (said(held.credential), held.credential.expires_at) == (("seller", "3"), None)


@pytest.mark.cluster
def test_a_wrong_password_without_a_rotation_is_tried_once(cluster, rotation, monkeypatch):
    stages, original = [], Secret._read
    monkeypatch.setattr(Secret, "_read", lambda self, stage: stages.append(stage) or original(self, stage))
    rotation.change("seller", 99)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        who(options_of(cluster, rotation))
    assert stages == ["AWSCURRENT", "AWSPENDING", "AWSCURRENT"]


@pytest.mark.cluster
def test_no_connect_fails_in_rotations_under_load(cluster, rotation):
    options = options_of(cluster, rotation)
    done, errors = rotate_under_load(options, rotation, clients=8, rotations=3, window=0.7, pause=0.3)
    assert errors == []
    assert done >= 8


@pytest.mark.cluster
def test_no_secret_is_shown(cluster, rotation, caplog):
    shown: list[str] = []
    unsubscribe = aurora_router.subscribe(lambda name, event: shown.append(f"{name} {event!r} {event}"))
    options = options_of(cluster, rotation, aurora_cluster="secret-shown", aurora_refresh="0.2")
    try:
        with caplog.at_level(logging.DEBUG):
            with aurora_router.connect(**options) as conn:
                shown.append(repr(conn) + repr(conn.placement))
                with caplog.at_level(logging.WARNING, "botocore"):  # for the client of the test
                    rotation.begin()
                assert who(options) == "seller"
                with caplog.at_level(logging.WARNING, "botocore"):
                    rotation.end()
                rotation.change("seller", 98)
                with pytest.raises(psycopg.OperationalError) as refused:
                    who(options)
                shown.append("".join(traceback.format_exception(refused.value)))
            cache = next(iter(credentials._by_provider.values()))
            shown += [repr(Secret(rotation.arn)), repr(cache._held), repr(list(sdk._clients)), repr(cache.get(LOGIN))]
        ours = [each for each in caplog.records if each.name.partition(".")[0] != "moto"]
        shown += [f"{record.getMessage()} {record.args} {record.__dict__}" for record in ours]
    finally:
        unsubscribe()
    assert shown
    assert [each for each in shown if HIDDEN in each or SECRET_KEY in each] == []


def test_botocores_own_records_would_show_it(manager, caplog):
    """Or the test above could not fail."""
    with caplog.at_level(logging.DEBUG):
        manager.get_secret_value(SecretId=store(manager, login(1)))
    assert HIDDEN in caplog.text
