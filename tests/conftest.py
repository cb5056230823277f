"""What all tests rely on."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a run in the background is started so, and hands it on
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("default", deadline=None)  # how long an example takes is the machine's affair
settings.register_profile("few", deadline=None, max_examples=20)
settings.load_profile("default")


@pytest.fixture
def events():
    """What this process learns of clusters meanwhile."""
    import aurora_router

    seen = []
    end = aurora_router.subscribe(lambda cluster, event: seen.append(event))
    yield seen
    end()
