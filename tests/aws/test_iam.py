"""IAM tokens: signed for the right name, region and user, verified by a second implementation; never shown."""

from __future__ import annotations

import datetime as dt
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from moto import mock_aws

from aurora_router import CredentialsUnavailable, InvalidOption, Login
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credentials import CredentialCache, cache_of
from aurora_router_aws import IamTokens, sdk

from .conftest import KEY, SECRET_KEY, verify

HOST = "demo-1.c9akciq32.eu-west-1.rds.amazonaws.com"
CUSTOM = "reports.cluster-custom-abc1.eu-west-1.rds.amazonaws.com"
LOGIN = Login(HOST, 5432, "app", "orders", "demo-1")


class Frozen(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class FakeKeys:
    """Keys as botocore's classes give them, with an end."""

    def __init__(self, left: float | None = None, token: str | None = None, key: str = KEY) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        self._expiry_time = None if left is None else now + dt.timedelta(seconds=left)
        self.frozen = Frozen(key, SECRET_KEY, token)

    def get_frozen_credentials(self):
        return self.frozen


def said_by(provider, login=LOGIN):
    return verify(provider(login).password, SECRET_KEY)


def test_a_token_is_what_the_documentation_says(keys):
    said = said_by(IamTokens())
    assert (said["Action"], said["DBUser"], said["X-Amz-Expires"], said["X-Amz-SignedHeaders"]) == (
        "connect",
        "app",
        "900",
        "host",
    )
    assert (said["host"], said["region"], said["key"]) == (f"{HOST}:5432", "eu-west-1", KEY)
    token = IamTokens()(LOGIN).password
    assert token.startswith(
        f"{HOST}:5432/?Action=connect&DBUser=app&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="
    )


def test_it_is_what_boto3_makes(keys, monkeypatch):
    import boto3
    import botocore.auth

    now = dt.datetime(2026, 11, 29, 12, tzinfo=dt.timezone.utc)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, **__: now, raising=False)
    theirs = boto3.client("rds", region_name="eu-west-1").generate_db_auth_token(HOST, 5432, "app user+x")
    ours = IamTokens()(LOGIN._replace(user="app user+x")).password
    assert ours == theirs


