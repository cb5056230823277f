"""Whether a path leads straight to one server: only there the silence of a probe says something of other connections.

Theory. A probe is a new connection. What it meets is what the other connections have met only where both end at the
same server and nothing lies between that may treat them differently. A pooler whose server connections are all busy
lets a probe wait while every statement goes on; a proxy queues new connections beyond its limit; a load balancer leads
the probe to another server; one name of a pooler may stand for several clusters. There an unanswered probe condemns
nothing: no connection is cut, and a hang ends when the operating system gives up (``tcp_user_timeout``,
``keepalives_idle`` of libpq), or when the thing in between does.

A path, an address and a port, is taken for direct in two cases:

1. the host is one of Aurora's own names, and the user named neither an address nor other hosts for the instances: such
   names lead to instances and nothing else (`Route.direct`);
2. the server itself sees the connection as this process does: ``inet_server_addr()`` and ``inet_server_port()`` are
   what was dialled, and ``inet_client_port()`` is the port that the connection leaves from. A proxy, a pooler and a
   tunnel end the connection and begin another one, from another port; a packet filter that leads one address to several
   servers changes the server's address. The process id of the backend would not do: a proxy leaves it as it is. The
   client's address is not compared: a gateway on the client's side may change it, and that does no harm.

The second is asked in the background, once: on the session that the monitor has on that path, and where it has none on
one that is closed again. Local sockets show no ends, so they are no direct paths: a server that hangs on this
machine is no failover.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

End = tuple[str, int]
"""A numeric address and a port: one end of a connection; a path is named by the far one."""

DIRECT_SECONDS = 600.0
"""How long an answer about a path holds. Addresses are used again, but hardly ever while connections to them live."""
UNANSWERED_SECONDS, LONGEST_UNANSWERED_SECONDS = 0.25, 30.0
"""When a path is asked about again that gave no answer, doubled each time: one dial may fail by accident, and until
there is an answer no hang is looked for there. The refresh of a topology is as frequent as the longest pause."""
MAX_PATHS = 256
"""How many paths are remembered: more than a cluster has, and a bound where addresses come and go."""


class Known(NamedTuple):
    """What is known of a path.

    Attributes:
        direct: whether it is direct.
        until: when it is to be asked about again, by the runtime's clock.
        unanswered: how often in a row there was no answer.
    """

    direct: bool
    until: float
    unanswered: int = 0


def record_no_answer(before: Known | None, now: float) -> Known:
    """What is known of a path after a question that was not answered: what was known before."""
    times = 1 if before is None else before.unanswered + 1
    pause = min(UNANSWERED_SECONDS * 2.0 ** min(times - 1, 16), LONGEST_UNANSWERED_SECONDS)
    return Known(before is not None and before.direct, now + pause, times)


def is_direct(seen: tuple[str | None, ...], local: End | None, peer: End | None) -> bool:
    """Whether a server sees a connection as this process does.

    Args:
        seen: the server's address and port, and the client's port, as the server sees them, as text; None: it is a
            local socket.
        local: this process's end of the connection; None: it is a local socket.
        peer: the other end, as seen here.
    """
    if local is None or peer is None or None in seen:
        return False
    address, port, client_port = seen
    return (_plain(address or ""), port, client_port) == (_plain(peer[0]), str(peer[1]), str(local[1]))


def _plain(address: str) -> str:
    """An address without a scope, and without the mark of IPv4 in IPv6."""
    return address.partition("%")[0].lower().removeprefix("::ffff:")


def remember(paths: Mapping[End, Known], path: End, known: Known) -> dict[End, Known]:
    """The paths with what was learned of one; the oldest is forgotten where there are too many."""
    following = {**{each: what for each, what in paths.items() if each != path}, path: known}
    while len(following) > MAX_PATHS:
        del following[next(iter(following))]
    return following
