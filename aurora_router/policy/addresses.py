"""The addresses of one dial: in which order, and for how long each.

Theory. A dual-stack name has addresses of which some may be unreachable from here, and a packet filter that drops
silently looks like an instance that hangs. So the limit of a dial holds for all addresses of the instance together:
none of them may use it up, the next one has its share. The caller remembers which family led to a server, so that a
silent address costs its share once. Once an address has refused, its host is up and the server most likely is not: the
other addresses must not delay the failover, and have `AFTER_REFUSAL` seconds each.

Invariants (property test): the shares add up to the limit at most; with one address it has the whole limit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.policy.verdict import FaultKind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.policy.verdict import Fault

AFTER_REFUSAL = 1.0
"""How long each further address may take once one has refused, in seconds."""

_REPORTED_FIRST = (
    FaultKind.REJECTED,
    FaultKind.IDENTITY,
    FaultKind.CLIENT,
    FaultKind.PROTOCOL,
    FaultKind.RESET,
    FaultKind.REFUSED,
    FaultKind.UNKNOWN,
    FaultKind.TIMEOUT,
    FaultKind.UNREACHABLE,
    FaultKind.EXHAUSTED,
    FaultKind.CREDENTIALS,
    FaultKind.DENIED,
    FaultKind.NAME,
)
"""What says most about the instance, first."""


def order_by_family(addresses: Sequence[str], *, v6_first: bool) -> list[str]:
    """The addresses by family, otherwise as they were."""
    return sorted(addresses, key=lambda address: (":" in address) is not v6_first)


def share(left: float, following: int, faults: Sequence[Fault]) -> float:
    """Seconds for the next address.

    Args:
        left: of the dial's limit.
        following: how many addresses come after it.
        faults: what was wrong with those before it.
    """
    part = left / (following + 1)
    if any(each.kind is FaultKind.REFUSED for each in faults):
        part = min(part, AFTER_REFUSAL)
    return max(0.0, part)


def decisive(faults: Sequence[Fault]) -> int:
    """Which fault speaks for the whole dial: the one that says most about the instance."""
    return min(range(len(faults)), key=lambda index: _REPORTED_FIRST.index(faults[index].kind))
