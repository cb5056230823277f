"""User and password from the environment, or the password from a file that something else writes.

Theory. Docker and Kubernetes hand secrets over as variables or as mounted files. A file changes while the process runs:
it is read again every `RENEWAL_SECONDS` in the background, and at once where the server rejects what was in it. Needs
no botocore.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from aurora_router import Credential, CredentialsUnavailable, InvalidOption, Login

if TYPE_CHECKING:
    from collections.abc import Mapping

USER, PASSWORD = "AURORA_USER", "AURORA_PASSWORD"
RENEWAL_SECONDS = 10.0
"""How often a file is read again; a variable of a process seldom changes, but may."""


@dataclass(frozen=True, slots=True)
class Environment:
    """A provider that reads variables, and maybe a file.

    Attributes:
        user: the variable with the user; None: `USER` where it is set, else the user that is named otherwise.
        password: the variable with the password; None: `PASSWORD`.
        file: a file with the password, in place of the variable.

    Raises:
        InvalidOption: the password is to come from two places.
    """

    user: str | None = None
    password: str | None = None
    file: str | None = None

    options: ClassVar[frozenset[str]] = frozenset({"env_user", "env_password", "password_file"})

    def __post_init__(self) -> None:
        if self.password is not None and self.file is not None:
            raise InvalidOption("aurora_env_password and aurora_password_file are both given: give one of them")

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Environment:
        """Make it of the options of a connection."""
        return cls(*(options.get(name) for name in ("env_user", "env_password", "password_file")))

    def scope(self, login: Login) -> Login:  # noqa: ARG002 - the password is the same for all
        """Nothing of a login: all instances have the same user and password."""
        return Login(None, 0, None, None)

    def __call__(self, login: Login) -> Credential:  # noqa: ARG002 - see `scope`
        """Read what is there now.

        Raises:
            CredentialsUnavailable: a variable is not set, or the file can't be read.
        """
        user = os.environ.get(self.user or USER) or None
        if user is None and self.user is not None:
            raise CredentialsUnavailable(f"the environment has no {self.user}, which aurora_env_user names: set it")
        return Credential(self._find_password(), user, renew_at=time.time() + RENEWAL_SECONDS)

    def _find_password(self) -> str:
        if self.file is None:
            name = self.password or PASSWORD
            found = os.environ.get(name)
            if not found:
                raise CredentialsUnavailable(
                    f"the environment has no {name}: set it, or name another variable with aurora_env_password, or a "
                    "file with aurora_password_file"
                )
            return found
        text = _read(self.file).removesuffix("\n").removesuffix("\r")
        if not text:
            raise CredentialsUnavailable(f"the file {self.file} is empty, so there is no password in it")
        return text


def _read(file: str) -> str:
    """The text of a file. A decoder's error is not passed on: it holds what it could not read."""
    try:
        return Path(file).read_text(encoding="utf-8")
    except OSError as error:
        why = error.strerror
    except UnicodeDecodeError:
        why = "it is no UTF-8 text"
    raise CredentialsUnavailable(f"the file {file}, which aurora_password_file names, can't be read: {why}")
