"""A cluster over several hosts, each of them a process on a loopback address of its own."""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from aurora_router_cluster import LocalCluster

ZONES = ("eu-test-1a", "eu-test-1b", "eu-test-1c")
AGENT, NODE, NAMES = (
    "aurora_router_cluster.hosts.agent",
    "aurora_router_cluster.storage.nodeserver",
    "aurora_router_cluster.hosts.nameserver",
)


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return probe.getsockname()[1]


class Host:
    """A process that listens on an address of its own; it can be killed and started again."""

    def __init__(self, module: str, zone: str, directory: Path, secret: str, words: list[str]) -> None:
        self.address = f"127.{random.randrange(64, 128)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        self.port = free_port(self.address)
        self.zone, self.directory, self.secret = zone, directory, secret
        self.command = [sys.executable, "-m", module, "--listen", f"{self.address}:{self.port}"]
        self.command += ["--parent", str(os.getpid()), *(word.format(self=self) for word in words)]
        self.process: subprocess.Popen[bytes] | None = None

    def __str__(self) -> str:
        return f"{self.zone}={self.address}:{self.port}"

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self.process.stdin.write(f"{self.secret}\n".encode())
        self.process.stdin.close()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def end(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=30)


class Hosts:
    """The hosts of one cluster: instances, storage nodes, a name server."""

    def __init__(self, root: Path, instances: int, nodes: int = 6) -> None:
        self.secret = secrets.token_urlsafe(18)

        def make(module: str, name: str, zone: str, *words: str) -> Host:
            return Host(module, zone, root / name, self.secret, list(words))

        self.instances = [
            make(AGENT, f"instance-{i}", ZONES[i % 3], "--directory", "{self.directory}") for i in range(instances)
        ]
        self.nodes = [
            make(NODE, f"node-{i}", ZONES[i // 2 % 3], "--directory", "{self.directory}", "--node", str(i))
            for i in range(nodes)
        ]
        self.names = make(NAMES, "names", ZONES[0], "--dns", "{self.address}:0")

    def __iter__(self):
        return iter([*self.instances, *self.nodes, self.names])

    def plan(self) -> dict:
        return {
            "instances": [str(one) for one in self.instances],
            "nodes": [str(one) for one in self.nodes],
            "name_server": str(self.names),
        }

    def find(self, address: str) -> Host:
        return next(one for one in self if one.address == address)


@pytest.fixture(scope="module")
def hosts_factory():
    with contextlib.ExitStack() as running:

        def make(instances: int = 3, nodes: int = 6) -> Hosts:
            place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
            root = Path(tempfile.mkdtemp(prefix="ar-", dir=place))
            root.chmod(0o711)
            running.callback(shutil.rmtree, root, ignore_errors=True)
            hosts = Hosts(root, instances, nodes)
            for host in hosts:
                host.start()
                running.callback(host.end)
            return hosts

        yield make


@pytest.fixture(scope="module")
def remote_factory(hosts_factory):
    """Start hosts and a cluster over them; both end with the module."""
    with contextlib.ExitStack() as running:

        def start(instances: int = 3, nodes: int = 6, **options):
            hosts = hosts_factory(instances, nodes)
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AURORA_ROUTER_SECRET", hosts.secret)
                port = free_port("0.0.0.0")
                cluster = LocalCluster.start(readers=2, port=port, remote=hosts.plan(), **options)
            running.callback(cluster.close)
            return cluster, hosts

        yield start


@pytest.fixture
def eventually():
    """Wait for a condition and return what it returned."""

    def wait(condition, timeout=60.0):
        deadline = time.monotonic() + timeout
        while not (result := condition()):
            assert time.monotonic() < deadline, "the condition never came true"
            time.sleep(0.02)
        return result

    return wait
