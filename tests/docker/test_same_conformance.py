"""Every public name of psycopg gives the same as stock, on containers."""

from tests.conformance.test_conformance import *  # noqa: F403
