"""Which connections of a pool are to be recycled: closed, and replaced by new ones.

Theory. A pool keeps connections while the cluster changes under them. All that can be known of one without a round trip
is a value, `HeldConnection`: where and when it was made, and what its socket and its server have reported since. Each
of the `RULES` looks at it and at the view, and says why it is to be recycled, or nothing; the first reason counts. What
needs a round trip (a pooler, behind which the server may change) is asked by the caller.

Invariant: a connection whose instance is in the generation in which it was made, and still a member of the custom
endpoint by whose name it was made, whose server reports the role that it reported first, and whose socket is open
stays. So a connection that works is never taken from a pool by what happens to other instances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router.model.view import View

    Rule = Callable[[View | None, "HeldConnection"], "Recycling | None"]


@frozen
class HeldConnection:
    """A connection that a pool holds, as far as it is known here.

    Attributes:
        instance: the id of its instance; None behind a proxy, which does not say it, and for one that was not routed.
        generation: the instance's generation when the connection was made.
        closed: whether it was closed, or found broken, at this end.
        ended: whether the server has ended it: its socket says so.
        pooled: whether a pooler is in between, so that the server may be another one by now.
        process: the process that opened it, if that is not this one; None: it is.
        reported: what the server reported first of ``in_hot_standby``; None: nothing.
        reports: what it reported last.
        endpoint: the custom endpoint by whose name it was made, if its members are known; None: there is none.
    """

    instance: str | None
    generation: int
    closed: bool = False
    ended: bool = False
    pooled: bool = False
    process: int | None = None
    reported: bool | None = None
    reports: bool | None = None
    endpoint: str | None = None


class Recycling(NamedTuple):
    """Why a connection is to be recycled.

    Attributes:
        reason: for people.
        suspicion: why the accepted writer is to be confirmed, since the server reports another role; None: it is not.
    """

    reason: str
    suspicion: str | None = None


def was_lost(view: View | None, held: HeldConnection) -> Recycling | None:  # noqa: ARG001 - a rule
    """Return why a connection that is closed already is to be recycled; None: it is open."""
    return Recycling("the connection was lost") if held.closed else None


def is_of_another_process(view: View | None, held: HeldConnection) -> Recycling | None:  # noqa: ARG001 - a rule
    """It was opened before a fork: the parent's session."""
    if held.process is None:
        return None
    return Recycling(f"the connection was opened by process {held.process}, of which this one was forked")


def has_changed_role(view: View | None, held: HeldConnection) -> Recycling | None:  # noqa: ARG001 - a rule
    """Its server reports another role than at first; if that is an instance, the writer is to be confirmed."""
    if held.reported is held.reports:
        return None
    reports = f"reports that it is {'a reader' if held.reports else 'a writer'} now"
    reason = f"the connection to {held.instance or 'the server'} is stale: its server {reports}"
    return Recycling(reason, None if held.instance is None else f"{held.instance} {reports}")


def is_outdated(view: View | None, held: HeldConnection) -> Recycling | None:
    """Its instance failed, changed its role or left since it was made."""
    if view is None or held.instance is None or view.is_current(held.instance, held.generation):
        return None
    known = view.instances.get(held.instance)
    now = "has left the cluster" if known is None else f"is not what it was, and now a {known.role.value}"
    return Recycling(f"the connection to {held.instance} is stale: the instance {now}")


def has_left_endpoint(view: View | None, held: HeldConnection) -> Recycling | None:
    """Its instance is no member any more of the custom endpoint by whose name it was made."""
    if view is None or held.instance is None or view.has_member(held.endpoint, held.instance):
        return None
    reason = f"{held.instance} is no member of the custom endpoint {held.endpoint} any more"
    return Recycling(f"the connection to {held.instance} is stale: {reason}")


def was_ended(view: View | None, held: HeldConnection) -> Recycling | None:  # noqa: ARG001 - a rule
    """The server hung up."""
    return Recycling(f"{held.instance or 'the server'} has ended the connection") if held.ended else None


RULES: tuple[Rule, ...] = (was_lost, is_of_another_process, has_changed_role, is_outdated, has_left_endpoint, was_ended)
"""In this order; the first reason counts."""


def judge_held(view: View | None, held: HeldConnection) -> Recycling | None:
    """Say why a connection is to be recycled; None: it may stay.

    Args:
        view: the cluster as last known; None: it is not known which one the connection belongs to.
        held: the connection.
    """
    found = (rule(view, held) for rule in RULES)
    return next((each for each in found if each is not None), None)


def choose_recycled(
    view: View | None, idle: Sequence[HeldConnection], refused: HeldConnection | None = None
) -> list[Recycling | None]:
    """Say for each of a pool's idle connections why it is to be recycled; None: it may stay.

    Args:
        view: the cluster as last known.
        idle: connections to instances of that cluster.
        refused: one that was just found stale. If a pooler is in between, those that lead through it to the same
            instance are recycled with it: nothing else could be known of them without asking each.
    """
    return [judge_held(view, each) or _share_fate(each, refused) for each in idle]


def _share_fate(held: HeldConnection, refused: HeldConnection | None) -> Recycling | None:
    if refused is None or not (held.pooled and refused.pooled) or held.instance != refused.instance:
        return None
    return Recycling(f"another connection to {held.instance} by way of the pooler is stale")
