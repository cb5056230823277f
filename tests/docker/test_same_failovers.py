"""The failover tests of the local cluster, on containers."""

from tests.integration.test_failover import *  # noqa: F403
