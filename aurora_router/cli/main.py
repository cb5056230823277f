"""The entry point of ``aurora-router``."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from typing import TYPE_CHECKING

import psycopg

from aurora_router._version import __version__
from aurora_router.cli import output
from aurora_router.cli.command import Command, CommandUnavailableError, plugin_commands
from aurora_router.cli.doctor import Doctor
from aurora_router.cli.drain import DrainCommand
from aurora_router.cli.inspect import Explain, Topology
from aurora_router.cli.outcome import OutcomeCommand
from aurora_router.cli.watch import Watch
from aurora_router.errors import AuroraRouterError

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        0: done; 1: it failed and said why; 2: the command line was wrong; 130: interrupted.
    """
    words = sys.argv[1:] if argv is None else argv
    try:
        commands: list[Command] = [
            Topology(),
            Explain(),
            Doctor(),
            Watch(),
            DrainCommand(),
            OutcomeCommand(),
            *plugin_commands(),
        ]
        args = _parse(_parser(commands, next((word for word in words if not word.startswith("-")), "")), words)
        return int(args.run(args))
    except CommandUnavailableError as error:
        output.complain(f"aurora-router {error}")
        return 2
    except (AuroraRouterError, psycopg.Error) as error:
        output.complain(f"aurora-router: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # the program that read our output has ended, as `head` does
        _drop_output()
        return 0


def _drop_output() -> None:
    """Lead standard output nowhere: Python writes what is left of it at its end, and would complain again."""
    with contextlib.suppress(OSError, ValueError):  # it may be none of the system's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _parse(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    """Returns the arguments; an optional last argument may also stand after options.

    argparse decides at the first option that an optional positional argument is absent, and then refuses it (3.10 to
    3.13). A command that has one names it as its default of ``last_word``.
    """
    args, rest = parser.parse_known_args(words)
    word = getattr(args, "last_word", "")
    if len(rest) == 1 and word and not rest[0].startswith("-") and not getattr(args, word):
        setattr(args, word, rest[0])
    elif rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _parser(commands: Sequence[Command], chosen: str) -> argparse.ArgumentParser:
    """The parser of all commands; only the chosen one adds its arguments, so that only that one is imported."""
    parser = argparse.ArgumentParser(prog="aurora-router", description="Connection routing for Amazon Aurora.")
    parser.add_argument("--version", action="version", version=f"aurora-router {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in commands:
        child = subparsers.add_parser(command.name, help=command.help, description=command.help)
        if command.name == chosen:
            command.configure(child)
            child.set_defaults(run=command.run)
    return parser
