"""A server that has a task for each connection, for framings that are not ours."""

from __future__ import annotations

import abc
import asyncio


class StreamServer(abc.ABC):
    """Runs `converse` for each connection; `accept` is what asyncio's servers call.

    Args:
        most: connections at a time; beyond that the oldest one is closed. None: any number.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._clients: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self._listening: asyncio.AbstractServer | None = None

    @abc.abstractmethod
    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until it ends."""

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection, and close it."""
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = None
        if self._most is not None and len(self._clients) > self._most:
            next(iter(self._clients)).cancel()
        try:
            await self.converse(reader, writer)
        except asyncio.CancelledError:
            pass  # it was closed, and no caller waits for the result
        finally:
            self._clients.pop(task, None)
            writer.close()

    async def close(self) -> None:
        """Stop listening, and end all connections once what is under way has been cancelled."""
        if self._listening is not None:
            self._listening.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)
