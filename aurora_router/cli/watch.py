"""``watch``: a cluster, live, with what happens to it; or what the processes of an application know of theirs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import queue
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import psycopg

from aurora_router import observe
from aurora_router.cli import output
from aurora_router.cli.inspect import read_target, view_as_json
from aurora_router.cli.inspected import NothingToInspect, add_directory, read_processes
from aurora_router.connection import connect
from aurora_router.model.instance import Role
from aurora_router.policy.sentences import describe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from rich.console import RenderableType
    from typing_extensions import Self

    from aurora_router.connection import Connection
    from aurora_router.model.event import Event
    from aurora_router.model.view import View

LOOK_SECONDS = 0.25
"""How often the screen is redrawn, and the connection looked at."""
EVENTS = 12
"""How many of the last events the screen shows."""


class Watch:
    """Hold one connection, let the monitor look after the cluster, show what it sees."""

    name = "watch"
    help = "show a cluster, or what the processes of an application know of theirs, live"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        about = "a URL or conninfo, or a bare host name; without one, the processes with an inspection socket are shown"
        parser.add_argument("target", metavar="URL", nargs="?", help=about)
        parser.set_defaults(last_word="target")
        add_directory(parser)
        parser.add_argument("--seconds", type=float, default=float("inf"), help="end after so long; default: Ctrl-C")
        parser.add_argument("--refresh", type=float, default=1.0, help="seconds between looks while all is well")
        parser.add_argument("--json", action="store_true", help="print one JSON object per event")

    def run(self, args: argparse.Namespace) -> int:
        """Watch until the time is over, or Ctrl-C."""
        if args.target is None:
            return _watch_processes(args)
        reported: queue.SimpleQueue[tuple[float, Event]] = queue.SimpleQueue()
        end = observe.subscribe(lambda _, event: reported.put((time.time(), event)))
        # Events are shown here; warnings would spoil the screen.
        observe.logger.logger.addHandler(logging.NullHandler())
        try:
            with _Line(read_target(args.target), args.refresh) as line, _screen(as_json=args.json) as screen:
                until = time.monotonic() + args.seconds
                while True:
                    screen.show(line.view(), _new(reported))
                    if time.monotonic() >= until:
                        break
        finally:
            end()
        return 0


def _watch_processes(args: argparse.Namespace) -> int:
    """Show what processes know, until the time is over; the first look has to find one."""
    until, shown, seen = time.monotonic() + args.seconds, "", 0.0
    processes = read_processes(args.dir)
    while True:
        if args.json:
            output.say(json.dumps({"at": time.time(), "processes": processes}))
        elif (picture := "\n".join(draw_processes(processes, since=seen))) != shown:
            output.say(picture)
            shown = picture
            seen = max([seen, *(event["at"] for _, event in _events(processes))])
        sys.stdout.flush()
        if (left := until - time.monotonic()) <= 0:
            return 0
        time.sleep(min(args.refresh, left))
        with contextlib.suppress(NothingToInspect):
            processes = read_processes(args.dir)


def _events(processes: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in processes:
        for cluster in each["clusters"]:
            for event in cluster["events"]:
                yield f"{each['process']} {cluster['name']}", event


def draw_processes(processes: list[dict[str, Any]], since: float = 0.0) -> Iterator[str]:
    """Draw what processes know, as lines; of events those that are later than `since`, in Unix time."""
    for each in processes:
        for cluster in each["clusters"]:
            suspected = cluster["suspected_seconds"]
            state = "" if suspected is None else f", suspected for {suspected:.1f} s"
            writer = cluster["writer"] or "none known"
            yield f"{each['program']} {each['process']}, cluster {cluster['name']}: writer {writer}{state}"
            total = sum(instance["connections"] for instance in cluster["instances"])
            for instance in cluster["instances"]:
                yield "  " + _draw_instance(instance, total)
        for held in each["credentials"]:
            end = held["expires_in_seconds"]
            ends = "" if end is None else f", expires in {end:.0f} s"
            yield f"  {held['provider']} for {held['user']} at {held['host']}: {held['age_seconds']:.0f} s old{ends}"
    for place, event in sorted(_events(processes), key=lambda pair: pair[1]["at"])[-EVENTS:]:
        if event["at"] > since:
            yield f"{_clock(event['at'])}  {place}: {event['text']}"


def _draw_instance(instance: dict[str, Any], total: int) -> str:
    lag = instance["lag_seconds"]
    facts = [
        instance["zone"] or "",
        "" if lag is None else f"lag {lag * 1000:.1f} ms",
        f"{instance['connections']} of {total} connections",
        f"avoided for {instance['avoided_seconds']:.1f} s" if instance["avoided_seconds"] else "",
    ]
    return f"{instance['id']:<24} {instance['role']:<8} " + ", ".join(fact for fact in facts if fact)


def _clock(at: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(at))}.{int(at % 1 * 1000):03d}"


def _new(reported: queue.SimpleQueue[tuple[float, Event]]) -> list[tuple[float, Event]]:
    """The events since the last time; waits for the first for a moment."""
    found: list[tuple[float, Event]] = []
    with contextlib.suppress(queue.Empty):
        found.append(reported.get(timeout=LOOK_SECONDS))
        while True:
            found.append(reported.get_nowait())
    return found


class _Line:
    """One connection to any instance, made again when it is lost: its cluster is looked after while it is there."""

    def __init__(self, target: str, refresh: float) -> None:
        self._target = target
        self._options: dict[str, Any] = {"aurora_role": "any", "aurora_refresh": refresh, "autocommit": True}
        self._connection: Connection[Any] = connect(target, **self._options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def view(self) -> View:
        """The cluster as it is known now."""
        placement = self._connection.placement
        if self._connection.closed or placement.current is False:
            self._connection.close()
            with contextlib.suppress(psycopg.OperationalError):
                self._connection = connect(self._target, **self._options, aurora_failover_timeout=1)
        return placement.view


# ---------------------------------------------------------------- showing


class _Lines:
    """Plain text: the topology when it changes, and each event; or JSON, one object per line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._shown: list[tuple[str, str]] = []

    def show(self, view: View, events: list[tuple[float, Event]]) -> None:
        """Print what is new."""
        for at, event in events:
            self._event(at, event)
        roles = [(each.id, each.role.value) for each in view.instances.values()]
        if roles != self._shown and not self._as_json:
            output.say("  ".join(f"{id_}={role}" for id_, role in roles))
        elif roles != self._shown:
            output.say(json.dumps({"at": time.time(), "view": view_as_json(view)}))
        self._shown = roles
        sys.stdout.flush()

    def _event(self, at: float, event: Event) -> None:
        if self._as_json:
            facts = {name: _plain(value) for name, value in dataclasses.asdict(event).items()}
            output.say(json.dumps({"at": at, "event": type(event).__name__, **facts}))
        else:
            output.say(f"{_clock(at)}  {describe(event).sentence}")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Role) else value


