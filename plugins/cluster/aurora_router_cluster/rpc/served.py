"""Which coroutine methods are requests: a mark where the method is, instead of a table elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Method = TypeVar("Method", bound=Callable[..., Awaitable[Any]])


def served(method: Method) -> Method:
    """Mark a method as one that is asked for by its name; what it takes and returns has to be JSON."""
    method.is_served = True  # type: ignore[attr-defined]  # read by `find_served`
    return method


def find_served(*owners: object) -> dict[str, Callable[..., Awaitable[Any]]]:
    """Name of a request -> what does it: the marked methods of `owners`."""
    return {
        name: getattr(owner, name)
        for owner in owners
        for name, method in vars(type(owner)).items()
        if getattr(method, "is_served", False)
    }
