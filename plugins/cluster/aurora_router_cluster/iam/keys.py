"""The AWS keys of a cluster: random, of no use anywhere else, in a file that AWS's own tools read."""

from __future__ import annotations

import configparser
import secrets
import string
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aurora_router_cluster.errors import DirectoryError
from aurora_router_cluster.postgres.files import write_durably

if TYPE_CHECKING:
    from pathlib import Path

_ID_ALPHABET = string.ascii_uppercase + "234567"
_SECTION = "default"


@dataclass(frozen=True, slots=True)
class Keys:
    """An access key and its secret."""

    access_key_id: str
    secret_access_key: str = field(repr=False)


def make_keys() -> Keys:
    """New keys, in the form that AWS's have."""
    key_id = "AKIA" + "".join(secrets.choice(_ID_ALPHABET) for _ in range(16))
    return Keys(key_id, secrets.token_urlsafe(30))


def keep_keys(path: Path, region: str) -> Keys:
    """The keys in the file `path`, which is made with new ones if it is not there, readable by its owner alone.

    Args:
        path: a file in the format of ``AWS_SHARED_CREDENTIALS_FILE``.
        region: written beside new keys.

    Raises:
        DirectoryError: the file cannot be read.
    """
    if path.exists():
        return _read(path)
    made = make_keys()
    lines = (
        f"[{_SECTION}]",
        f"aws_access_key_id = {made.access_key_id}",
        f"aws_secret_access_key = {made.secret_access_key}",
        f"region = {region}",
    )
    write_durably(path, "\n".join(lines) + "\n")
    return made


def _read(path: Path) -> Keys:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        return Keys(parser[_SECTION]["aws_access_key_id"], parser[_SECTION]["aws_secret_access_key"])
    except (OSError, ValueError, KeyError, configparser.Error) as error:
        # The parser's own message quotes the line that it could not read.
        why = error.strerror if isinstance(error, OSError) else "it is damaged"
        raise DirectoryError(
            f"the cluster's AWS keys cannot be read from {path}: {why}; put a good copy back, or delete it: the "
            "cluster then makes new ones"
        ) from None
