"""The RDS API of this user: found where it runs, started where it does not.

One process serves all clusters of a state directory, in ``<state>/.api/``, mode 0700:

* ``access.json``, mode 0600: the keys that requests are signed with, and the port. It stays, so that what was written
  into a profile of the AWS CLI goes on working.
* ``serving.lock`` is held (flock) by the process as long as it serves; the kernel frees it.
* ``starting.lock`` is held by what starts the process, and by the process while it decides to end: a cluster that is
  started meanwhile finds one that stays, or none.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aurora_router_cluster import registry
from aurora_router_cluster.client import starting
from aurora_router_cluster.errors import DirectoryError, RequestError
from aurora_router_cluster.postgres.files import write_durably

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ".api"
HOST = "127.0.0.1"
START_TIMEOUT = 60.0  # seconds
MODULE = "aurora_router_cluster.api.process"


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """How to reach the RDS API.

    Attributes:
        access_key: of the test keys, which are valid here only.
        secret_key: of the test keys.
        port: that it listens on, or listened on last; 0: it never did.
    """

    access_key: str
    secret_key: str = field(repr=False)
    port: int = 0

    @property
    def url(self) -> str:
        """For ``--endpoint-url``."""
        return f"http://{HOST}:{self.port}"

    def environment(self, region: str) -> dict[str, str]:
        """The variables with which boto3 and the AWS CLI use it, and no other account."""
        return {
            "AWS_ENDPOINT_URL_RDS": self.url,
            "AWS_DEFAULT_REGION": region,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
        }


def find() -> ApiAccess | None:
    """The API that runs; None: none does."""
    directory = registry.state_directory() / FOLDER
    if not registry.is_locked(directory / "serving.lock"):
        return None
    return _read(directory)


def ensure() -> ApiAccess:
    """The API that runs; where none does, one is started, which ends with the last cluster that wants it.

    Raises:
        RequestError: botocore is not installed.
        SupervisorError: it did not start.
    """
    check_installed()
    with starting_alone():
        return find() or _start()


def check_installed() -> None:
    """Make sure that the API can be started.

    Raises:
        RequestError: botocore is not installed.
    """
    if importlib.util.find_spec("botocore") is None:
        raise RequestError("the RDS API needs the library botocore: pip install 'aurora-router-cluster[api]'")


def _start() -> ApiAccess:
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        cwd="/",
    )
    with starting.ending_on_failure(process):
        starting.await_ready(process, START_TIMEOUT, "process of the RDS API")
    process.returncode = 0  # it is not this process's to wait for: it ends with the last cluster
    return _read(registry.state_directory() / FOLDER)


@contextlib.contextmanager
def starting_alone() -> Iterator[Path]:
    """Keep every other process from starting the API, or ending it because no cluster wants it; the API's directory.

    Raises:
        SupervisorError: the state directory cannot be used.
    """
    directory = registry.make_state_directory() / FOLDER
    directory.mkdir(mode=0o700, exist_ok=True)
    with (directory / "starting.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


def load_access(directory: Path) -> ApiAccess:
    """The keys of a state directory, which are made on first use."""
    with contextlib.suppress(FileNotFoundError):
        return _read(directory)
    from aurora_router_cluster.iam.keys import make_keys  # noqa: PLC0415 - on first use only

    keys = make_keys()
    access = ApiAccess(keys.access_key_id, keys.secret_access_key)
    save_access(directory, access)
    return access


def save_access(directory: Path, access: ApiAccess) -> None:
    """Write them down, for this user only."""
    facts = {"access_key": access.access_key, "secret_key": access.secret_key, "port": access.port}
    write_durably(directory / "access.json", json.dumps(facts))


def _read(directory: Path) -> ApiAccess:
    path = directory / "access.json"
    try:
        return ApiAccess(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise DirectoryError(f"{path} is damaged ({error}); delete it: new keys are made then") from None
