"""Shutting a socket down from another thread, without ever touching somebody else's.

A descriptor is a number that the system gives anew as soon as it is free, and libpq may close its own at any moment.
So the socket is identified when the connection is made, and only a duplicate that is proven to be that very socket is
shut down: ``shutdown`` acts on the socket behind all duplicates, closing the duplicate on nothing else. Before the
duplicate is made the number is checked too, since closing the duplicate of a file would drop the file's locks.
"""

from __future__ import annotations

import os
import select
import socket
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable


class SocketId(NamedTuple):
    """What tells one socket from all others that live.

    Attributes:
        inode: the socket's number within the kernel.
        local: address of this end.
        peer: address of the other end.
    """

    inode: int
    local: Any
    peer: Any


def identify(fd: int) -> SocketId | None:
    """The identity of the socket behind a descriptor; None: it is no connected socket."""
    try:
        inode = os.fstat(fd)
        if not stat.S_ISSOCK(inode.st_mode):
            return None
        with socket.socket(fileno=os.dup(fd)) as twin:
            return SocketId(inode.st_ino, twin.getsockname(), twin.getpeername())
    except OSError:
        return None


def shut_down(fd: int, known: SocketId) -> bool:
    """Shut a socket down, if `fd` is still the one that `known` was; who waits on it wakes up with its end.

    Returns:
        Whether it was that socket, and connected.
    """
    try:
        seen = os.fstat(fd)
        if not stat.S_ISSOCK(seen.st_mode) or seen.st_ino != known.inode:
            return False
        with socket.socket(fileno=os.dup(fd)) as twin:
            if SocketId(os.fstat(twin.fileno()).st_ino, twin.getsockname(), twin.getpeername()) != known:
                return False
            twin.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


def local_port(fd: int) -> int | None:
    """The port of this end of a TCP connection; None: it is no such connection."""
    known = identify(fd)
    if known is None or not isinstance(known.local, tuple):
        return None
    port: int = known.local[1]
    return port


_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


def end_of(fd: int) -> Callable[[], bool]:
    """A function that tells whether the other end has closed a connection, as far as is known here; it asks nobody.

    The poll object is made once: a pool asks at every checkout. Not for several threads at once, as a connection's
    checkout is not.
    """
    poll = select.poll()
    poll.register(fd, _ENDED)
    ask = poll.poll
    return lambda: bool(ask(0))
