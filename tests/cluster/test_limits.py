from __future__ import annotations

import asyncio
import errno
import resource
import signal

import pytest

from aurora_router_cluster import limits
from aurora_router_cluster.supervisor import explain_failure, watch_for_limits


@pytest.fixture
def limited(monkeypatch):
    """Limits as `ulimit -v 300000 -f 1000 -n 64` sets them."""
    kilobytes = {resource.RLIMIT_AS: 300000 << 10, resource.RLIMIT_FSIZE: 1000 << 10, resource.RLIMIT_NOFILE: 64}
    monkeypatch.setattr(limits.resource, "getrlimit", lambda number: (kilobytes.get(number, -1), -1))


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), OSError(errno.ENOMEM, "Cannot allocate memory")]
)
def test_memory_that_is_missing_names_the_limit_and_is_no_fault_of_ours(error):
    kind, text = explain_failure(error)
    assert kind == "SupervisorError"
    assert "300000 kB of memory that a process may address (ulimit -v)" in text
    assert "fault" not in text


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize(
    ("number", "named"), [(errno.EMFILE, "64 open files of a process (ulimit -n)"), (errno.EFBIG, "ulimit -f")]
)
def test_an_error_number_names_the_limit(number, named):
    assert named in explain_failure(OSError(number, "it failed"))[1]


def test_what_is_no_limit_is_a_fault():
    assert limits.explain(RuntimeError("something else")) is None
    assert (
        "by a fault of aurora-router: RuntimeError: something else"
        in explain_failure(RuntimeError("something else"))[1]
    )


@pytest.mark.usefixtures("limited")
@pytest.mark.parametrize("status", [-signal.SIGXFSZ, 128 + signal.SIGXFSZ])
def test_a_program_that_a_limit_ended_is_explained_by_its_status(status):
    assert limits.explain_status(status) == (
        "ended by SIGXFSZ; it wrote a file that is larger than allowed; raise that limit (ulimit -f); "
        "in force now: 1000 kB that a file may have (ulimit -f)"
    )


def test_a_program_that_printed_nothing_has_a_status():
    assert limits.explain_status(3) == "it printed nothing and ended with status 3"
    assert limits.explain_status(1, "no room") == "no room"
    assert limits.explain_status(-signal.SIGTERM, "half a line") == "half a line; ended by SIGTERM"


async def test_a_limit_that_a_callback_meets_is_not_waited_for():
    """asyncio logs the error of a callback, and what waits for that one waits forever."""

    def refuse(error):
        raise error

    loop = asyncio.get_running_loop()
    met = watch_for_limits(loop)
    loop.call_soon(refuse, KeyError("something else"))
    loop.call_soon(refuse, MemoryError())
    assert isinstance(await asyncio.wait_for(met, 5), MemoryError)
