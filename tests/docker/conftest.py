"""A cluster of twelve containers for the session; skipped, loudly, where none can be run.

``AURORA_DOCKER=1`` asks for it (`nox -s docker` does): elsewhere a test run should not start containers.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from benchmarks.figures import Figure, write_json
from tests.docker import stack as stacks
from tests.docker.cluster import ContainerCluster
from tests.docker.engine import NoEngine, compose_command, engine

ASKED_FOR = os.environ.get("AURORA_DOCKER") == "1"
collect_ignore_glob = [] if ASKED_FOR else ["test_same_*.py"]  # a handful of skipped tests says as much as hundreds
TIMES: dict[str, float] = {}
RESULTS: dict[str, list[dict]] = {}


@pytest.fixture(scope="session")
def docker_engine():
    if not ASKED_FOR:
        pytest.skip("containers are started by `nox -s docker` only (AURORA_DOCKER=1)")
    with contextlib.ExitStack() as running:
        try:
            running.enter_context(engine())
            command = compose_command()
        except NoEngine as error:
            pytest.skip(f"no containers: {error}")
        yield command


@pytest.fixture(autouse=True)
def nothing_without_an_engine(docker_engine):
    """Also what needs no cluster is of the containers."""


@pytest.fixture(scope="session")
def docker_compose_command(docker_engine):
    return docker_engine


@pytest.fixture(scope="session")
def docker_compose_project_name():
    return f"auroratest{os.getpid()}"


@pytest.fixture(scope="session")
def docker_compose_file(docker_engine):
    began = time.monotonic()
    variables = {"AURORA_IMAGE": stacks.image(), **stacks.choose()}
    TIMES["image"] = time.monotonic() - began
    os.environ.update(variables)
    yield str(stacks.ROOT / "docker" / "compose.yaml")
    for name in variables:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def docker_setup():
    return ["up -d"]


@pytest.fixture(scope="session")
def docker_cleanup():
    return ["down -v -t 0"]


@pytest.fixture(scope="session")
def stack(docker_compose_file, docker_compose_project_name, request):
    """The containers."""
    pytest.importorskip("pytest_docker", reason="pip install 'aurora-router-cluster[docker]'")
    began = time.monotonic()
    request.getfixturevalue("docker_services")
    names = ("AURORA_LOOPBACK", "AURORA_PORT", "AURORA_DNS_PORT")
    found = stacks.Stack(docker_compose_project_name, {name: os.environ[name] for name in names})
    deadline = time.monotonic() + 180
    while True:
        try:
            found.inside("control", "test", "-S", "/run/aurora-router/demo/control.sock")
            break
        except RuntimeError:
            if time.monotonic() > deadline:
                log = stacks.run("docker", "logs", found.container("control"), check=False)
                raise AssertionError(f"the cluster was not ready: {log}") from None
            time.sleep(0.2)
    TIMES["start"] = time.monotonic() - began
    return found


@pytest.fixture(scope="session")
def containers(stack):
    return ContainerCluster(stack)


@pytest.fixture
def aurora_cluster(containers):
    """The cluster of containers in the place of the pytest plugin's, whole; what a test breaks is healed after it."""
    containers.begin()
    yield containers
    containers.end()


@pytest.fixture
def aurora_cluster_factory(aurora_cluster):
    """The same cluster with as many readers as are asked for; it takes no other option."""

    def start(readers=2, **options):
        if options or readers > 2:
            pytest.skip(f"not of the cluster of containers: {options or f'{readers} readers'}")
        for name in aurora_cluster.readers[readers:]:
            aurora_cluster.remove(name)
        return aurora_cluster

    return start


@pytest.fixture
def results():
    return RESULTS


def pytest_terminal_summary(terminalreporter):
    if not RESULTS:
        return
    write = terminalreporter.write_line
    terminalreporter.section("failovers of containers")
    write(f"image {TIMES.get('image', 0):.0f} s, start {TIMES.get('start', 0):.0f} s")
    heads = (
        f"{'times':>6}{'acked':>8}{'lost':>6}{'doubled':>8}{'unknown':>8}{'median s':>10}{'worst s':>9}{'total s':>9}"
    )
    write(f"{'fault':22}{heads}")
    for fault, runs in RESULTS.items():
        outages = sorted(one["outage"] for one in runs)
        sums = {key: sum(one[key] for one in runs) for key in ("acked", "lost", "doubled", "unknown", "seconds")}
        write(
            f"{fault:22}{len(runs):6}{sums['acked']:8}{sums['lost']:6}{sums['doubled']:8}{sums['unknown']:8}"
            f"{outages[len(outages) // 2]:10.2f}{outages[-1]:9.2f}{sums['seconds']:9.0f}"
        )
    if path := os.environ.get("AURORA_DOCKER_JSON"):
        write_json(figures(), Path(path))


def figures():
    """What `--json FILE` gets."""
    for name, seconds in TIMES.items():
        yield Figure.unbounded(f"{name}: making it", seconds, "s")
    for fault, runs in RESULTS.items():
        outages = sorted(one["outage"] for one in runs)
        yield Figure.unbounded(f"{fault}: times", len(runs), "")
        yield Figure.unbounded(f"{fault}: commits acknowledged", sum(one["acked"] for one in runs), "")
        yield Figure.at_most(f"{fault}: commits lost", sum(one["lost"] for one in runs), "", 0)
        yield Figure.at_most(f"{fault}: commits doubled", sum(one["doubled"] for one in runs), "", 0)
        yield Figure.unbounded(f"{fault}: commits left unknown", sum(one["unknown"] for one in runs), "")
        yield Figure.unbounded(f"{fault}: time without a commit, median", outages[len(outages) // 2], "s")
        yield Figure.unbounded(f"{fault}: time without a commit, longest", outages[-1], "s")
