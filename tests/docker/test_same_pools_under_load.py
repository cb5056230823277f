"""Pools under load while a container is lost."""

from tests.integration.test_pools_under_load import *  # noqa: F403
