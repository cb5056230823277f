"""Dialling several addresses of one name, one after the other; and dialling nothing."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.policy.addresses import decisive, order_by_family, share
from aurora_router.policy.verdict import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    Rewrite = Callable[[BaseException, str], BaseException]


def refuse_dial(target: Target, seconds: float, *_: object) -> NoReturn:
    """Stand where a runtime's way to dial does, for work that asks on connections that exist, or makes none."""
    raise RuntimeError(f"{target.name} was dialled ({seconds} s) where no connection is to be made")


def one_by_one(
    target: Target, seconds: float, *, v6_first: bool, rewrite: Rewrite
) -> Generator[tuple[Target, float], DialFailed, None]:
    """The dials of which a dial of several addresses consists, as (target, seconds); takes the failure of each.

    Args:
        target: all of the addresses.
        seconds: for all of them.
        v6_first: whether IPv6 addresses are dialled first.
        rewrite: returns an error like another one, with a text of its own.

    Raises:
        DialFailed: the last of them failed, too.
    """
    until = time.monotonic() + seconds
    failures: list[DialFailed] = []
    addresses = order_by_family(target.addresses, v6_first=v6_first)
    for position, address in enumerate(addresses):
        limit = share(until - time.monotonic(), len(addresses) - position - 1, [each.fault for each in failures])
        failures.append((yield replace(target, addresses=(address,)), limit))
    raise join_failures(addresses, failures, rewrite)


def join_failures(addresses: Sequence[str], failures: Sequence[DialFailed], rewrite: Rewrite) -> DialFailed:
    """The failure of a dial of several addresses: of the kind that says most, with what each of them said."""
    main = failures[decisive([each.fault for each in failures])]
    listed = "".join(f"\n- {address}: {each.fault.text}" for address, each in zip(addresses, failures, strict=True))
    text = f"{main.fault.text}\nMultiple connection attempts failed. All failures were:{listed}"
    cause = rewrite(main.cause, text)
    return DialFailed(Fault(main.fault.kind, main.fault.sqlstate, " ".join(str(cause).split())), cause)
