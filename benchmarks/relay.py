"""What may lie between a client and a server, in threads of this process: a queue, and handshakes that are reset."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""


class Relay:
    """Leads connections to a server.

    Args:
        host: of the server.
        port: of the server.
        slots: how many connections at once; those beyond are accepted and wait. None: any number.
        resets: how many of its connections are reset, from 0.0 to 1.0.
    """

    def __init__(self, host: str, port: int, *, slots: int | None = None, resets: float = 0.0) -> None:
        self._server = host, port
        self._slots = threading.Semaphore(slots) if slots is not None else None
        self._resets = resets
        self._random = random.Random()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host, self.port = self._listener.getsockname()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self._random.random() < self._resets:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
            return
        slot = self._slots or contextlib.nullcontext()
        with slot, client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            back = threading.Thread(target=_pump, args=[server, client], daemon=True)
            back.start()
            _pump(client, server)
            back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
