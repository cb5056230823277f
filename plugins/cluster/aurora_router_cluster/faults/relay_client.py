"""The supervisor's side of the relay: its process, and the routes of each instance.

An instance started with faults listens where only the relay looks for it. Four routes lead to and from it:

=========  ====================================  ===================================================================
route      from                                  to
=========  ====================================  ===================================================================
clients    the published address                 the address that the server listens on
control    ``wire/.s.PGSQL.<port>`` in its home  its own Unix socket: the writer's log to the storage, copies of it
beat       ``wire/beat/.s.PGSQL.<port>``         the same socket: heartbeat and questions of the control plane
log        a free port of 127.0.0.1              where a reader gets its log (storage, or the writer)
=========  ====================================  ===================================================================

So whatever a fault does to the network, it does to heartbeats and to the log as well, unless only clients are meant.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aurora_router_cluster.errors import EngineError
from aurora_router_cluster.postgres.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router_cluster.postgres.addresses import Address

log = logging.getLogger(__name__)

FOLDER = "wire"
CLIENTS, CONTROL, BEAT, LOG = ROUTES = ("clients", "control", "beat", "log")
NOWHERE = ("127.0.0.1", 1)  # where a reader's log comes from before it was set: no server listens there


class Relayed(Protocol):
    """What the relay needs of an instance: see `control.instance.Instance`."""

    @property
    def name(self) -> str:
        """Its identifier."""
        ...

    @property
    def zone(self) -> str:
        """Its availability zone."""
        ...

    @property
    def engine(self) -> object:
        """Its PostgreSQL."""
        ...

    @property
    def address(self) -> Address:
        """Where clients reach it."""
        ...


@dataclass(frozen=True, slots=True)
class Shape:
    """What is done to a route: see `relay.Route`; delay in seconds, rate in bytes per second."""

    held: bool = False
    delay: float = 0.0
    rate: float | None = None


class RelayClient:
    """The relay of one cluster.

    Args:
        shape: which shape a route (of `ROUTES`) of an instance has now.
    """

    def __init__(self, shape: Callable[[Relayed, str], Shape]) -> None:
        self._shape = shape
        self._process: subprocess.Popen[bytes] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._listening: asyncio.Task[None] | None = None
        self._routes: dict[str, tuple[list[Any], list[Any]]] = {}
        self._instances: dict[str, Relayed] = {}

    async def start(self) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-I", "-S", str(Path(__file__).parent / "__main__.py")]
            self._process = subprocess.Popen(command, stdin=theirs.fileno(), cwd="/", start_new_session=True)  # noqa: ASYNC220 - takes a millisecond, and is waited for only once it was killed
        self._streams = await asyncio.open_connection(sock=ours)
        self._listening = asyncio.get_running_loop().create_task(self._listen(self._streams[0]))

    async def close(self) -> None:
        """End the process; all routes end with it."""
        if self._listening is not None:
            self._listening.cancel()
            await asyncio.gather(self._listening, return_exceptions=True)
        self._end()

    def _end(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_exception(EngineError("the relay ended"))
        self._waiting.clear()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Hand out the answers; start the relay again should it ever end by itself."""
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                waiter = self._waiting.popleft()
                if not waiter.done():
                    waiter.set_result(json.loads(line))
        log.error("the relay ended and is started again: all connections are cut")
        self._end()
        await self.start()
        for name, (listen, target) in self._routes.items():
            self._post("open", name=name, listen=listen, target=target, companion=_companion(name))
        for instance in self._instances.values():
            await self.refresh(instance)

    def _send(self, do: str, **arguments: Any) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._streams is None:
            raise EngineError("the relay does not run")
        self._waiting.append(waiter)
        self._streams[1].write(json.dumps({"do": do, **arguments}).encode() + b"\n")
        return waiter

    def _post(self, do: str, **arguments: Any) -> None:
        """Send a request without waiting for its answer."""
        self._send(do, **arguments).add_done_callback(_read)

    async def _ask(self, do: str, **arguments: Any) -> Any:
        answer = await self._send(do, **arguments)
        if "error" in answer:
            raise EngineError(f"the relay could not {do} {arguments.get('name', '')}: {answer['error']}")
        return answer["result"]

    async def open(self, instance: Relayed) -> None:
        """Open the routes of an instance whose home exists; nothing where that was done before.

        Raises:
            EngineError: its address is taken.
        """
        if instance.name in self._instances:
            return
        engine = instance.engine
        assert isinstance(engine, Engine), "relays stand in front of instances of this machine"
        folder = engine.home / FOLDER
        for each in (folder, folder / BEAT):
            each.mkdir(mode=0o700, exist_ok=True)
            engine.account.own(each)
        own = f".s.PGSQL.{engine.port}"
        published = [instance.address.host, instance.address.port]
        await self._open(instance, CLIENTS, published, [engine.host, engine.port])
        await self._open(instance, CONTROL, [str(folder / own), 0], [str(engine.home / own), 0])
        await self._open(instance, BEAT, [str(folder / BEAT / own), 0], [str(engine.home / own), 0])
        await self._open(instance, LOG, ["127.0.0.1", 0], list(NOWHERE))
        self._instances[instance.name] = instance
        await self.refresh(instance)

    async def _open(self, instance: Relayed, route: str, listen: list[Any], target: list[Any]) -> None:
        name = _route(instance, route)
        where = await self._ask("open", name=name, listen=listen, target=target, companion=_companion(name))
        self._routes[name] = (where, target)

    def close_routes(self, instance: Relayed) -> None:
        """Close the routes of an instance."""
        if self._instances.pop(instance.name, None) is not None:
            for route in ROUTES:
                del self._routes[_route(instance, route)]
                with contextlib.suppress(EngineError):  # the process is gone, and the routes with it
                    self._post("close", name=_route(instance, route))

    async def refresh(self, instance: Relayed) -> None:
        """Let the routes of an instance have the shapes that they should."""
        if instance.name in self._instances:
            for route in ROUTES:
                shape = asdict(self._shape(instance, route))
                await self._ask("shape", name=_route(instance, route), **shape)

    def through(self, instance: Relayed, settings: dict[str, str]) -> dict[str, str]:
        """The settings of an instance with its log led through the relay; its routes must be open.

        The conninfo is one of our volumes': plain words ``key=value``, no quotes.
        """
        conninfo = settings.get("primary_conninfo", "")
        name = _route(instance, LOG)
        if not conninfo or name not in self._routes:
            return settings
        keys = {key: value for key, _, value in (word.partition("=") for word in conninfo.split())}
        host, port = keys["host"], keys["port"]
        target = [f"{host}/.s.PGSQL.{port}", 0] if host.startswith("/") else [host, int(port)]
        listen, before = self._routes[name]
        if target != before:
            self._routes[name] = (listen, target)
            self._post("open", name=name, listen=listen, target=target)
        keys.update(host=str(listen[0]), port=str(listen[1]))
        return {**settings, "primary_conninfo": " ".join(f"{key}={value}" for key, value in keys.items())}

    async def count(self) -> dict[str, int]:
        """Connections per route, ``<instance>/<route>``."""
        answer: dict[str, int] = await self._ask("count")
        return answer


def _companion(name: str) -> str | None:
    """The route of the heartbeat whose end shows at once that a server ended: then no client may connect any more."""
    instance, _, route = name.rpartition("/")
    return f"{instance}/{CLIENTS}" if route == BEAT else None


def _read(answer: asyncio.Future[Any]) -> None:
    if not answer.cancelled() and (error := answer.exception()) is not None:
        log.warning("%s", error)


def _route(instance: Relayed, route: str) -> str:
    return f"{instance.name}/{route}"
