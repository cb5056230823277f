"""Connections that the relay passes on: readiness, pipes, links. Standard library alone, see `relay`."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import struct
import time
from collections import deque
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Route(Protocol):
        """What a link needs of its route: see `relay.Route`."""

        loop: Loop
        links: set[Link]
        held: bool
        delay: float
        rate: float | None

        @property
        def shaped(self) -> bool:
            """Whether it is delayed or narrow."""
            ...

        def check_target(self) -> None:
            """Close the listener where the target refuses."""
            ...


CHUNK = 1 << 16
MOST_QUEUED = 1 << 20  # bytes kept back on a delayed or narrow connection until its sender has to wait
STEP = 0.02  # seconds of a narrow connection's bandwidth that are passed on at once
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset

Place = tuple[str, int]
"""Host and port; a Unix socket's path and port 0."""


def make_socket(place: Place) -> tuple[socket.socket, Any]:
    """A non-blocking socket of the family of `place`, and the address in the form that it takes."""
    family = socket.AF_UNIX if place[0].startswith("/") else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.settimeout(0)
    return made, place[0] if family == socket.AF_UNIX else place


class Loop:
    """Readiness and timers of this process."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self.running = True

    def watch(self, target: socket.socket, events: int, ready: Callable[[int], None]) -> None:
        """Call `ready(events)` when `target` is; no events: not at all, also not about errors."""
        known = self._selector.get_map().get(target.fileno())
        if known is None:
            if events:
                self._selector.register(target, events, ready)
        elif not events:
            self._selector.unregister(target)
        elif known.events != events:
            self._selector.modify(target, events, ready)

    def at(self, due: float, call: Callable[[], None]) -> None:
        """Call once, at the monotonic time `due`."""
        heapq.heappush(self._timers, (due, next(self._count), call))

    def run(self) -> None:
        """Until `running` is False."""
        while self.running:
            wait = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for key, events in self._selector.select(wait):
                current = self._selector.get_map().get(key.fd)
                if current is not None and current.fileobj is key.fileobj:  # else it ended earlier in this turn
                    cast("Callable[[int], None]", key.data)(events)
            while self._timers and self._timers[0][0] <= time.monotonic():
                heapq.heappop(self._timers)[2]()


class Pipe:
    """One direction of a connection: what was read and is not written yet, each piece with the time that it is due.

    An empty piece is the end of the source.
    """

    def __init__(self, link: Link, source: socket.socket, sink: socket.socket) -> None:
        self.link = link
        self.source = source
        self.sink = sink
        self.queue: deque[tuple[float, bytes]] = deque()
        self.ended = False
        self.blocked = False
        self._queued = 0
        self._free_at = 0.0
        self._timed = False

    @property
    def wants_more(self) -> bool:
        """Whether the source is to be read."""
        return not self.ended and self._queued < (MOST_QUEUED if self.link.route.shaped else 1)

    def read(self) -> None:
        """Take what has come; pass it on at once where nothing stands against that."""
        route = self.link.route
        size = CHUNK if route.rate is None else max(1, min(CHUNK, int(route.rate * STEP)))
        try:
            data = self.source.recv(size)
        except BlockingIOError:
            return
        if data and not self.queue and not route.shaped:
            with contextlib.suppress(BlockingIOError):
                data = data[self.sink.send(data) :]
            if not data:
                return
        if not data and self is self.link.down:
            route.check_target()  # before the client hears of it: if it died, no client may connect any more
        self._put(data)
        self.write()

    def _put(self, data: bytes) -> None:
        route, now = self.link.route, time.monotonic()
        self._free_at = max(now, self._free_at) + (len(data) / route.rate if route.rate else 0.0)
        last = self.queue[-1][0] if self.queue else now
        self.queue.append((max(last, self._free_at + route.delay), data))
        self._queued += len(data)
        self.ended = not data

    def write(self) -> None:
        """Pass on what is due."""
        if self.link.route.held:
            return
        self.blocked = False
        while self.queue and not self.blocked:
            due, data = self.queue[0]
            if due > time.monotonic():
                self._wake_at(due)
                break
            if not data:
                self.link.close()
                return
            self._send(due, data)
        self.link.watch()

    def _send(self, due: float, data: bytes) -> None:
        try:
            sent = self.sink.send(data)
        except BlockingIOError:
            self.blocked = True
            return
        self._queued -= sent
        self.queue.popleft()
        if sent < len(data):
            self.queue.appendleft((due, data[sent:]))

    def _wake_at(self, due: float) -> None:
        if not self._timed:
            self._timed = True
            self.link.route.loop.at(due, self._awake)

    def _awake(self) -> None:
        self._timed = False
        if not self.link.closed:
            self.link.run_guarded(self.write)


class Link:
    """One connection: the client's socket, ours to the target, and a pipe in each direction."""

    def __init__(self, route: Route, client: socket.socket, server: socket.socket) -> None:
        self.route = route
        self.client = client
        self.server = server
        self.connected = False
        self.closed = False
        self.up = Pipe(self, client, server)
        self.down = Pipe(self, server, client)
        for each in (client, server):
            if each.family == socket.AF_INET:
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def watch(self) -> None:
        """Say what we wait for now."""
        if self.closed:
            return
        if not self.connected:
            self.route.loop.watch(self.server, selectors.EVENT_WRITE, self._server_ready)
            return
        self.route.loop.watch(self.client, self._events(self.up, self.down), self._client_ready)
        self.route.loop.watch(self.server, self._events(self.down, self.up), self._server_ready)

    def _events(self, reads: Pipe, writes: Pipe) -> int:
        if self.route.held:
            return 0
        return (selectors.EVENT_READ if reads.wants_more else 0) | (selectors.EVENT_WRITE if writes.blocked else 0)

    def _client_ready(self, events: int) -> None:
        self.run_guarded(lambda: self._ready(events, self.up, self.down))

    def _server_ready(self, events: int) -> None:
        self.run_guarded(lambda: self._ready(events, self.down, self.up) if self.connected else self._connect())

    def _ready(self, events: int, reads: Pipe, writes: Pipe) -> None:
        if events & selectors.EVENT_WRITE:
            writes.write()
        if events & selectors.EVENT_READ and not self.closed:
            reads.read()

    def _connect(self) -> None:
        failure = self.server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
        self.connected = True
        self.watch()

    def run_guarded(self, work: Callable[[], None]) -> None:
        """Do it; an error of one side ends both, once the server's last words have been passed on."""
        try:
            work()
        except OSError:
            if not self.closed:
                self.route.check_target()
                self.close(reset=not self._last_words())

    def _last_words(self) -> bool:
        """Pass on what the server had still sent (why it ends the connection); whether there was anything."""
        said = False
        with contextlib.suppress(OSError):
            while data := self.server.recv(CHUNK):
                self.client.send(data)
                said = True
        return said

    def close(self, *, reset: bool = False) -> None:
        """End both sides."""
        if self.closed:
            return
        self.closed = True
        self.route.links.discard(self)
        for each in (self.client, self.server):
            self.route.loop.watch(each, 0, self._client_ready)
            if reset:
                with contextlib.suppress(OSError):
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            each.close()
