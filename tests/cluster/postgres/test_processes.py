"""Stopping a server: when `freeze` returns, no thread of it runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aurora_router_cluster.postgres import processes

BUSY = """
import hashlib, threading
def work():
    while True:
        hashlib.sha256(b"x" * 1_000_000)
for _ in range(6):
    threading.Thread(target=work, daemon=True).start()
print("busy", flush=True)
work()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_every_thread_has_stopped():
    """Six threads on two processors: several wait for one when the signal comes."""
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"busy\n"
            for _ in range(10):
                processes.freeze(process.pid)
                threads = [int(each.name) for each in Path(f"/proc/{process.pid}/task").iterdir()]
                assert len(threads) == 7
                assert {processes.stat_fields(each)[0] for each in threads} == {"T"}
                processes.thaw(process.pid)
        finally:
            process.kill()
