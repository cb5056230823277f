"""Shutting a socket down from another thread, without ever touching another one.

A descriptor is a number that the system gives again as soon as it is free, and libpq may close its own at any moment.
So the socket is identified when the connection is made, and only a duplicate that is proven to be that socket is
shut down: ``shutdown`` acts on the socket behind all duplicates, closing the duplicate on nothing else. Before the
duplicate is made the number is checked too, since closing the duplicate of a file would drop the file's locks.
"""

from __future__ import annotations

import _socket
import contextlib
import fcntl
import os
import select
import socket
import stat
import struct
import sys
import termios
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from aurora_router import native

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SocketId(NamedTuple):
    """What distinguishes one socket from all others that live.

    Attributes:
        inode: the socket's number within the kernel.
        local: address of this end; None: it was not read, because on this system the inode is unique.
        peer: address of the other end; None where `local` is.
    """

    inode: int
    local: Any = None
    peer: Any = None


def identify(fd: int) -> SocketId | None:
    """The identity of the socket behind a descriptor; None: it is no connected socket."""
    try:
        inode = os.fstat(fd)
        if not stat.S_ISSOCK(inode.st_mode):
            return None
        with _duplicate(fd) as twin:
            return SocketId(inode.st_ino, twin.getsockname(), twin.getpeername())
    except OSError:
        return None


def identify_connected(fd: int) -> SocketId | None:
    """The identity of a connected socket, by as little as the system needs for it; None: it is no socket.

    Linux gives the number of a socket again when 4 billion others have been given. Other systems do so at once.
    """
    if sys.platform != "linux":
        return identify(fd)
    try:
        seen = os.fstat(fd)
    except OSError:
        return None
    return SocketId(seen.st_ino) if stat.S_ISSOCK(seen.st_mode) else None


def shut_down(fd: int, known: SocketId) -> bool:
    """Shut a socket down, if `fd` is still the one that `known` was; a thread that waits on it wakes up with its end.

    Returns:
        Whether it was that socket, and connected.
    """
    try:
        with _twin(fd, known) as twin:
            if twin is None:
                return False
            twin.shutdown(socket.SHUT_RDWR)
    except OSError:
        return False
    return True


@contextmanager
def _twin(fd: int, known: SocketId) -> Iterator[_socket.socket | None]:
    """A duplicate of the socket that `known` was; None: `fd` is another one by now. Raises OSError."""
    seen = os.fstat(fd)
    if not stat.S_ISSOCK(seen.st_mode) or seen.st_ino != known.inode:
        yield None
        return
    with _duplicate(fd) as twin:
        ends = (None, None) if known.local is None else (twin.getsockname(), twin.getpeername())
        yield twin if SocketId(os.fstat(twin.fileno()).st_ino, *ends) == known else None


_TCP_FAMILIES = frozenset({socket.AF_INET, socket.AF_INET6})

# struct tcp_info of Linux (include/uapi/linux/tcp.h): eight bytes, then unsigned 32-bit numbers in the machine's order.
# These two have been at their places since Linux 2.4; later versions only append.
_RCV_MSS = 20
"""Offset of tcpi_rcv_mss, the size of the segments that come: never 0 where the kernel fills the structure."""
_LAST_DATA_RECV = 52
"""Offset of tcpi_last_data_recv: milliseconds since the last segment with data came. Bare acknowledgements, as the
answers to keepalive probes are, do not count."""
_TCP_INFO_SIZE = 104
"""How much is asked for: the structure as of Linux 2.6; a kernel gives less or more as it has it."""


def since_data(fd: int, known: SocketId) -> float | None:
    """Seconds since the kernel received data on a TCP connection; they need not have been read.

    Returns:
        None: it is another socket by now or none of TCP, or the system does not keep that time (other systems than
        Linux; emulations of Linux that leave the field empty).
    """
    if sys.platform != "linux":
        return None
    try:
        with _twin(fd, known) as twin:
            if twin is None or twin.family not in _TCP_FAMILIES:
                return None
            return _since_data(twin.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE))
    except OSError:
        return None


def _since_data(info: bytes) -> float | None:
    """Read the time out of a tcp_info, which may be shorter than asked for."""
    if len(info) < _LAST_DATA_RECV + 4:
        return None
    (segment,), (milliseconds,) = (
        struct.unpack_from("=I", info, _RCV_MSS),
        struct.unpack_from("=I", info, _LAST_DATA_RECV),
    )
    return milliseconds / 1000.0 if segment else None


def has_unread(fd: int, known: SocketId) -> bool:
    """Whether data, or the end, of a connection arrived that was not read yet; False: it is another socket by now."""
    try:
        with _twin(fd, known) as twin:
            if twin is None:
                return False
            poll = native.original("select", "poll")()
            poll.register(twin, select.POLLIN)
            return bool(poll.poll(0))
    except OSError:
        return False


def has_bytes(fd: int) -> bool:
    """Whether bytes arrived on a socket that were not read yet; its end or an error is no byte, nor is an accept.

    TCP_INFO would not do for a connection that is being made: there the time counts from the accept.
    """
    try:
        return struct.unpack("=i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4))) != (0,)
    except OSError:
        return False


def ends_of(fd: int) -> tuple[tuple[str, int] | None, tuple[str, int] | None]:
    """This end and the other end of a TCP connection, each an address and a port; None: it is no such connection."""
    known = identify(fd)
    if known is None or not isinstance(known.local, tuple):
        return None, None
    return known.local[:2], known.peer[:2]


def sever(fd: int) -> None:
    """Let a descriptor lead to nothing: what is written to it is lost, and the socket stays its other owners'.

    For the child of a fork, where closing a connection would send its farewell on the parent's socket.
    """
    one, other = _socket.socketpair()
    other.close()
    os.dup2(one.fileno(), fd, inheritable=False)
    one.close()


def local_port(fd: int) -> int | None:
    """The port of this end of a TCP connection; None: it is no such connection."""
    known = identify(fd)
    if known is None or not isinstance(known.local, tuple):
        return None
    port: int = known.local[1]
    return port


def _duplicate(fd: int) -> Any:
    """A duplicate, without what gevent and eventlet add to sockets: the monitor's thread has no greenlets.

    Its type and protocol are those of every connection to a server: the system need not be asked for them.
    """
    return contextlib.closing(_socket.socket(type=socket.SOCK_STREAM, proto=0, fileno=os.dup(fd)))


def wait(fd: int, events: int, seconds: float | None) -> bool:
    """Wait until a descriptor is ready for `events` (of ``poll``); False: `seconds` are over. Greenlets go on.

    What is there when the time is over counts.
    """
    if seconds is not None and seconds < 0.0:
        seconds = 0.0
    if not hasattr(select, "poll"):  # eventlet takes it away
        readers, writers = ([fd] if events & each else [] for each in (select.POLLIN, select.POLLOUT))
        return any(select.select(readers, writers, [], seconds))
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


_poll = native.original("select", "poll")
_ENDED = select.POLLHUP | select.POLLERR | select.POLLNVAL | getattr(select, "POLLRDHUP", 0)


def end_of(fd: int) -> Callable[[], bool]:
    """Return a function that says whether the other end has closed a connection, as far as is known here.

    The poll object is made once: a pool asks at every checkout. Not for several threads at once, as a connection's
    checkout is not.
    """
    poll = _poll()
    poll.register(fd, _ENDED)
    ask = poll.poll
    return lambda: bool(ask(0))
