"""Balance functions of users': passed as they are, or named by an entry point."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, cast

from aurora_router.errors import InvalidOption
from aurora_router.forks import IMPORTING
from aurora_router.policy.options import BALANCE_GROUP, Balance, CustomBalance

if TYPE_CHECKING:
    from aurora_router.policy.options import BalanceFunction


def find_balance(given: object) -> object:
    """Return the function that ``balance=`` gives, or that ``aurora_balance`` names; what is neither, as it is.

    Raises:
        InvalidOption: there is no function of that name, it can't be loaded, or it is a coroutine function.
    """
    if callable(given):
        return _custom_balance(getattr(given, "__qualname__", type(given).__name__), given)
    if isinstance(given, str) and re.fullmatch(r"[\w.-]+", given.strip()):
        with IMPORTING:
            from aurora_router.runtime.entry_points import load_named  # noqa: PLC0415 - few calls name a function

        name = given.strip()
        strategies = [each.value for each in Balance]
        return _custom_balance(name, load_named("aurora_balance", name, BALANCE_GROUP, "balance function", strategies))
    return given


def _custom_balance(name: str, function: object) -> CustomBalance:
    if not callable(function) or inspect.iscoroutinefunction(function):
        kind = "coroutine function" if callable(function) else type(function).__name__
        raise InvalidOption(f"aurora_balance={name}: it is a {kind}, and has to be a function that returns at once")
    return CustomBalance(name, cast("BalanceFunction", function))
