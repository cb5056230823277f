"""The table of the requests that are commands of the command line, too.

A method of the client is declared once, by `command`: its action, its arguments, and what is printed of its result.
``aurora-router cluster`` makes an action of each entry of `COMMANDS`.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    Report = Callable[..., tuple[str, Any]]
    Method = TypeVar("Method", bound=Callable[..., Any])

COMMANDS: dict[str, Command] = {}
"""Name of an action -> the command."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument of a command, positional or an option.

    Attributes:
        parameter: name of the method's parameter.
        flag: e.g. ``--tier``; None: it is positional.
        options: what argparse's ``add_argument`` takes besides.
    """

    parameter: str
    flag: str | None
    options: Mapping[str, Any]

    @property
    def _key(self) -> str:
        return f"argument_{self.parameter}"  # ``name`` is the cluster's

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Let a parser take it."""
        if self.flag is None:
            parser.add_argument(self._key, **self.options)
        else:
            parser.add_argument(self.flag, dest=self._key, **self.options)

    def get(self, args: argparse.Namespace) -> Any:
        """Its value."""
        return getattr(args, self._key)


def positional(parameter: str, text: str, **options: Any) -> Argument:
    """A positional argument; its `metavar` is the parameter's name unless given."""
    return Argument(parameter, None, {"help": text, "metavar": parameter, **options})


def option(parameter: str, text: str, **options: Any) -> Argument:
    """An option, ``--`` and the parameter's name."""
    if "action" not in options:
        options = {"metavar": parameter.upper(), **options}
    return Argument(parameter, f"--{parameter.replace('_', '-')}", {"help": text, **options})


@dataclass(frozen=True, slots=True)
class Command:
    """One entry.

    Attributes:
        action: the word on the command line.
        text: what it does, in a line.
        path: which method of the client does it, e.g. ``nodes.down``.
        arguments: its arguments, in order.
        report: gets the result, and the arguments by name; returns a text and, for ``--json``, facts.
    """

    action: str
    text: str
    path: str
    arguments: tuple[Argument, ...]
    report: Report

    def run(self, cluster: object, args: argparse.Namespace) -> tuple[str, Any]:
        """Do it; returns a text and facts."""
        given = {each.parameter: each.get(args) for each in self.arguments}
        return self.report(operator.attrgetter(self.path)(cluster)(**given), **given)


def command(
    action: str, text: str, *arguments: Argument, report: Report, part: str | None = None
) -> Callable[[Method], Method]:
    """Enter a method of the client in the table.

    Args:
        action: the word on the command line.
        text: what it does, in a line.
        *arguments: the method's arguments.
        report: see `Command`.
        part: attribute of the cluster whose method it is; None: it is the cluster's own.
    """

    def enter(method: Method) -> Method:
        path = method.__name__ if part is None else f"{part}.{method.__name__}"
        COMMANDS[action] = Command(action, text, path, arguments, report)
        return method

    return enter
