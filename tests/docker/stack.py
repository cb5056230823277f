"""The containers of ``docker/compose.yaml``: built, found by name, and broken by docker itself."""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
import subprocess
from pathlib import Path

from tests.docker.engine import run

ROOT = Path(__file__).parents[2]
DOMAIN = "cdocker.eu-test-1.rds.aurora.test"
ZONES = {"eu-test-1a": (1, (0, 1)), "eu-test-1b": (2, (2, 3)), "eu-test-1c": (3, (4, 5))}


def free_port(host: str) -> int:
    """A port that is free for TCP and UDP on an address."""
    while True:
        with socket.create_server((host, 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            port = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port


def choose() -> dict[str, str]:
    """Variables of ``compose.yaml`` that no other stack uses."""
    place = f"{random.randrange(24, 32)}.{random.randrange(256)}"
    loopback = f"127.{place}"
    return {
        "AURORA_NET": f"172.{place}", "AURORA_LOOPBACK": loopback, "AURORA_SECRET": secrets.token_urlsafe(18),
        "AURORA_DOMAIN": DOMAIN, "AURORA_PORT": str(free_port(f"{loopback}.11")),
        "AURORA_DNS_PORT": str(free_port(f"{loopback}.3")),
    }  # fmt: skip


def image() -> str:
    """The image: ``AURORA_IMAGE``, or built from this checkout over ``BASE``, a pulled one, or debootstrap's."""
    if given := os.environ.get("AURORA_IMAGE"):
        return given
    name, base = "aurora-router-cluster:test", os.environ.get("BASE", "debian:bookworm-slim")
    if not run("docker", "images", "-q", base) and not _pulled(base):
        base = "aurora-router-base"
        if not run("docker", "images", "-q", base):
            run(str(ROOT / "docker" / "base.sh"), base)
    run(str(ROOT / "docker" / "build.sh"), name, env={**os.environ, "BASE": base})
    return name


def _pulled(base: str) -> bool:
    try:
        return subprocess.run(["docker", "pull", "-q", base], capture_output=True, timeout=90).returncode == 0
    except subprocess.TimeoutExpired:
        return False


class Stack:
    """A running compose project."""

    def __init__(self, project: str, variables: dict[str, str]) -> None:
        self.project, self.variables = project, variables

    def container(self, service: str) -> str:
        return run(
            "docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={self.project}",
            "--filter", f"label=com.docker.compose.service={service}",
        ).strip()  # fmt: skip

    def inside(self, service: str, *words: str, **more) -> str:
        return run("docker", "exec", "-i", self.container(service), *words, **more)

    # -- where things are

    @staticmethod
    def service_of(instance: str) -> str:
        """demo-2 is on instance-2, and so on."""
        return f"instance-{instance.rpartition('-')[2]}"

    @property
    def name_server(self) -> str:
        """Where names are asked for from outside."""
        return f"{self.variables['AURORA_LOOPBACK']}.3:{self.variables['AURORA_DNS_PORT']}"

    @property
    def port(self) -> int:
        """The instances' port from outside."""
        return int(self.variables["AURORA_PORT"])

    def published(self, address: str) -> str:
        """The loopback address at which the host of an inner address is published."""
        return f"{self.variables['AURORA_LOOPBACK']}.{address.rpartition('.')[2]}"

    # -- faults; each returns what heals it

    def kill(self, service: str):
        found = self.container(service)
        run("docker", "kill", found)
        return lambda: run("docker", "start", found)

    def pause(self, service: str):
        found = self.container(service)
        for more in reversed(range(5)):
            try:
                run("docker", "pause", found)
                break
            except RuntimeError as error:  # runc gives up where processes are being forked on a busy machine
                if "unable to freeze" not in str(error) or not more:
                    raise
        return lambda: run("docker", "unpause", found)

    def disconnect(self, service: str):
        found, network = self.container(service), f"{self.project}_aurora"
        settings = json.loads(run("docker", "inspect", found))[0]["NetworkSettings"]["Networks"][network]
        address = settings["IPAMConfig"]["IPv4Address"]
        run("docker", "network", "disconnect", network, found)
        return lambda: run("docker", "network", "connect", "--ip", address, "--alias", service, network, found)

    def blackhole(self, service: str):
        """Drop every packet in the container's own namespace: no peer gets an answer."""
        rules = "iptables -{0} INPUT ! -i lo -j DROP && iptables -{0} OUTPUT ! -o lo -j DROP"
        self.inside(service, "sh", "-c", rules.format("A"))
        return lambda: self.inside(service, "sh", "-c", rules.format("D"))

    def zone(self, zone: str) -> list[str]:
        """The services of a zone."""
        instance, nodes = ZONES[zone]
        return [f"instance-{instance}", *(f"node-{node}" for node in nodes)]
