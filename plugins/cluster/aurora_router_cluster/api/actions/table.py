"""The table of operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aurora_router_cluster.api.account import Account
from aurora_router_cluster.api.errors import ApiError

Perform = Callable[[Account, Mapping[str, Any]], dict[str, Any]]

ACTIONS: dict[str, Action] = {}
"""Name of an operation -> what does it."""


@dataclass(frozen=True, slots=True)
class Action:
    """An operation that is served.

    Attributes:
        name: of it.
        members: of its input that it uses; a request with another one is refused, not half done.
        perform: does it; gets the clusters and the input, returns the output.
    """

    name: str
    members: frozenset[str]
    perform: Perform

    def run(self, account: Account, params: Mapping[str, Any]) -> dict[str, Any]:
        """Do it.

        Raises:
            ApiError, Fault: it was refused.
            ClusterError: a supervisor refused it, or did not answer.
        """
        if unused := params.keys() - self.members:
            raise ApiError(
                "InvalidParameterCombination",
                f"{', '.join(sorted(unused))} cannot be set for a local cluster; leave it out "
                f"({self.name} takes {', '.join(sorted(self.members))})",
            )
        return self.perform(account, params)


def action(name: str, *members: str) -> Callable[[Perform], Perform]:
    """Enter a function in the table; see `Action`."""

    def enter(perform: Perform) -> Perform:
        ACTIONS[name] = Action(name, frozenset(members), perform)
        return perform

    return enter
