"""Host names to addresses: never less able than libpq, and with the CNAMEs and TTLs that libpq does not show.

Order: a numeric address is itself. With ``aurora_dns`` that name server alone is asked. Otherwise the hosts file, then
the name servers of resolv.conf by dnspython (search list, ndots, TTL honoured, CNAMEs followed), then the system's own
resolver (NSS: LDAP, mDNS …), in a short-lived daemon thread, so that neither an event loop nor the exit waits for it;
where no thread is to be had, and in a process that gevent or eventlet has patched, in the caller's.

What was found is remembered for its TTL, a failure for one second. IPv4 addresses come before IPv6 ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aurora_router import native
from aurora_router.flow.runtime import DialFailed, Resolution
from aurora_router.forks import IMPORTING
from aurora_router.frozen import frozen
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.policy.verdict import Fault, FaultKind
from aurora_router.runtime.hostsfile import HostsFile
from aurora_router.runtime.timeouts import wait_at_most

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dns.asyncresolver import Resolver as AsyncResolver
    from dns.resolver import Answer, Resolver

    from aurora_router.policy.options import Options

NEGATIVE_SECONDS = 1.0
"""How long a failure is remembered."""
SYSTEM_TTL = 5.0
"""How long an answer of the system's resolver, which shows no TTL, is remembered; Aurora's own TTL."""
SYSTEM_SECONDS = 5.0
"""How long the system's resolver may take."""
MAX_REMEMBERED = 1024
"""How many names are remembered: those of many clusters. A name that was forgotten costs a query."""
MAX_SERVERS = 64
"""How many ways of resolving are remembered, with what each has resolved."""
_KINDS = ("A", "AAAA")


@frozen
class _Remembered:
    """An answer, or why there is none now (`text`) with the last answer that there was."""

    until: float
    found: Resolution | None
    text: str = ""


