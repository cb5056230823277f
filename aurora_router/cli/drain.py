"""``drain URL NAME``: take a reader out of use for a while, for planned maintenance, without a permission of AWS."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router.cli import output
from aurora_router.cli.inspect import read_target
from aurora_router.errors import AuroraRouterError
from aurora_router.flow import drain_sql
from aurora_router.model.drain import MAX_REASON, DrainNote
from aurora_router.model.instance import Role
from aurora_router.router import Router

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from aurora_router.model.view import View

NOT_EMPTY = 3
"""Exit status where sessions are left when ``--wait`` is over."""
DEFAULT_SECONDS = 3600.0
MOST_SECONDS = 7 * 86400.0
LOOK_SECONDS = 0.5
"""Between two looks at the sessions of an instance."""
OURS = "aurora-router monitor"
"""What the application_name of the monitors' sessions begins with; they end by themselves."""
GRANT = (
    f"GRANT {drain_sql.ROLE} TO that user WITH ADMIN OPTION, if the role exists, or ALTER ROLE that user CREATEROLE; "
    "or connect as the master user"
)

DELAY = "processes learn of it at their next refresh, within aurora_refresh (30 s by default) and a quarter"


class DrainRefused(AuroraRouterError, ValueError):
    """What was asked for cannot be; the message says why, and what to do."""


class DrainCommand:
    """Drain a reader, end a drain, list the drains."""

    name = "drain"
    help = "take a reader out of use for planned maintenance: pools leave it, new connections avoid it"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        add = parser.add_argument
        add("target", metavar="URL", help="a URL or conninfo of the cluster, of a user with CREATEROLE")
        add("instance", metavar="NAME", nargs="?", help="the reader's id, as `aurora-router topology` prints it")
        add("--for", dest="seconds", type=float, default=DEFAULT_SECONDS, metavar="SECONDS",
            help="when the drain is over by itself, 1 to 604800 (default: %(default)g)")  # fmt: skip
        add("--reason", default="", metavar="TEXT", help=f"for people, up to {MAX_REASON} characters")
        add("--undo", action="store_true", help="end the drain of NAME, or of all instances if none is named")
        add("--list", action="store_true", help="only list the drains")
        add("--wait", type=float, metavar="SECONDS",
            help="wait until no session of a user is left there, so long at most; then exit with status "
            f"{NOT_EMPTY} if some are")  # fmt: skip
        add("--json", action="store_true", help="print JSON")
        parser.set_defaults(last_word="instance")

    def run(self, args: argparse.Namespace) -> int:
        """Do it."""
        check_arguments(args)
        router = Router(read_target(args.target))
        if args.list:
            _list(args, read_drains(router))
            return 0
        view = router.topology()
        if args.undo:
            ended = undo(router, None if args.instance is None else args.instance.lower())
            _say(args, f"not drained any more: {', '.join(ended) or 'none was drained'}", ended=ended)
            return 0
        instance = find_reader(view, args.instance)
        note = drain(router, instance, args.seconds, args.reason)
        facts: dict[str, Any] = {"drained": instance, "seconds": args.seconds, "reason": note.reason}
        if args.wait is None:
            _say(args, f"{instance} is drained for {args.seconds:g} s; {DELAY}", **facts)
            return 0
        left = wait_until_empty(router, instance, args.wait)
        shown = ", ".join(f"{count} of {name}" for name, count in left.items())
        _say(args, f"{instance} is drained; sessions left: {shown or 'none'}", **facts, sessions=left)
        return NOT_EMPTY if left else 0


def check_arguments(args: argparse.Namespace) -> None:
    """Make sure that the arguments go together.

    Raises:
        DrainRefused: they do not, or a number is out of range.
    """
    if args.list and (args.undo or args.instance):
        raise DrainRefused("--list goes with neither NAME nor --undo")
    if not (args.list or args.undo or args.instance):
        raise DrainRefused("name the reader to drain, or give --list or --undo")
    if not 1.0 <= args.seconds <= MOST_SECONDS:
        raise DrainRefused(f"--for {args.seconds:g}: want 1 to {MOST_SECONDS:.0f} s, so that no drain is forgotten")
    if len(args.reason) > MAX_REASON:
        raise DrainRefused(f"--reason has {len(args.reason)} characters, {MAX_REASON} is the most")
    if args.wait is not None and not 0.0 <= args.wait <= MOST_SECONDS:
        raise DrainRefused(f"--wait {args.wait:g}: want 0 to {MOST_SECONDS:.0f} s")
    if args.wait is not None and (args.undo or args.list):
        raise DrainRefused("--wait goes with the drain of an instance alone")


