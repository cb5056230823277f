from __future__ import annotations

import pytest

from aurora_router_cluster.errors import BinariesError
from aurora_router_cluster.mysql import binaries
from aurora_router_cluster.postgres.account import Account


@pytest.fixture(scope="session")
def mariadb():
    try:
        return binaries.find(Account.default())
    except BinariesError as error:
        pytest.skip(f"MariaDB is missing: {error}")
