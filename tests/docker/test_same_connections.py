"""The tests of single connections of the local cluster, on containers."""

import pytest

from tests.test_connection import *  # noqa: F403


@pytest.fixture
def started(aurora_cluster):
    return aurora_cluster
