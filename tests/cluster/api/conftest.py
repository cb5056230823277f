from __future__ import annotations

import os

import pytest

from aurora_router_cluster import LocalCluster
from tests.cluster.api.support import wait_until_available

pytest.importorskip("botocore")


@pytest.fixture(scope="module")
def cluster():
    """A cluster that the API serves, for all tests of a module."""
    with LocalCluster.start(f"api{os.getpid()}", readers=2, api=True, instance_class="db.r7g.xlarge") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def connect_api():
    """Make botocore's client of an API: ``connect_api(access, region)``; other keys can be given."""
    import botocore.session

    clients = []

    def connect(access, region, **keys):
        session = botocore.session.Session()
        session.set_credentials(keys.get("access_key", access.access_key), keys.get("secret_key", access.secret_key))
        clients.append(session.create_client("rds", region_name=region, endpoint_url=access.url))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture(scope="module")
def rds(cluster, connect_api):
    return connect_api(cluster.api, cluster.region)


@pytest.fixture
def available(rds, cluster):
    wait_until_available(rds, cluster)


@pytest.fixture
def state(run_directory, monkeypatch):
    """A state directory of its own."""
    directory = run_directory / "state"
    monkeypatch.setenv("AURORA_ROUTER_STATE", str(directory))
    return directory
