"""Never less able than libpq: the same names, the same hosts file and resolv.conf, libpq's own resolver beside ours.

Each case runs in a mount namespace of its own, where the two files are the test's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.runtime.nameserver import NameServer

WORKS = (
    os.geteuid() == 0
    and shutil.which("unshare") is not None
    and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
)
pytestmark = pytest.mark.skipif(not WORKS, reason="needs a mount namespace of its own (root)")

RECORDS = {
    "db.corp.test": [("A", 60, "127.0.0.5")],
    "a.b.corp.test": [("A", 60, "127.0.0.6")],
    "known.test": [("A", 60, "127.0.0.7")],
    "alias.test": [("CNAME", 60, "known.test.")],
    "six.test": [("AAAA", 60, "::1")],
}
CASES = {
    "hosts file before DNS": ("known.test", "127.0.0.70 known.test\n", "nameserver {server}\n"),
    "DNS": ("known.test", "", "nameserver {server}\n"),
    "alias": ("alias.test", "", "nameserver {server}\n"),
    "IPv6 alone": ("six.test", "", "nameserver {server}\n"),
    "search list": ("db", "", "search corp.test\nnameserver {server}\n"),
    "ndots": ("a.b", "", "search corp.test\noptions ndots:3\nnameserver {server}\n"),
    "domain": ("db", "", "domain corp.test\nnameserver {server}\n"),
    "a dead server first": ("known.test", "", "nameserver 127.9.9.9\nnameserver {server}\noptions timeout:1\n"),
    "no name server, a hosts entry": ("db", "127.0.0.71 db\n", ""),
    "localhost": ("localhost", "127.0.0.1 localhost\n", "nameserver {server}\n"),
    "unknown": ("nowhere.test", "", "nameserver {server}\n"),
}
PROGRAM = """
import asyncio, json, socket, sys
from aurora_router.flow.runtime import DialFailed
from aurora_router.runtime.dns import Names
def libpq(host):
    try:
        return sorted({each[4][0] for each in socket.getaddrinfo(host, 5432, type=socket.SOCK_STREAM)})
    except OSError:
        return None
def ours(host, how):
    try:
        return sorted(how(host).addresses)
    except DialFailed:
        return None
host = sys.argv[1]
names = Names(None, 3.0), Names(None, 3.0)
on_asyncio = lambda host: asyncio.run(names[1].resolve_async(host))
print(json.dumps([libpq(host), ours(host, names[0].resolve), ours(host, on_asyncio)]))
"""
MOUNT = 'mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv.conf" /etc/resolv.conf && shift && exec "$@"'


@pytest.fixture(scope="module")
def server():
    """On port 53 of an address that no other process has: a resolv.conf has no port."""
    address = f"127.{os.getpid() >> 16 & 127 | 64}.{os.getpid() >> 8 & 255}.{os.getpid() & 255}"
    with NameServer(RECORDS, (address, 53)) as server:
        yield server


@pytest.mark.parametrize("case", CASES)
def test_ours_finds_what_libpq_finds(case, server, tmp_path):
    host, hosts, resolv = CASES[case]
    (tmp_path / "hosts").write_text(hosts)
    (tmp_path / "resolv.conf").write_text(resolv.format(server=server.address[0]))
    command = ["unshare", "-m", "sh", "-c", MOUNT, "sh", str(tmp_path), sys.executable, "-c", PROGRAM, host]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert ended.returncode == 0, ended.stderr
    libpq, blocking, on_asyncio = json.loads(ended.stdout)
    assert blocking == on_asyncio == libpq
    assert (libpq is None) is (case == "unknown")
