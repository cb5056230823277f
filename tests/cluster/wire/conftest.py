from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.cluster.wire.support import Rig, installed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# How long an example takes says nothing on a shared machine.
hypothesis.settings.register_profile("no-deadline", deadline=None)
hypothesis.settings.load_profile("no-deadline")


@pytest.fixture(params=[pytest.param(15, marks=pytest.mark.slow), 18])
async def rig(request: pytest.FixtureRequest, run_directory: Path) -> AsyncIterator[Rig]:
    """A log and an endpoint for engines of one PostgreSQL version."""
    programs = installed().get(request.param)
    if programs is None:
        pytest.skip(f"PostgreSQL {request.param} is not installed")
    rig = Rig(run_directory, programs)
    try:
        await rig.open()
        yield rig
    finally:
        await rig.close()
