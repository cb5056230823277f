"""The relay: one process that stands in front of all instances of a cluster started with faults.

It listens where clients believe an instance to be and passes bytes on to where the instance really listens. Nothing is
parsed. A route (one listening address and where it leads) can be *held*, *delayed* or *narrowed*.

Held is a partition: packets are dropped, nothing is reset. No byte is read or written on any connection of the route,
also none that was under way, and no end of a connection is passed on; the kernel's buffers stand for the packets that
TCP sends again and again until the network is back. New TCP connections hang in SYN_SENT: the listener's queue is cut
to one place and that place is taken, so that the kernel drops further SYNs, as a lost host would (Linux; elsewhere they
are accepted by the kernel and hear nothing). A Unix socket's connections are left in the queue.

An instance that is not running refuses connections. So does its route: where the target refuses, the listener is
closed, and opened again as soon as the target listens.

It runs by ``__main__``, imports the standard library alone, and has no thread. Requests come as lines of JSON over a
stream socket, each is answered by one line, in order. When that socket ends, the process ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import time
from typing import Any

from aurora_router_cluster.faults.links import CHUNK, Link, Loop, Place, make_socket

PROBE = 0.01  # seconds between two looks whether a target listens again
LOOKS = 5  # in a row, when a connection was lost
LONGEST_PROBE = 0.02  # seconds; a live server answers, or refuses, in microseconds; a frozen one may do neither
BACKLOG = 1024
FILLERS = 3
IN_PROGRESS = {errno.EINPROGRESS, errno.EAGAIN}


class Route:
    """One listening address and where it leads.

    Args:
        loop: of the process.
        listen: where clients come; port 0: any free one.
        target: where they are led to.

    Attributes:
        held: nothing passes.
        delay: seconds that each piece is kept back.
        rate: bytes per second and connection, in each direction; None: unlimited.
        companion: another route to the same server, which is looked at when this one loses a connection.

    Raises:
        OSError: the address is taken.
    """

    def __init__(self, loop: Loop, listen: Place, target: Place) -> None:
        self.loop = loop
        self.listen = listen
        self.target = target
        self.links: set[Link] = set()
        self.held = False
        self.delay = 0.0
        self.rate: float | None = None
        self.companion: Route | None = None
        self._fillers: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._closed = False
        self._probing = False
        self._looking = False
        self._looks = 0
        self._open()

    @property
    def shaped(self) -> bool:
        """Whether it is delayed or narrow."""
        return bool(self.delay or self.rate)

    @property
    def _local(self) -> bool:
        return self.listen[0].startswith("/")

    def _open(self) -> None:
        listener, address = make_socket(self.listen)
        try:
            if self._local:
                _unlink(self.listen[0])
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            if self._local:
                os.chmod(self.listen[0], 0o777)  # noqa: PTH101, S103 - its directory is closed to all but the account
            else:
                self.listen = listener.getsockname()
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._listener = listener
        if self.held:
            self._block()
        else:
            self.loop.watch(listener, selectors.EVENT_READ, self._accept)

    def _close_listener(self) -> None:
        if self._listener is not None:
            self.loop.watch(self._listener, 0, self._accept)
            self._listener.close()
            self._listener = None
        self._unfill()

    def _accept(self, _: int) -> None:
        while self._listener is not None:
            try:
                client, _ = self._listener.accept()
            except OSError:  # usually no client is left in the queue
                return
            client.settimeout(0)
            self._lead_on(client)

    def _lead_on(self, client: socket.socket) -> None:
        server, address = make_socket(self.target)
        link = Link(self, client, server)
        self.links.add(link)
        failure = server.connect_ex(address)
        if failure and failure not in IN_PROGRESS:
            self.check_target()
            link.close(reset=True)
            return
        link.connected = not failure
        link.watch()

    def check_target(self) -> None:
        """Close the listener where the target refuses, and open it again as soon as it does not."""
        if self.companion is not None:
            self.companion.check_target()
        self._looks = 0 if self._local else LOOKS
        if self._looks and not self._looking:
            self._look()

    def _look(self) -> None:
        """Look at the target: a few times, because the processes of a killed server end one after the other."""
        self._looking = False
        if self._probing or self._closed or self.held:
            return
        if not self._target_listens():
            self._close_listener()
            self._probing = True
            self.loop.at(time.monotonic() + PROBE, self._probe)
            return
        self._looks -= 1
        if self._looks > 0:
            self._looking = True
            self.loop.at(time.monotonic() + PROBE, self._look)

    def _target_listens(self) -> bool:
        probe, address = make_socket(self.target)
        with probe:
            probe.settimeout(LONGEST_PROBE)
            return probe.connect_ex(address) not in {errno.ECONNREFUSED, errno.ENOENT}

    def _probe(self) -> None:
        if self._closed or self._listener is not None:
            self._probing = False
            return
        if self._target_listens():
            with contextlib.suppress(OSError):  # another process has taken the address meanwhile: try again
                self._open()
                self._probing = False
                return
        self.loop.at(time.monotonic() + PROBE, self._probe)

    def shape(self, *, held: bool, delay: float, rate: float | None) -> None:
        """Hold, delay or narrow it, or end that."""
        self.delay, self.rate = delay, rate
        if held and not self.held:
            self.held = True
            if self._listener is None:
                self._open()
            else:
                self._block()
        elif self.held and not held:
            self.held = False
            self._unblock()
        for link in list(self.links):
            link.watch()
            for pipe in (link.up, link.down):
                if not link.closed and pipe.queue:
                    link.run_guarded(pipe.write)

    def _block(self) -> None:
        """Let no connection be completed any more; see the module."""
        assert self._listener is not None
        self.loop.watch(self._listener, 0, self._accept)
        if self._local:
            return
        self._listener.listen(0)
        for _ in range(FILLERS):
            filler, address = make_socket(self.listen)
            filler.connect_ex(address)
            self._fillers.append(filler)

    def _unblock(self) -> None:
        self.check_target()
        self._unfill()
        if self._listener is not None:
            self._listener.listen(BACKLOG)
            self.loop.watch(self._listener, selectors.EVENT_READ, self._accept)

    def _unfill(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()

    def close(self) -> None:
        """End it with all of its connections."""
        self._closed = True
        self._close_listener()
        for link in list(self.links):
            link.close(reset=True)
        if self._local:
            _unlink(self.listen[0])


def _unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)  # noqa: PTH108 - pathlib would be a fifth of this process's start


class Relay:
    """All routes by name, and the requests about them: the public methods below `answer`."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._routes: dict[str, Route] = {}

    def answer(self, line: bytes) -> bytes:
        """The answer to one request, as a line."""
        request = json.loads(line)
        try:
            result = getattr(self, request.pop("do"))(**request)
        except (OSError, KeyError) as error:
            return json.dumps({"error": f"{type(error).__name__}: {error}"}).encode() + b"\n"
        return json.dumps({"result": result}).encode() + b"\n"

    def open(self, name: str, listen: list[Any], target: list[Any], companion: str | None = None) -> list[Any]:
        """Open a route, or lead an open one elsewhere; returns where it listens."""
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = Route(self._loop, (listen[0], listen[1]), (target[0], target[1]))
        route.target = (target[0], target[1])
        route.companion = self._routes.get(companion or "")
        return list(route.listen)

    def close(self, name: str) -> None:
        """Close a route; nothing if there is none."""
        route = self._routes.pop(name, None)
        if route is not None:
            route.close()

    def shape(self, name: str, *, held: bool = False, delay: float = 0.0, rate: float | None = None) -> None:
        """See `Route.shape`."""
        self._routes[name].shape(held=held, delay=delay, rate=rate)

    def count(self) -> dict[str, int]:
        """Connections per route."""
        return {name: len(route.links) for name, route in self._routes.items()}


def serve(requests: socket.socket) -> None:
    """Relay until `requests` ends."""
    loop = Loop()
    relay = Relay(loop)
    pending = bytearray()

    def ready(_: int) -> None:
        try:
            data = requests.recv(CHUNK)
        except OSError:
            data = b""
        pending.extend(data)
        while b"\n" in pending:
            line = pending[: pending.index(b"\n") + 1]
            del pending[: len(line)]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                requests.sendall(relay.answer(bytes(line)))
        loop.running = bool(data)

    loop.watch(requests, selectors.EVENT_READ, ready)
    loop.run()
