"""User and password from the environment or a file, read again when they change."""

from __future__ import annotations

import subprocess
import sys
import time
import traceback

import pytest

import aurora_router
from aurora_router import CredentialsUnavailable, InvalidOption, Login
from aurora_router.runtime import credentials
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.credentials import CredentialCache
from aurora_router.runtime.registry import REGISTRY
from aurora_router_aws import Environment
from aurora_router_cluster import LocalCluster
from tests.superuser import connect_as_superuser

LOGIN = Login("a", 5432, "named", "app")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("AURORA_USER", "AURORA_PASSWORD"):
        monkeypatch.delenv(name, raising=False)


def given_by(provider):
    credential = provider(LOGIN)
    assert 0.0 < credential.renew_at - time.time() <= 10.0
    assert credential.expires_at is None
    return credential.user, credential.password


def test_variables(monkeypatch):
    monkeypatch.setenv("AURORA_PASSWORD", "word")
    assert given_by(Environment()) == (None, "word")
    monkeypatch.setenv("AURORA_USER", "seller")
    assert given_by(Environment()) == ("seller", "word")
    monkeypatch.setenv("DB_USER", "other")
    monkeypatch.setenv("DB_PASSWORD", "else")
    assert given_by(Environment("DB_USER", "DB_PASSWORD")) == ("other", "else")


@pytest.mark.parametrize(
    ("text", "password"), [("w rd\n", "w rd"), ("wörd", "wörd"), ("word\r\n", "word"), (" a\n\n", " a\n")]
)
def test_a_file(tmp_path, text, password):
    file = tmp_path / "password"
    file.write_bytes(text.encode())
    assert given_by(Environment(file=str(file))) == (None, password)


def test_what_is_missing_is_named(tmp_path):
    file = tmp_path / "password"
    cases = [
        (Environment(), "no AURORA_PASSWORD: set it, or name another variable with aurora_env_password, or a file"),
        (Environment(password="NOSUCH"), "no NOSUCH: set it"),
        (Environment(user="NOSUCH"), "no NOSUCH, which aurora_env_user names"),
        (Environment(file=str(file)), f"the file {file}, .* can't be read: No such file or directory"),
        (Environment(file=str(tmp_path)), "can't be read: Is a directory"),
    ]
    for provider, told in cases:
        with pytest.raises(CredentialsUnavailable, match=told):
            CredentialCache(provider).get(LOGIN)
    file.write_text("\n")
    with pytest.raises(CredentialsUnavailable, match="is empty, so there is no password"):
        Environment(file=str(file))(LOGIN)
    file.write_bytes(b"not-to-be-seen\xff")
    with pytest.raises(CredentialsUnavailable, match="it is no UTF-8 text") as raised:
        CredentialCache(Environment(file=str(file))).get(LOGIN)
    assert "not-to-be-seen" not in "".join(traceback.format_exception(raised.value))
    assert raised.value.__cause__ is None


def test_options_make_the_provider():
    given = "host=a aurora_credentials=env aurora_env_user=U"
    assert read_connect_args(f"{given} aurora_env_password=P", {}).params.provider == Environment("U", "P")
    assert read_connect_args(f"{given} aurora_password_file=/f", {}).params.provider == Environment("U", None, "/f")
    with pytest.raises(InvalidOption, match="both given: give one of them"):
        read_connect_args(f"{given} aurora_env_password=P aurora_password_file=/f", {})
    with pytest.raises(InvalidOption, match="aurora_env_user has no effect without aurora_credentials"):
        read_connect_args("host=a aurora_env_user=U", {})


def test_no_botocore_is_needed():
    code = (
        "import sys; sys.modules['botocore'] = None\n"
        "from aurora_router_aws import Environment\n"
        "print(Environment()(None).password)"
    )
    environment = {"AURORA_PASSWORD": "word", "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert ended.stdout == "word\n", ended.stderr


@pytest.mark.cluster
def test_a_file_that_changes_is_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(credentials, "_by_provider", {})
    file = tmp_path / "password"
    with LocalCluster.start(readers=0) as cluster:
        given = dict(each.split("=", 1) for each in cluster.conninfo("writer").split())
        del given["password"]
        options = {**given, "user": "seller", "aurora_credentials": "env", "aurora_password_file": str(file)}
        with connect_as_superuser(cluster) as conn:
            conn.execute("CREATE ROLE seller LOGIN")
            for number in range(3):
                conn.execute(f"ALTER ROLE seller PASSWORD 'word {number}'")
                file.write_text(f"word {number}\n")
                aurora_router.connect(**options).close()
    REGISTRY.reset()
