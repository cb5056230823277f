"""Syncing many files at once without threads: the kernel does it, an eventfd wakes the event loop.

A thread per file costs two hand-overs of the interpreter's lock per sync, and six of them that wake each other cost
more than the disk. Linux's asynchronous I/O has a request for `fdatasync` (``IOCB_CMD_FDSYNC``, Linux 4.18): any number
of them go to the kernel in one call, its workers wait for the disks, side by side. The C library has no wrapper for
these system calls, so they are made by number (``asm-generic/unistd.h``; x86-64 has numbers of its own).

Where that is not to be had (another system or processor, a sandbox that forbids the calls, too many such queues on the
machine), `SyncQueue.acquire` returns None and the caller syncs in a thread.

Invariant: `done` is called exactly once per sync, on the loop, with 0 only if the kernel said that the file's data are
on the disk; after `release` by the last user it is called no more.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import struct
import sys
import weakref
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_CALLS: Final = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2), "riscv64": (0, 1, 4, 2)}
"""Machine -> numbers of io_setup, io_destroy, io_getevents, io_submit."""
_DEPTH: Final = 64
"""Syncs that one queue can have under way; the machine's limit (``fs.aio-max-nr``) is 65,536 for all."""
_FDSYNC: Final = 3
_SIGNAL: Final = 1
"""Flag: completion adds to the eventfd."""
_REQUEST: Final = struct.Struct("=QIIHhIQQqQII")  # struct iocb of linux/aio_abi.h
_EVENT: Final = struct.Struct("=QQqq")  # struct io_event
_AT_ONCE: Final = struct.pack("=qq", 0, 0)

_queues: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, SyncQueue] = weakref.WeakKeyDictionary()


class SyncQueue:
    """The syncs of one event loop; get it with `acquire`, give it back with `release`.

    Raises:
        OSError: the kernel has, or gives, no such queue.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._users = 0
        self._soon: list[Callable[[], None]] = []
        self._wanted: list[tuple[int, Callable[[int], None]]] = []
        self._under_way: dict[int, Callable[[int], None]] = {}
        self._made = 0
        self._turning = False  # what is asked for now will be submitted
        self._system = _System()
        self._signal = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            loop.add_reader(self._signal, self._on_completion)
        except BaseException:
            self._close()
            raise

    @classmethod
    def acquire(cls) -> SyncQueue | None:
        """The running loop's queue, made if need be; None where there is no such thing."""
        loop = asyncio.get_running_loop()
        queue = _queues.get(loop)
        if queue is None:
            try:
                queue = _queues[loop] = cls(loop)
            except (OSError, NotImplementedError):
                return None
        queue._users += 1
        return queue

    def release(self) -> None:
        """A user needs it no more; after the last one it is closed."""
        self._users -= 1
        if self._users == 0:
            if _queues.get(self._loop) is self:
                del _queues[self._loop]
            self._loop.remove_reader(self._signal)
            self._close()

    def _close(self) -> None:
        self._system.close()  # waits for what is under way
        os.close(self._signal)

    def call_soon(self, call: Callable[[], None]) -> None:
        """Make a call at the end of the loop's turn, together with all others; syncs that they ask for go as one."""
        self._soon.append(call)
        if len(self._soon) == 1:
            self._loop.call_soon(self._turn)

    def sync(self, descriptor: int, done: Callable[[int], None]) -> None:
        """Sync a file's data.

        Args:
            descriptor: of the file.
            done: called with 0, or with the negated number of the error.
        """
        self._wanted.append((descriptor, done))
        if not self._turning:
            self._turning = True
            self._loop.call_soon(self._submit)

    def _turn(self) -> None:
        calls, self._soon = self._soon, []
        self._turning = True
        for call in calls:
            try:
                call()
            except Exception as error:  # noqa: BLE001  as the loop itself does it
                self._report(call, error)
        self._submit()

    def _on_completion(self) -> None:
        try:
            os.eventfd_read(self._signal)
        except BlockingIOError:
            return
        self._turning = True
        for number, status in self._system.take_completions():
            self._end(self._under_way.pop(number), status)
        self._submit()

    def _end(self, done: Callable[[int], None], status: int) -> None:
        try:
            done(status)
        except Exception as error:  # noqa: BLE001  as the loop itself does it
            self._report(done, error)

    def _report(self, call: Callable[..., None], error: Exception) -> None:
        """Report a call that failed to the loop; the others are made all the same."""
        self._loop.call_exception_handler({"message": f"{call} failed", "exception": error})

    def _submit(self) -> None:
        while self._wanted and self._users:
            wanted, self._wanted = self._wanted, []
            first = self._made
            self._made += len(wanted)
            room = max(0, _DEPTH - len(self._under_way))
            taken = self._system.submit(first, [descriptor for descriptor, _ in wanted[:room]], self._signal)
            for i, (descriptor, done) in enumerate(wanted):
                if i < taken:
                    self._under_way[first + i] = done
                else:
                    self._end(done, _sync(descriptor))
        self._turning = False


