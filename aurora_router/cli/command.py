"""What a sub-command is, and how those of other distributions are found."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Protocol, cast

from aurora_router._version import __version__

if TYPE_CHECKING:
    import argparse

GROUP = "aurora_router.commands"

CLUSTER_COMMANDS = {
    "cluster": "run a local cluster that behaves like Aurora, and change it while it runs",
    "demo": "start a real local cluster and watch connections being routed to it",
}
"""The sub-commands of the distribution `aurora-router-cluster`, which are listed whether it is installed or not."""

INSTALL = f"pip install 'aurora-router-cluster[demo]=={__version__}'"
"""Brings them; of the driver's own version, so that it does not replace the driver."""


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


class CommandUnavailableError(Exception):
    """A sub-command of another distribution cannot run: what is missing, and how to install it."""


class PluginCommand:
    """A sub-command of another distribution, which is imported only when its arguments are needed.

    The list of all commands shows it by the metadata of its distribution alone: no module of a plugin is loaded for
    that.

    Args:
        name: the word on the command line.
        entry: where it is; None: the distribution is not installed.
    """

    def __init__(self, name: str, entry: EntryPoint | None) -> None:
        self.name = name
        self.help = _one_line(name, entry)
        self._entry = entry
        self._command: Command | None = None

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Import the command, and let it add its arguments.

        Raises:
            CommandUnavailableError: it is not installed, or not wholly.
        """
        if self._entry is None:
            raise CommandUnavailableError(f"{self.name} is not installed. Install it: {INSTALL}")
        try:
            self._command = cast("Command", self._entry.load())
        except ImportError as error:
            raise self._unavailable(error) from error
        self._command.configure(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Run it.

        Raises:
            CommandUnavailableError: it needs a package that is not installed.
        """
        assert self._command is not None, "configure() was called before"
        try:
            return self._command.run(args)
        except ImportError as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: ImportError) -> CommandUnavailableError:
        what_to_do = f" Install what it needs: {INSTALL}" if self.name in CLUSTER_COMMANDS else ""
        return CommandUnavailableError(f"{self.name} cannot run: {error}.{what_to_do}")


def _one_line(name: str, entry: EntryPoint | None) -> str:
    if name in CLUSTER_COMMANDS:
        return CLUSTER_COMMANDS[name] + ("" if entry else " (not installed: run it to see how to install it)")
    assert entry is not None, "only the commands of aurora-router-cluster are listed without it"
    if entry.dist is None:
        return ""
    about = entry.dist.metadata
    summary = about["Summary"] if "Summary" in about else f"a command of {entry.dist.name}"  # noqa: SIM401 - it has no `get`
    return summary.replace("%", "%%")


def plugin_commands() -> list[PluginCommand]:
    """The sub-commands of other distributions, and those of `aurora-router-cluster` in any case, by name."""
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    return [PluginCommand(name, found.get(name)) for name in sorted({*found, *CLUSTER_COMMANDS})]
