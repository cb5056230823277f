"""Doing what a user's code may take part in where it may: not in the monitor's thread, if the process is patched.

Theory. Log handlers and subscribers to events are users' code. In a process that gevent or eventlet has patched, their
locks, queues and sockets are those of greenlets, and a thread of the system that touches one of these at the wrong
moment stands still forever. So there the monitor's thread leaves such work to a greenlet, which waits for a byte from
a socket (one that is not patched itself). Everywhere else the work is done where it comes up.
"""

from __future__ import annotations

import _socket
import _thread
import os
import select
from collections import deque
from typing import TYPE_CHECKING, Any

from aurora_router import native, observe

if TYPE_CHECKING:
    from collections.abc import Callable


class GreenletDispatcher:
    """One for the monitor's thread of this process."""

    def __init__(self) -> None:
        self._outbox: deque[Callable[[], Any]] = deque()
        self._writing: _socket.socket | None = None
        self._thread: int | None = None

    def open(self) -> None:
        """Start the greenlet, in a process that is patched. Does not let others run: the caller holds a lock."""
        if native.is_patched():
            reading, self._writing = _socket.socketpair()
            _thread.start_new_thread(self._deliver, (reading, os.getpid()))

    def serve(self) -> None:
        """Work for the calling thread from now on, if there is a greenlet."""
        self._thread = None if self._writing is None else _thread.get_native_id()

    def send(self, action: Callable[[], Any]) -> None:
        """Do something now, or have the greenlet do it if the caller is the monitor's thread."""
        if self._thread is None or _thread.get_native_id() != self._thread or self._writing is None:
            action()
            return
        self._outbox.append(action)
        self._writing.send(b"x")

    def close(self) -> None:
        """End the greenlet, after what it has to do still."""
        writing, self._writing, self._thread = self._writing, None, None
        if writing is not None:
            writing.close()

    def _deliver(self, reading: _socket.socket, process: int) -> None:
        """Run in the greenlet: carry out what is in the outbox, until the dispatcher is closed."""
        more = b"x"
        while more:
            select.select([reading.fileno()], [], [])
            if os.getpid() != process:
                break  # a fork copied this greenlet: what it waits for is its parent's
            more = reading.recv(4096)
            while self._outbox:
                try:
                    self._outbox.popleft()()
                except Exception:  # noqa: BLE001 - a bug must not end the publishing of what follows
                    observe.logger.exception("publishing an event failed")
        reading.close()


DISPATCHER = GreenletDispatcher()
"""The dispatcher of this process."""