def _sync(descriptor: int) -> int:
    """Sync one file here and now: the kernel did not take it."""
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        return -(error.errno or errno.EIO)
    return 0


class _System:
    """The four system calls.

    Raises:
        OSError: the kernel refused.
        NotImplementedError: this system is not known to have them.
    """

    def __init__(self) -> None:
        calls = _CALLS.get(platform.machine()) if sys.platform == "linux" else None
        if calls is None or not hasattr(os, "eventfd") or sys.maxsize < 1 << 32:
            raise NotImplementedError("no asynchronous syncs on this system")
        setup, self._destroy, self._getevents, self._io_submit = calls
        self._call = ctypes.CDLL(None, use_errno=True).syscall
        self._call.restype = ctypes.c_long
        self._call.argtypes = [ctypes.c_long] * 6
        self._requests = ctypes.create_string_buffer(_REQUEST.size * _DEPTH)
        self._events = ctypes.create_string_buffer(_EVENT.size * _DEPTH)
        self._at_once = ctypes.create_string_buffer(_AT_ONCE, len(_AT_ONCE))
        self._view = memoryview(self._events).cast("B")
        start = ctypes.addressof(self._requests)
        self._addresses = (ctypes.c_void_p * _DEPTH)(*(start + _REQUEST.size * i for i in range(_DEPTH)))
        self._arguments = [ctypes.addressof(each) for each in (self._addresses, self._events, self._at_once)]
        context = ctypes.c_ulong(0)
        if self._call(setup, _DEPTH, ctypes.addressof(context), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "io_setup")
        self._context = context.value

    def submit(self, first: int, descriptors: list[int], signal: int) -> int:
        """Hand syncs, numbered from `first` on, to the kernel; returns how many it took, from the first one on."""
        if not descriptors:
            return 0
        pack, requests, at = _REQUEST.pack_into, self._requests, 0
        for number, descriptor in enumerate(descriptors, first):
            pack(requests, at, number, 0, 0, _FDSYNC, 0, descriptor, 0, 0, 0, 0, _SIGNAL, signal)
            at += _REQUEST.size
        addresses = self._arguments[0]
        return max(0, int(self._call(self._io_submit, self._context, len(descriptors), addresses, 0, 0)))

    def take_completions(self) -> list[tuple[int, int]]:
        """The number and the status of every sync that ended."""
        _, events, at_once = self._arguments
        count = int(self._call(self._getevents, self._context, 0, _DEPTH, events, at_once))
        found = _EVENT.iter_unpack(self._view[: max(0, count) * _EVENT.size])
        return [(number, status) for number, _, status, _ in found]

    def close(self) -> None:
        """Wait for what is under way, and give the queue back."""
        self._call(self._destroy, self._context, 0, 0, 0, 0)
