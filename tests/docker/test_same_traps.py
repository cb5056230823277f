"""What drivers that wrap the driver get wrong, on containers."""

from tests.conformance.test_traps import *  # noqa: F403
