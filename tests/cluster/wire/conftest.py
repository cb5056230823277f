from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.cluster.wire.support import Rig, installed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the engines' account may enter; its name is short enough for socket paths."""
    path = Path(tempfile.mkdtemp(prefix="arw", dir="/tmp"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(params=[pytest.param(15, marks=pytest.mark.slow), 18])
async def rig(request: pytest.FixtureRequest, home: Path) -> AsyncIterator[Rig]:
    """A log and an endpoint for engines of one PostgreSQL version."""
    programs = installed().get(request.param)
    if programs is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    rig = Rig(home, programs)
    try:
        await rig.open()
        yield rig
    finally:
        await rig.close()