def find_reader(view: View, name: str) -> str:
    """Return the id of the reader of that name; case does not matter.

    Raises:
        DrainRefused: there is none, it is the writer, or there is no other instance.
    """
    found = next((each for each in view.instances.values() if each.id.lower() == name.lower()), None)
    if found is None:
        raise DrainRefused(f"the cluster has no instance {name!r}; it has {', '.join(view.instances)}")
    if found.role is Role.WRITER:
        raise DrainRefused(f"{found.id} is the writer, which cannot be drained: fail over to a reader first")
    return found.id


def drain(router: Router, instance: str, seconds: float, reason: str) -> DrainNote:
    """Note the drain of an instance, in the place of an earlier one of it.

    Raises:
        DrainRefused: the user may not.
    """
    with _writing(router) as (connection, notes, now):
        made = DrainNote(instance.lower(), now, now + seconds, reason)
        _write(connection, {**notes, made.instance: made})
    return made


def undo(router: Router, instance: str | None) -> list[str]:
    """End the drain of an instance, or all; returns the ids of those that were drained.

    Raises:
        DrainRefused: the user may not.
    """
    with _writing(router) as (connection, notes, _):
        ended = sorted(id_ for id_ in notes if instance in {None, id_})
        if ended:
            _write(connection, {id_: note for id_, note in notes.items() if id_ not in ended})
    return ended


def read_drains(router: Router) -> list[tuple[DrainNote, float]]:
    """The drains that go on, and the seconds that each has left."""
    with router.connect(role="writer", autocommit=True) as connection:
        return list(_read(connection))


def wait_until_empty(router: Router, instance: str, seconds: float) -> dict[str, int]:
    """Wait until no session of a user is left with an instance; returns those that are left, by application."""
    until = time.monotonic() + seconds
    with router.connect(instance=instance, autocommit=True) as connection:
        while True:
            rows = connection.execute(drain_sql.SESSIONS).fetchall()
            left = {name: count for name, count in rows if not name.startswith(OURS)}
            if not left or time.monotonic() >= until:
                return left
            time.sleep(min(LOOK_SECONDS, max(0.0, until - time.monotonic())))


@contextmanager
def _writing(router: Router) -> Iterator[tuple[psycopg.Connection[Any], dict[str, DrainNote], float]]:
    """A transaction that holds the lock of the notes, the notes of the drains that go on, and the server's clock."""
    try:
        with router.connect(role="writer") as connection:
            connection.execute(drain_sql.LOCK)
            notes = {note.instance: note for note, _ in _read(connection)}
            row = connection.execute(drain_sql.CLOCK).fetchone()
            assert row is not None, "a SELECT without FROM has one row"
            yield connection, notes, float(row[0])
    except psycopg.errors.InsufficientPrivilege as error:
        raise DrainRefused(f"the user may not note a drain ({str(error).strip()}): {GRANT}") from error


def _read(connection: psycopg.Connection[Any]) -> tuple[tuple[DrainNote, float], ...]:
    return drain_sql.read_rows(connection.execute(drain_sql.READ).fetchall())


def _write(connection: psycopg.Connection[Any], notes: dict[str, DrainNote]) -> None:
    row = connection.execute(drain_sql.EXISTS).fetchone()
    connection.execute(drain_sql.write(notes.values(), exists=bool(row and row[0])).encode())


def _list(args: argparse.Namespace, drains: list[tuple[DrainNote, float]]) -> None:
    if args.json:
        facts = [{"instance": note.instance, "seconds_left": left, "reason": note.reason} for note, left in drains]
        output.say_json({"drains": facts})
    elif drains:
        rows = [(note.instance, f"{left:.0f}", note.reason) for note, left in drains]
        output.table(("instance", "seconds left", "reason"), rows)
    else:
        output.say("no instance is drained")


def _say(args: argparse.Namespace, text: str, **facts: object) -> None:
    if args.json:
        output.say_json(facts)
    else:
        output.say(text)
