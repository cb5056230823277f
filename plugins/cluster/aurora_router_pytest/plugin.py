"""pytest plugin: a real local Aurora-like cluster as a fixture.

``aurora_cluster`` is started once per session (under pytest-xdist: once per worker) and shared;
``aurora_cluster_factory`` starts clusters of their own for tests that break them, and stops them with the test.
At load only pytest is imported; PostgreSQL and the cluster package are touched when a test asks for a cluster.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router_cluster import LocalCluster

FLAVOURS = ("direct", "quorum", "multi-az")


class ClusterFactory(Protocol):
    """Starts clusters; takes what ``LocalCluster.start`` takes, with the command line's options as defaults."""

    def __call__(self, **options: Any) -> LocalCluster:
        """Start a cluster that ends with the test."""
        ...


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the local cluster."""
    group = parser.getgroup("aurora-router", "aurora-router: local Aurora-like clusters")
    group.addoption(
        "--aurora-readers", type=_readers, default=2, metavar="N", help="readers of `aurora_cluster` (default: 2)"
    )
    group.addoption(
        "--aurora-flavour", choices=FLAVOURS, default=None, help="storage under the clusters (default: the package's)"
    )
    group.addoption(
        "--aurora-isolated", action="store_true", default=None, help="storage nodes in processes of their own"
    )
    group.addoption(
        "--aurora-faults",
        action="store_true",
        default=None,
        help="put a relay in front of the instances: `aurora_cluster.faults`",
    )
    group.addoption("--aurora-postgres", default=None, metavar="PATH", help="directory of PostgreSQL's server binaries")


def _readers(text: str) -> int:
    count = int(text)
    if not 0 <= count <= 15:
        raise ValueError
    return count


def _defaults(config: pytest.Config) -> dict[str, Any]:
    chosen = {
        "readers": config.getoption("--aurora-readers"),
        "flavour": config.getoption("--aurora-flavour"),
        "isolated": config.getoption("--aurora-isolated"),
        "postgres": config.getoption("--aurora-postgres"),
        "faults": config.getoption("--aurora-faults"),
    }
    return {name: value for name, value in chosen.items() if value is not None}


@pytest.fixture(scope="session")
def aurora_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A running cluster, shared by the session: leave it as you found it."""
    from aurora_router_cluster import LocalCluster  # noqa: PLC0415 - see the module's docstring

    with LocalCluster.start(**_defaults(request.config)) as cluster:
        yield cluster


@pytest.fixture
def aurora_cluster_factory(request: pytest.FixtureRequest) -> Iterator[ClusterFactory]:
    """Start clusters that this test may break; they are stopped with it."""
    from aurora_router_cluster import LocalCluster  # noqa: PLC0415 - see the module's docstring

    with contextlib.ExitStack() as running:

        def start(**options: Any) -> LocalCluster:
            return running.enter_context(LocalCluster.start(**{**_defaults(request.config), **options}))

        yield start
