"""What all tests rely on."""

from __future__ import annotations

import itertools
import signal
import sys

import pytest
from hypothesis import HealthCheck, settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background is started so, and hands it on
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes is the machine's affair.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("default", patient, max_examples=50)
settings.register_profile("many", patient, max_examples=1000)
settings.register_profile("few", patient, max_examples=20)
settings.register_profile("fewest", patient, max_examples=5)
settings.load_profile("default")


def pytest_addoption(parser):
    parser.addoption("--reversed", action="store_true", help="run the tests of each module in reversed order")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """With `--reversed` a test fails that relies on what an earlier one of its module did to their cluster."""
    if config.getoption("--reversed"):
        modules = itertools.groupby(list(items), key=lambda item: item.path)
        items[:] = [item for _, module in modules for item in reversed(list(module))]


@pytest.fixture
def events():
    """What this process learns of clusters meanwhile."""
    import aurora_router

    seen = []
    end = aurora_router.subscribe(lambda cluster, event: seen.append(event))
    yield seen
    end()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution of one module with entry points, for one test: ``install(name, text, group, entries)``.

    The entries map names to what they give, ``"module:attribute"``.
    """
    from aurora_router.runtime import connect_args

    modules = []

    def install(name, text, group, entries):
        site = tmp_path / name
        info = site / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{name}.py").write_text(text)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{entry} = {value}" for entry, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))
        monkeypatch.syspath_prepend(site)
        modules.append(name)

    yield install
    for name in modules:
        sys.modules.pop(name, None)
    for each in (connect_args._understand, connect_args._read):
        each.cache_clear()  # they hold what the entry points gave


def pytest_terminal_summary(terminalreporter):
    """Say loudly which tests of containers were not run, and why: the list of skips is easily overlooked."""
    if any(report.nodeid.startswith("tests/docker/") for report in terminalreporter.stats.get("passed", [])):
        return
    for report in terminalreporter.stats.get("skipped", []):
        if report.nodeid.startswith("tests/docker/"):
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            terminalreporter.section("TESTS OF CONTAINERS WERE NOT RUN", sep="!", red=True, bold=True)
            terminalreporter.write_line(why.removeprefix("Skipped: "))
            return
