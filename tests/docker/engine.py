"""A Docker engine for the tests: the one that is there, or one that is started for as long as they run."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

START_SECONDS = 60.0


class NoEngine(Exception):
    """Why there is none."""


def run(*words: str, timeout: float = 600.0, check: bool = True, **more) -> str:
    """Run a command and return what it printed; its words are in the error if it fails."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout, **more)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def compose_command() -> str:
    """``docker compose``, or ``docker-compose`` of old.

    Raises:
        NoEngine: neither is there.
    """
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True)
    if plugin.returncode == 0:
        return "docker compose"
    if shutil.which("docker-compose"):
        return "docker-compose"
    raise NoEngine("neither 'docker compose' nor docker-compose is installed (Debian: apt install docker-compose)")


def answers() -> bool:
    """Whether an engine answers."""
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@contextlib.contextmanager
def engine():
    """See that an engine answers while the block runs; one that was started for it is stopped after it.

    Ours lives in a directory of its own and leaves the machine's packet filter alone: what is published goes through
    docker's proxy, and the containers reach only each other.

    Raises:
        NoEngine: none answers, and none can be started.
    """
    if shutil.which("docker") is None:
        raise NoEngine("docker is not installed (Debian: apt install docker.io docker-compose)")
    if answers():
        yield
        return
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise NoEngine("no Docker engine answers, and only root can start one where dockerd is installed (docker.io)")
    directory = Path(tempfile.mkdtemp(prefix="aurora-docker-"))
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = f"unix://{directory}/socket"
    process = _start(directory)
    try:
        _await(process, directory)
        yield
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        process.wait()
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        for mount in _mounts(directory):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


def _start(directory: Path) -> subprocess.Popen[bytes]:
    words = ["dockerd", "--host", os.environ["DOCKER_HOST"], "--data-root", f"{directory}/data"]
    words += ["--exec-root", f"{directory}/exec", "--pidfile", f"{directory}/pid"]
    words += ["--iptables=false", "--ip6tables=false", "--bridge=none"]
    with (directory / "log").open("wb") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def _await(process: subprocess.Popen[bytes], directory: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None or time.monotonic() > deadline:
            said = (directory / "log").read_text(errors="replace").splitlines()[-3:]
            raise NoEngine(f"dockerd did not start: {' / '.join(said)}")
        time.sleep(0.1)


def _mounts(directory: Path) -> list[str]:
    lines = Path("/proc/mounts").read_text().splitlines()
    return [place for place in (line.split()[1] for line in lines) if place.startswith(str(directory))][::-1]
