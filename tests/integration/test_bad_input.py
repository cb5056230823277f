"""Bad input gets the error that the documentation promises, through the blocking and the asyncio class."""

from __future__ import annotations

import asyncio
from pathlib import Path

import psycopg
import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import aurora_router
from aurora_router.policy.conninfo import split_conninfo
from tests.superuser import connect_as_superuser

pytestmark = pytest.mark.cluster

CASES = yaml.safe_load((Path(__file__).parent / "bad_input.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def lonely_cluster(request):
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=0, postgres=request.config.getoption("--aurora-postgres")) as cluster:
        yield cluster


def connect_blocking(conninfo, keywords):
    with aurora_router.connect(conninfo, **keywords) as conn:
        return conn.placement, conn.placement.view


def connect_async(conninfo, keywords):
    async def run():
        async with await aurora_router.AsyncConnection.connect(conninfo, **keywords) as conn:
            return conn.placement, conn.placement.view

    return asyncio.run(run())


def read(case, cluster):
    """The conninfo and keywords of a case: libpq's keys in one string, ours by keyword."""
    if "conninfo" in case:
        return case["conninfo"], {}
    ours, rest = split_conninfo(cluster.conninfo(case.get("target", "writer")))
    given = {key: str(value).format(xyz=cluster.domain.partition(".")[0]) for key, value in case["with"].items()}
    keywords = {**ours, **{key: value for key, value in given.items() if key.startswith("aurora_")}}
    libpq = {**conninfo_to_dict(rest), **{key: value for key, value in given.items() if key not in keywords}}
    unknown = {key: libpq.pop(key) for key in list(libpq) if key == "hots"}
    return make_conninfo("", **libpq) + "".join(f" {key}={value}" for key, value in unknown.items()), keywords


@pytest.mark.parametrize("connect", [connect_blocking, connect_async])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["input"])
def test_bad_input(case, connect, request):
    cluster = request.getfixturevalue("lonely_cluster" if case.get("cluster") == "alone" else "aurora_cluster")
    conninfo, keywords = read(case, cluster)
    if "error" not in case:
        placement, view = connect(conninfo, keywords)
        assert case.get("lands") in {None, placement.instance}
        assert case.get("role") in {None, view.instances[placement.instance].role.value}
        return
    expected = getattr(aurora_router, case["error"], None) or getattr(psycopg, case["error"])
    with pytest.raises(expected) as caught:
        connect(conninfo, keywords)
    assert type(caught.value) is expected
    assert case["says"] in str(caught.value)


@pytest.mark.parametrize("connect", [connect_blocking, connect_async])
def test_a_wrong_password_bothers_the_server_once(connect, aurora_cluster):
    writer = aurora_cluster.instance(aurora_cluster.writer)
    role = f"once_{connect.__name__}"
    with connect_as_superuser(aurora_cluster) as conn:
        conn.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'right'")
        try:
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                connect(aurora_cluster.conninfo("writer", user=role, password="wrong"), {})
            log = (Path(writer.socket_directory) / "log").read_text(errors="replace")
            assert log.count(f'authentication failed for user "{role}"') == 1
        finally:
            conn.execute(f"DROP ROLE {role}")