@pytest.mark.parametrize(
    ("host", "region"),
    [
        ("demo-1.c9akciq32.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
        ("demo-1.c9akciq32.rds.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("demo-1.c9akciq32.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        ("demo-1.c9akciq32.eusc-de-east-1.rds.amazonaws.eu", "eusc-de-east-1"),
        ("demo-1.c9akciq32.rds.us-iso-east-1.c2s.ic.gov", "us-iso-east-1"),
        ("demo-1.c9akciq32.rds.us-isob-east-1.sc2s.sgov.gov", "us-isob-east-1"),
        ("mydb.cluster-c9akciq32.ap-southeast-2.rds.amazonaws.com", "ap-southeast-2"),
        ("pool.proxy-c9akciq32.us-east-1.rds.amazonaws.com", "us-east-1"),
        ("DEMO-1.c9akciq32.EU-West-1.rds.amazonaws.com.", "eu-west-1"),
    ],
)
def test_the_region_is_that_of_the_name(keys, host, region):
    said = said_by(IamTokens(), LOGIN._replace(host=host))
    assert (said["region"], said["host"]) == (region, f"{host.rstrip('.').lower()}:5432")


@pytest.mark.parametrize("user", ["app", "app user", "ärger", "a&DBUser=b", "50%+", "a/b=c~d"])
def test_any_name_of_a_user_arrives(keys, user):
    assert said_by(IamTokens(), LOGIN._replace(user=user))["DBUser"] == user


@pytest.mark.parametrize("port", [5432, 6432, 443])
def test_the_port_is_signed(keys, port):
    token = IamTokens()(LOGIN._replace(port=port)).password
    assert token.startswith(f"{HOST}:{port}/?")
    assert verify(token, SECRET_KEY)["host"] == f"{HOST}:{port}"


def test_the_token_of_a_session_is_signed_too():
    long = "x/+=" * 400
    said = said_by(IamTokens(credentials=lambda: FakeKeys(token=long)))
    assert said["X-Amz-Security-Token"] == long


@pytest.mark.parametrize(("left", "expected"), [(None, 900.0), (3600.0, 900.0), (240.0, 240.0)])
def test_it_ends_with_the_keys_that_signed_it(left, expected):
    credential = IamTokens(credentials=lambda: FakeKeys(left))(LOGIN)
    assert credential.expires_at - time.time() == pytest.approx(expected, abs=5.0)


@pytest.mark.parametrize(
    ("iam_host", "host", "port", "instance", "signed"),
    [
        (None, HOST, 5433, "demo-1", f"{HOST}:5433"),
        (None, CUSTOM, 5433, None, f"{CUSTOM}:5433"),
        (
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com",
            CUSTOM,
            5433,
            None,
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:5433",
        ),
        ("mydb.cluster-abc1.eu-west-1.rds.amazonaws.com", HOST, 5433, "demo-1", f"{HOST}:5433"),
        ("mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:6432", HOST, 5433, "demo-1", f"{HOST}:6432"),
        (
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com",
            "127.0.0.1",
            15432,
            None,
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:5432",
        ),
        (
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com",
            "127.0.0.1",
            15433,
            "demo-2",
            "demo-2.abc1.eu-west-1.rds.amazonaws.com:5432",
        ),
        (
            "mydb.cluster-ro-abc1.eu-west-1.rds.amazonaws.com:6432",
            "db.internal",
            15433,
            "DEMO-2",
            "demo-2.abc1.eu-west-1.rds.amazonaws.com:6432",
        ),
        (
            "pool.proxy-abc1.eu-west-1.rds.amazonaws.com",
            "db.internal",
            1,
            "demo-2",
            "pool.proxy-abc1.eu-west-1.rds.amazonaws.com:5432",
        ),
        (
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com",
            "db.internal",
            1,
            "no.label",
            "mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:5432",
        ),
    ],
)
def test_the_name_that_is_signed(keys, iam_host, host, port, instance, signed):
    provider, login = IamTokens(iam_host), Login(host, port, "app", "orders", instance)
    scope = provider.scope(login)
    assert f"{scope.host}:{scope.port}" == signed
    assert (scope.user, scope.database, scope.instance) == ("app", None, None)
    assert provider.scope(scope) == scope
    assert said_by(provider, scope)["host"] == signed


def test_one_token_serves_all_databases_and_ways_to_a_name():
    asked = []
    cache = CredentialCache(IamTokens(credentials=lambda: asked.append(1) or FakeKeys()))
    tokens = {cache.get(LOGIN._replace(database=name)).credential.password for name in ("a", "b", None)}
    tokens.add(cache.get(LOGIN._replace(instance=None, host=HOST.upper())).credential.password)
    assert (len(tokens), len(asked)) == (1, 1)
    cache.get(LOGIN._replace(user="other"))
    cache.get(LOGIN._replace(port=6432))
    assert len(asked) == 3


def test_the_region_of_a_name_without_one(keys, monkeypatch, tmp_path):
    login = LOGIN._replace(host="orders.global-abc123.global.rds.amazonaws.com")
    with pytest.raises(CredentialsUnavailable, match=r"does not say its region.*set aurora_aws_region or AWS_REGION"):
        IamTokens()(login)
    (tmp_path / "config").write_text("[default]\nregion = eu-central-1\n[profile other]\nregion = eu-north-1\n")
    sdk.forget()
    assert said_by(IamTokens(), login)["region"] == "eu-central-1"
    assert said_by(IamTokens(profile="other", credentials=FakeKeys), login)["region"] == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-west-3")
    assert said_by(IamTokens(), login)["region"] == "eu-west-3"
    assert said_by(IamTokens(region="eu-south-1"), login)["region"] == "eu-south-1"


def test_new_keys_in_the_environment_count_for_the_next_token(keys, monkeypatch):
    provider = IamTokens()
    assert said_by(provider)["key"] == KEY
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDNEXT")
    assert said_by(provider)["key"] == "AKIDNEXT"


@mock_aws
def test_a_profile_may_assume_a_role(keys, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(
        "[profile db]\nrole_arn = arn:aws:iam::123456789012:role/db\ncredential_source = Environment\n"
        "region = eu-west-1\nduration_seconds = 900\n"
    )
    provider = IamTokens(profile="db")
    credential = provider(LOGIN)
    assert "X-Amz-Security-Token=" in credential.password
    assert KEY not in credential.password, "the role's keys sign"
    assert credential.expires_at - time.time() == pytest.approx(900.0, abs=30.0)
    assert sdk.find_session("db") is sdk.find_session("db"), "keys that expire are kept until then"


@pytest.mark.parametrize("renewals", [1, 2, 1000])
def test_keys_that_are_renewed_meanwhile_never_outlive_themselves(renewals):
    """botocore renews a session of 15 minutes each time that it is asked for the keys."""

    class Renewing:
        def __init__(self):
            self.number, self._expiry_time = 0, None

        def get_frozen_credentials(self):
            self.number = min(self.number + 1, renewals)
            now = dt.datetime.now(dt.timezone.utc)
            self._expiry_time = now + dt.timedelta(seconds=900 + self.number)
            return Frozen(f"AKID{self.number}", SECRET_KEY, None)

    keys = sdk.find_keys(None, Renewing)
    number = int(keys.frozen.access_key.removeprefix("AKID"))
    assert 890.0 < keys.expires_at - time.time() <= 900.0 + number


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("provider", "login", "told"),
    [
        (IamTokens(), LOGIN._replace(user=None), r"for a named user: add user=… \(a role with GRANT rds_iam\)"),
        (IamTokens(), LOGIN._replace(host="db.internal"), "db.internal is no name of RDS.*set aurora_iam_host"),
        (IamTokens(), LOGIN._replace(host="10.0.0.1"), r"10\.0\.0\.1 is no name of RDS"),
        (IamTokens(), LOGIN._replace(host="/tmp"), "a local socket is no name of RDS"),
        (IamTokens(), LOGIN._replace(host=None), "a local socket is no name of RDS"),
        (IamTokens(region="us-east-1"), LOGIN, "aurora_aws_region=us-east-1, but demo-1.* is in eu-west-1.*remove it"),
        (IamTokens(), LOGIN, "NoCredentialsError: Unable to locate credentials .set AWS_PROFILE or aurora_aws_profile"),
        (IamTokens(profile="nosuch"), LOGIN, r"ProfileNotFound.*nosuch.*check aurora_aws_profile"),
        (IamTokens(credentials=lambda: FakeKeys(-1.0)), LOGIN, "AWS credentials have expired.*renew them"),
        (IamTokens(credentials=lambda: None), LOGIN, "NoCredentialsError"),
    ],
)
def test_what_is_missing_is_named(provider, login, told):
    with pytest.raises(CredentialsUnavailable, match=told):
        provider(login)
    cache = CredentialCache(provider)
    with pytest.raises(CredentialsUnavailable, match=told) as raised:
        cache.get(login)
    assert str(raised.value).startswith("the provider of credentials gave none")
    assert "CredentialsUnavailable" not in str(raised.value)


@mock_aws
def test_a_role_that_may_not_be_assumed_is_named(keys, monkeypatch, tmp_path):
    from botocore.exceptions import ClientError

    (tmp_path / "config").write_text(
        "[profile db]\nrole_arn = arn:aws:iam::123456789012:role/db\ncredential_source = Environment\n"
    )
    told = "User is not authorized to perform sts:AssumeRole\nThe canonical string was secret-stuff"
    error = ClientError({"Error": {"Code": "AccessDenied", "Message": told}}, "AssumeRole")

    def refuse(self, operation, *_):
        raise error

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    with pytest.raises(CredentialsUnavailable, match=r"not authorized to perform sts:AssumeRole .permit it") as raised:
        IamTokens(profile="db")(LOGIN)
    assert "secret-stuff" not in str(raised.value)
    assert raised.value.__cause__ is raised.value.__context__ is None


def test_without_botocore_the_line_that_installs_it_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "botocore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(CredentialsUnavailable, match=r"botocore is not installed .*pip install 'aurora-router\[aws\]'"):
        IamTokens()(LOGIN)


# ---------------------------------------------------------------- options


def args_of(conninfo, **keywords):
    return read_connect_args(f"host={HOST} user=app {conninfo}", keywords)


def test_options_make_the_provider():
    provider = args_of(
        "aurora_credentials=iam aurora_iam_host=mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:6432 "
        "aurora_aws_region=eu-west-1 aurora_aws_profile=orders"
    ).params.provider
    assert provider == IamTokens("mydb.cluster-abc1.eu-west-1.rds.amazonaws.com:6432", "eu-west-1", "orders")
    same = args_of("aurora_credentials=iam dbname=one").params.provider
    assert cache_of(same) is cache_of(args_of("aurora_credentials=iam dbname=two").params.provider)


@pytest.mark.parametrize(
    ("conninfo", "told"),
    [
        ("aurora_aws_region=eu-west-1", "aurora_aws_region has no effect without aurora_credentials"),
        ("aurora_credentials=iam aurora_iam_host=db.internal", "is no name of RDS within a region"),
        ("aurora_credentials=iam password=x", "a password is given"),
        ("aurora_credentials=iam sslmode=prefer", "sslmode=prefer permits a connection without TLS.*verify-full"),
        ("aurora_credentials=iam sslmode=allow", "sslmode=allow permits"),
        ("aurora_credentials=iam sslmode=disable", "sslmode=disable permits"),
    ],
)
def test_options_that_contradict_each_other(conninfo, told):
    with pytest.raises(InvalidOption, match=told):
        args_of(conninfo)


@pytest.mark.parametrize(
    ("conninfo", "environment", "mode"),
    [
        ("", {}, "require"),
        ("sslmode=verify-full", {}, "verify-full"),
        ("sslmode=verify-ca", {}, "verify-ca"),
        ("", {"PGSSLMODE": "verify-full"}, "verify-full"),
        ("sslrootcert=system", {}, "verify-full"),
        ("", {"PGSSLROOTCERT": "system"}, "verify-full"),
        ("sslrootcert=/some/file", {}, "require"),
    ],
)
def test_tls_is_required(monkeypatch, conninfo, environment, mode):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    args = args_of(f"aurora_credentials=iam {conninfo}")
    assert args.params["sslmode"] == mode
    assert args.request.verifies_name is (mode == "verify-full")
    assert read_connect_args(f"host={HOST}", {}).params.get("sslmode") == environment.get("PGSSLMODE")


@pytest.mark.parametrize(
    ("service", "mode"),
    [("sslmode=verify-ca", "verify-ca"), ("sslrootcert=system", "verify-full"), ("user=a", "require")],
)
def test_a_service_says_how_too(monkeypatch, tmp_path, service, mode):
    (tmp_path / "services").write_text(f"[db]\n{service}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("PGSSLROOTCERT", "/some/file")
    assert args_of("aurora_credentials=iam service=db").params["sslmode"] == mode


def test_a_service_that_cannot_be_read_may_say_anything(monkeypatch, tmp_path):
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "nosuch"))
    monkeypatch.setenv("PGSYSCONFDIR", str(tmp_path))
    with pytest.raises(InvalidOption, match=r"the service can't be read.*give sslmode beside it"):
        args_of("aurora_credentials=iam service=db")
    assert args_of("aurora_credentials=iam service=db sslmode=require").params["sslmode"] == "require"


def test_an_environment_without_tls_is_refused(monkeypatch):
    monkeypatch.setenv("PGSSLMODE", "prefer")
    with pytest.raises(InvalidOption, match="sslmode=prefer permits"):
        args_of("aurora_credentials=iam")


# ---------------------------------------------------------------- processes


def told(code):
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


@pytest.mark.parametrize(
    "code",
    [
        "import aurora_router",
        "import aurora_router_aws",
        "from aurora_router.runtime.connect_args import read_connect_args as read; read('host=a user=b', {})",
        "import aurora_router.runtime.connect_args as args; args.read_connect_args('aurora_credentials=iam', {})",
    ],
)
def test_botocore_is_not_loaded_before_a_credential_is_asked_for(code):
    assert told(f"{code}\nimport sys; print('botocore' in sys.modules, 'boto3' in sys.modules)") == ["False", "False"]


def test_many_threads_ask_at_once():
    asked, go = [], threading.Event()

    def hook():
        asked.append(1)
        go.wait(30.0)
        return FakeKeys()

    cache = CredentialCache(IamTokens(credentials=hook))
    with ThreadPoolExecutor(8) as pool:
        tokens = [pool.submit(cache.get, LOGIN) for _ in range(8)]
        while not asked:
            time.sleep(0.001)
        go.set()
        assert len({each.result(30.0).credential.password for each in tokens}) == 1
    assert len(asked) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Python 3.12: a process with threads forks
def test_the_child_of_a_fork_has_sessions_of_its_own(keys):
    parents = sdk.run("fork", lambda: sdk.find_session(None))
    with sdk._lock:
        child = os.fork()
        if child == 0:
            os._exit(0 if sdk.find_session(None) is not parents and said_by(IamTokens())["key"] == KEY else 1)
    assert os.waitpid(child, 0)[1] == 0