class Names:
    """One way of resolving names, with what it remembers. Safe for threads.

    Args:
        server: address and port of the only name server to ask; None: the system's configuration.
        lifetime: seconds within which a name server has to answer.
    """

    def __init__(self, server: tuple[str, int] | None, lifetime: float) -> None:
        self._server = server
        self._lifetime = lifetime
        self._memory: dict[str, _Remembered] = {}
        self._hosts = HostsFile() if server is None else None
        self._resolvers: dict[type[Any], tuple[float, Any]] = {}
        self._v6: dict[str, bool] = {}

    def resolve(self, host: str, *, fresh: bool = False) -> Resolution:
        """Resolve a name, blocking.

        Raises:
            DialFailed: no address was found in time.
        """
        known = self._recall(host, fresh=fresh)
        if known is not None:
            return known
        try:
            found, ttl = self._from_dns(host)
        except _NotFound as failed:
            if self._server is not None:
                raise self._unknown(host, failed.text) from None
            found, ttl = self._from_system(host, failed.text), SYSTEM_TTL
        return self._remember(host, found, ttl)

    async def resolve_async(self, host: str, *, fresh: bool = False) -> Resolution:
        """Resolve a name on the running event loop; otherwise like `resolve`."""
        known = self._recall(host, fresh=fresh)
        if known is not None:
            return known
        try:
            found, ttl = await self._from_dns_async(host)
        except _NotFound as failed:
            if self._server is not None:
                raise self._unknown(host, failed.text) from None
            found, ttl = await self._from_system_async(host, failed.text), SYSTEM_TTL
        return self._remember(host, found, ttl)

    def prefers_v6(self, host: str | None) -> bool:
        """Whether a host is best dialled by IPv6 first: it was what led to a server the last time."""
        return self._v6.get(host or "", False)

    def record_address(self, host: str | None, address: str) -> None:
        """Remember which family led to a server, of a host with several addresses."""
        if self.prefers_v6(host) is not (":" in address):
            self._v6[host or ""] = ":" in address
            forget_oldest(self._v6, MAX_REMEMBERED)

    def last(self, host: str) -> Resolution | None:
        """The last answer about a name, however old; None: there was none, or it was forgotten."""
        remembered = self._memory.get(host)
        return None if remembered is None else remembered.found

    # ------------------------------------------------------------ what needs no network

    def _recall(self, host: str, *, fresh: bool) -> Resolution | None:
        remembered = self._memory.get(host)
        if remembered is not None and time.monotonic() < remembered.until:
            if remembered.text or remembered.found is None:
                raise _new_failure(remembered.text)
            if not fresh:
                return remembered.found
        endpoint = parse_endpoint(host)
        if endpoint.kind is EndpointKind.IP:
            return Resolution((endpoint.host,), endpoint.host)
        if self._hosts is not None and (addresses := self._hosts.lookup(endpoint.host)):
            return Resolution(addresses, endpoint.host)
        return None

    def _remember(self, host: str, found: Resolution, ttl: float) -> Resolution:
        self._note(host, _Remembered(time.monotonic() + ttl, found))
        return found

    def _note(self, host: str, what: _Remembered) -> None:
        """Remember an answer: what is over goes first where there are too many, then the oldest."""
        self._memory.pop(host, None)
        self._memory[host] = what
        if len(self._memory) > MAX_REMEMBERED:
            now = time.monotonic()
            for name, each in list(self._memory.items()):
                if each.until <= now:
                    self._memory.pop(name, None)
            forget_oldest(self._memory, MAX_REMEMBERED)

    def _unknown(self, host: str, text: str) -> DialFailed:
        asked = "the system's name servers" if self._server is None else f"{self._server[0]}:{self._server[1]}"
        whole = f"could not resolve host {host!r}: {text} (asked: {asked})"
        self._note(host, _Remembered(time.monotonic() + NEGATIVE_SECONDS, self.last(host), whole))
        return _new_failure(whole)

    # ------------------------------------------------------------ dnspython

    def _from_dns(self, host: str) -> tuple[Resolution, float]:
        resolver_class = _dnspython().resolver.Resolver
        gathered = _Answers()
        for kind in gathered.kinds_to_ask():
            with gathered:
                resolver: Resolver = self._resolver(resolver_class)
                asked = resolver.resolve(host, kind, search=True, lifetime=self._lifetime, raise_on_no_answer=False)
                gathered.add(asked)
        return gathered.read(host)

    async def _from_dns_async(self, host: str) -> tuple[Resolution, float]:
        package = _dnspython()
        gathered, backend = _Answers(), package.asyncbackend.get_backend("asyncio")  # else each query would import
        for kind in gathered.kinds_to_ask():
            with gathered:
                resolver: AsyncResolver = self._resolver(package.asyncresolver.Resolver)
                asked = await resolver.resolve(
                    host, kind, search=True, lifetime=self._lifetime, raise_on_no_answer=False, backend=backend
                )
                gathered.add(asked)
        return gathered.read(host)

    def _resolver(self, class_: Callable[..., Any]) -> Any:
        """A resolver of `class_`, made again when resolv.conf was changed."""
        changed = 0.0 if self._server is not None else _modified_at("/etc/resolv.conf")
        kept = self._resolvers.get(class_)  # type: ignore[call-overload]  # a class is a callable, not the reverse
        if kept is not None and kept[0] == changed:
            return kept[1]
        if self._server is None:
            resolver = class_()
        else:
            resolver = class_(configure=False)
            resolver.nameservers = [self._server[0]]
            resolver.port = self._server[1]
        self._resolvers[class_] = (changed, resolver)  # type: ignore[index]  # as above
        return resolver

    # ------------------------------------------------------------ the system's resolver

    def _from_system(self, host: str, earlier: str) -> Resolution:
        if native.is_patched():  # its own getaddrinfo waits as greenlets do
            return self._system_answer(host, _system_addresses(socket.getaddrinfo, host), earlier)
        answers: queue.SimpleQueue[tuple[str, ...] | Exception] = queue.SimpleQueue()
        _look_up(host, answers.put)
        try:
            return self._system_answer(host, answers.get(timeout=SYSTEM_SECONDS), earlier)
        except queue.Empty:
            raise self._unknown(host, f"{earlier}; the system's resolver did not answer") from None

    async def _from_system_async(self, host: str, earlier: str) -> Resolution:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[str, ...] | Exception] = loop.create_future()

        def settle(answer: tuple[str, ...] | Exception) -> None:
            if not future.done():
                future.set_result(answer)

        def report(answer: tuple[str, ...] | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
                loop.call_soon_threadsafe(settle, answer)

        _look_up(host, report)
        try:
            return self._system_answer(host, await wait_at_most(SYSTEM_SECONDS, future), earlier)
        except asyncio.TimeoutError:
            raise self._unknown(host, f"{earlier}; the system's resolver did not answer") from None

    def _system_answer(self, host: str, answer: tuple[str, ...] | Exception, earlier: str) -> Resolution:
        if isinstance(answer, Exception):
            text = getattr(answer, "strerror", None) or answer
            raise self._unknown(host, f"{earlier}; the system's resolver says: {text}")
        return Resolution(answer, host)


class _NotFound(Exception):
    """DNS has no address; another way may."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class _Answers:
    """What dnspython answered for one name: its addresses of each kind, until something goes wrong."""

    def __init__(self) -> None:
        self._answers: list[Answer] = []
        self._problem = ""

    def kinds_to_ask(self) -> Iterator[str]:
        """The kinds of addresses to ask for."""
        for kind in _KINDS:
            if not self._problem:
                yield kind

    def __enter__(self) -> None:
        """Begin one question."""

    def __exit__(self, kind: object, error: BaseException | None, where: object) -> bool:
        """End it: what went wrong is noted, and ends the questions.

        Not a generator: on Python 3.13 one that swallows an exception keeps its frames, and with them all that called
        it, connections included, until garbage is collected.
        """
        if not isinstance(error, Exception):
            return False
        self._problem = str(error) or type(error).__name__
        return True

    def add(self, answer: Answer) -> None:
        """Take an answer; that a name has no address of a kind is no trouble."""
        if answer.rrset is not None:
            self._answers.append(answer)

    def read(self, host: str) -> tuple[Resolution, float]:
        """All addresses, and for how long they hold; raises `_NotFound` when there is none."""
        addresses = tuple(record.address for answer in self._answers for record in answer)
        if not addresses:
            raise _NotFound(self._problem or f"{host} has no address records")
        canonical = self._answers[0].canonical_name.to_text(omit_final_dot=True).lower()
        ttl = min(answer.chaining_result.minimum_ttl for answer in self._answers)
        return Resolution(addresses, canonical), float(ttl)


def _new_failure(text: str) -> DialFailed:
    return DialFailed(Fault(FaultKind.NAME, None, text), ConnectionError(text))


def _modified_at(path: str) -> float:
    try:
        return Path(path).stat().st_mtime
    except OSError:
        return 0.0


def _dnspython() -> Any:
    """Import dnspython, with the first name to be resolved, and what it and `socket` would import with an answer."""
    with IMPORTING:
        import encodings.idna  # noqa: F401, PLC0415

        import dns._asyncio_backend  # noqa: PLC0415
        import dns.asyncbackend  # noqa: PLC0415
        import dns.asyncresolver  # noqa: PLC0415
        import dns.rdtypes.ANY.CNAME  # noqa: PLC0415
        import dns.rdtypes.ANY.OPT  # noqa: PLC0415
        import dns.rdtypes.ANY.SOA  # noqa: PLC0415
        import dns.rdtypes.IN.A  # noqa: PLC0415
        import dns.rdtypes.IN.AAAA  # noqa: PLC0415
        import dns.resolver  # noqa: PLC0415
    return dns


def _look_up(host: str, report: Callable[[tuple[str, ...] | Exception], object]) -> None:
    """Ask the system's resolver in a thread of its own, for which an exit does not wait."""
    ask = native.original("socket", "getaddrinfo")
    native.run_in_background(lambda: report(_system_addresses(ask, host)), "aurora-router-resolve")


def _system_addresses(ask: Callable[..., Any], host: str) -> tuple[str, ...] | Exception:
    """The addresses that the system's resolver finds, or what it raises: an error, or that IDNA refuses the name."""
    try:
        found = ask(host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is why the name has no address
        return error
    addresses = dict.fromkeys(str(entry[4][0]) for entry in found)
    return tuple(sorted(addresses, key=lambda address: ":" in address))


_shared: dict[tuple[tuple[str, int] | None, float], Names] = {}


def names_of(options: Options) -> Names:
    """How to resolve host names with some options."""
    server = None if options.dns is None else (options.dns.host, options.dns.port or 53)
    return names_for(server, options.dns_timeout)


def names_for(server: tuple[str, int] | None, lifetime: float) -> Names:
    """The names of a process, by name server: what one connect has resolved, another need not."""
    key = (server, lifetime)
    found = _shared.get(key)
    if found is None:
        found = _shared.setdefault(key, Names(server, lifetime))
        forget_oldest(_shared, MAX_SERVERS)
    return found


def forget() -> None:
    """Forget everything (after a fork, and in tests)."""
    _shared.clear()
