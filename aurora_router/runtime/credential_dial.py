"""A dial with the credentials of a provider: with the cached one, and with what is left to try if that is rejected.

One dial tries three credentials at most: the cached one, the next one, and what stands in for that one.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

from aurora_router.credentials import Login
from aurora_router.psycopg_errors import CredentialsUnavailable
from aurora_router.runtime.credentials import cache_of
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.passfile import DEFAULT_PORT, Parameters

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from aurora_router.credentials import Provider
    from aurora_router.flow.runtime import Target

T = TypeVar("T")

REJECTED = frozenset({"28P01", "28000"})
"""How a server rejects a password (PostgreSQL documentation, appendix A)."""
TRIES = 3
"""How many credentials one dial tries at most."""


def login_for(base: Mapping[str, Any], target: Target) -> Login:
    """What a credential is wanted for when a target is dialled with these parameters."""
    port = target.port or os.environ.get("PGPORT") or DEFAULT_PORT
    user, database = (base.get(name) or os.environ.get(variable) for name, variable in _NAMED)
    host = target.host or (target.addresses[0] if target.addresses else None)
    name: str | None = target.name
    for each in base.given if isinstance(base, Parameters) else ():
        if name == each.host or name == str(each):
            name = None
    return Login(host, int(port), user, database or user, name)


_NAMED = (("user", "PGUSER"), ("dbname", "PGDATABASE"))


def make_dial(
    open_: Callable[[Target, float, Mapping[str, str]], T], provider: Provider, base: Mapping[str, Any]
) -> Callable[[Target, float], T]:
    """A function that dials with what the provider gives, and with what is left to try where the server rejects it."""
    cache = cache_of(provider)

    def dial(target: Target, seconds: float) -> T:
        login = login_for(base, target)
        found = cache.get(login)
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                connection = open_(target, seconds, found.params())
            except psycopg.OperationalError as error:
                following = cache.after_rejection(login, found) if tries_left and _is_rejection(error) else None
                if following is None:
                    raise
                found = following
            else:
                cache.confirm(login, found)
                return connection
        raise AssertionError("the last try returns or raises")

    return dial


def make_async_dial(
    open_: Callable[[Target, float, Mapping[str, str]], Awaitable[T]], provider: Provider, base: Mapping[str, Any]
) -> Callable[[Target, float], Awaitable[T]]:
    """The same for asyncio."""
    cache = cache_of(provider)

    async def dial(target: Target, seconds: float) -> T:
        login = login_for(base, target)
        try:
            found = await cache.get_async(login)
        except asyncio.CancelledError as cancelled:  # a task of its own, which ends with the time for the dial
            raise _new_late(seconds) from cancelled
        for tries_left in range(TRIES - 1, -1, -1):
            try:
                connection = await open_(target, seconds, found.params())
            except psycopg.OperationalError as error:
                may_follow = tries_left and _is_rejection(error)
                following = await cache.after_rejection_async(login, found) if may_follow else None
                if following is None:
                    raise
                found = following
            else:
                cache.confirm(login, found)
                return connection
        raise AssertionError("the last try returns or raises")

    return dial


def _new_late(seconds: float) -> CredentialsUnavailable:
    """The error of a dial whose time the provider took; what it says later counts for the next one."""
    late = CredentialsUnavailable(f"the provider of credentials has not answered within {seconds:g} s")
    late.sqlstate = None  # it may still answer: worth another try
    return late


def _is_rejection(error: psycopg.Error) -> bool:
    return fault_of(error).sqlstate in REJECTED