class _Screen:
    """A table that is redrawn, and the last events below it (needs rich)."""

    def __init__(self) -> None:
        from rich.live import Live  # noqa: PLC0415 - an extra

        self._live = Live(auto_refresh=False)
        self._events: deque[tuple[float, Event]] = deque(maxlen=EVENTS)

    def show(self, view: View, events: list[tuple[float, Event]]) -> None:
        """Draw."""
        self._events.extend(events)
        self._live.update(self._draw(view), refresh=True)

    def start(self) -> None:
        """Begin to draw."""
        self._live.start()

    def stop(self) -> None:
        """Leave the last picture on the screen."""
        self._live.stop()

    def _draw(self, view: View) -> RenderableType:
        from rich.console import Group  # noqa: PLC0415
        from rich.table import Table  # noqa: PLC0415

        table = Table("instance", "role", "lag ms", "cpu %", "generation", title=f"epoch {view.epoch}")
        for each in view.instances.values():
            lag = "" if each.lag is None else f"{each.lag * 1000:.1f}"
            cpu = "" if each.cpu is None else f"{each.cpu:.0f}"
            style = "bold green" if each.role is Role.WRITER else ""
            table.add_row(each.id, each.role.value, lag, cpu, str(each.generation), style=style)
        lines = "\n".join(f"{_clock(at)}  {describe(event).sentence}" for at, event in self._events)
        return Group(table, lines)


@contextlib.contextmanager
def _screen(*, as_json: bool) -> Iterator[_Lines | _Screen]:
    """What to show it on: a screen where there is one and rich is installed, else lines."""
    try:
        screen = _Screen() if sys.stdout.isatty() and not as_json else None
    except ImportError:
        screen = None
    if screen is None:
        yield _Lines(as_json=as_json)
        return
    screen.start()
    try:
        yield screen
    finally:
        screen.stop()
