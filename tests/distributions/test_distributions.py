"""The two distributions of this repository belong together: one version, one licence, and the driver knows no more."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from aurora_router import __version__
from aurora_router.cli.command import CLUSTER_COMMANDS, GROUP, INSTALL

ROOT = Path(__file__).parents[2]
CLUSTER = "aurora-router-cluster"


def requirements_of(name):
    return [Requirement(each) for each in metadata.requires(name) or []]


def test_both_have_the_one_version():
    assert metadata.version("aurora-router") == metadata.version(CLUSTER) == __version__


@pytest.mark.parametrize("other", ["0.0.1", f"{__version__}.post1", f"{__version__}.dev1", "99"])
def test_the_cluster_refuses_a_driver_of_another_version(other):
    (driver,) = [each for each in requirements_of(CLUSTER) if each.name == "aurora-router" and each.marker is None]
    assert driver.specifier.contains(__version__)
    assert not driver.specifier.contains(other, prereleases=True)


def test_the_driver_requires_little_and_never_the_cluster():
    required = requirements_of("aurora-router")
    assert {each.name for each in required if each.marker is None} == {"psycopg", "tenacity", "dnspython"}
    assert CLUSTER not in {each.name for each in required}


def test_the_cluster_has_the_licence():
    assert (ROOT / "plugins/cluster/LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_the_line_that_installs_the_cluster_names_an_extra_that_is_there():
    found = re.fullmatch(r"pip install '(.*)'", INSTALL)
    assert found is not None
    wanted = Requirement(found[1])
    assert wanted.name == CLUSTER
    assert wanted.extras <= set(metadata.metadata(CLUSTER).get_all("Provides-Extra"))
    assert wanted.specifier.contains(metadata.version(CLUSTER))


def test_the_driver_knows_the_commands_of_the_cluster():
    entries = [each for each in metadata.entry_points(group=GROUP) if each.dist and each.dist.name == CLUSTER]
    assert {each.name: each.load().help for each in entries} == CLUSTER_COMMANDS
