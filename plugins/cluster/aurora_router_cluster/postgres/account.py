"""The account that runs PostgreSQL: it refuses to run as root, so root hands it to an unprivileged account."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LAUNCHER = Path(__file__).with_name("launcher.py")
UNPRIVILEGED = ("postgres", "nobody")
TEMPORARY = ("TMPDIR", "TMP", "TEMP")
"""Variables that name the directory for temporary files."""


@dataclass(frozen=True, slots=True)
class Account:
    """The operating system's account that runs the instances.

    Attributes:
        name: login name, for messages.
        uid: user id.
        gid: primary group id.
        switch: True where we are root and have to change to it.
    """

    name: str
    uid: int
    gid: int
    switch: bool

    @classmethod
    def default(cls) -> Account:
        """The current user, or for root the first of ``postgres`` and ``nobody`` that exists."""
        if os.geteuid() != 0:
            entry = pwd.getpwuid(os.geteuid())
            return cls(entry.pw_name, os.geteuid(), os.getegid(), switch=False)
        for name in UNPRIVILEGED:
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(name, entry.pw_uid, entry.pw_gid, switch=True)
        raise LookupError("running as root, and neither a user 'postgres' nor 'nobody' exists to run PostgreSQL")

    def own(self, path: Path) -> None:
        """Hand `path` (and what is below it) to the account; nothing to do where we are the account."""
        if not self.switch:
            return
        shutil.chown(path, self.uid, self.gid)
        if path.is_dir() and not path.is_symlink():
            for child in path.rglob("*"):
                os.chown(child, self.uid, self.gid, follow_symlinks=False)

    def write(self, path: Path, text: str) -> None:
        """Replace `path` atomically by a file of the account's with the content `text`, mode 0600."""
        staged = path.with_name(path.name + ".new")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:  # noqa: PTH123 - a descriptor, not a path
            if self.switch:
                os.fchown(file.fileno(), self.uid, self.gid)
            file.write(text)
        staged.replace(path)

    def barrier(self, path: Path) -> Path | None:
        """Return the first directory on the way to `path` that the account may not enter; None if it may."""
        resolved = path.resolve()
        for directory in [*reversed(resolved.parents), resolved]:
            mode = directory.stat()
            if mode.st_uid == self.uid:
                allowed = mode.st_mode & stat.S_IXUSR
            elif mode.st_gid == self.gid:
                allowed = mode.st_mode & stat.S_IXGRP
            else:
                allowed = mode.st_mode & stat.S_IXOTH
            if not allowed and self.uid != 0:
                return directory
        return None

    def run(self, command: Sequence[str | Path], *, text_input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run `command` as the account and return its result; stderr is merged into stdout, nothing is raised."""
        become: dict[str, Any] = {"user": self.uid, "group": self.gid, "extra_groups": []} if self.switch else {}
        return subprocess.run(
            [str(word) for word in command],
            input=text_input,
            stdin=subprocess.DEVNULL if text_input is None else None,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            cwd="/",
            env=self.environment(),
            **become,
        )

    def spawn(self, command: Sequence[str | Path], *, log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start a lasting `command` as the account; it is killed when the calling thread or process ends."""
        return subprocess.Popen(
            self.command(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=self.environment(),
            start_new_session=True,
        )

    def command(self, command: Sequence[str | Path]) -> list[str]:
        """The argument vector that runs `command` as the account and ends with us (see `launcher`)."""
        identity = [str(self.uid), str(self.gid)] if self.switch else ["-", "-"]
        return [
            sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *identity, *map(str, command),
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        """Our environment without what would misconfigure a server's programs (``PG*``, locale, files of LDAP).

        Another account may not enter our directory for temporary files: it uses the system's.
        """
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
        for name in TEMPORARY if self.switch else ():
            kept.pop(name, None)
        return {**kept, "LC_ALL": "C", "TZ": "UTC", "LDAPNOINIT": "1"}
