"""The members of a cluster that a manager lists, asked beside SQL.

What it lists changes no role and is on no path of a failover: each instance is asked by SQL what it is. It says which
instances there are, where to ask first, and which of them are not meant for reads.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from aurora_router.flow.source import MembersFailed
from aurora_router.policy.cluster_state import ClusterState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aurora_router.flow.cluster import Cluster
    from aurora_router.flow.runtime import Runtime
    from aurora_router.flow.source import Source
    from aurora_router.policy.route import Address

ANSWER_SECONDS = 10.0
"""How long the manager may take to answer, in seconds: several members are asked, one after the other."""
REFRESH_SECONDS = 10.0
"""Between two questions of the monitor, in seconds."""
AGAIN_SECONDS = 1.0
"""The same while the writer is suspected, and between those of connects that find no suitable instance."""


def find_manager(sources: Sequence[Source]) -> Source | None:
    """The first source that asks a manager; None: none does."""
    return next((each for each in sources if each.members is not None), None)


async def ask_members(runtime: Runtime[Any], cluster: Cluster, source: Source, given: Sequence[Address]) -> None:
    """Ask the manager for the members, and enter them; advise if it does not answer, or is another cluster's."""
    assert source.members is not None, "the caller has found one that asks"
    cluster.members_asked_at = runtime.now()
    hosts = [each.host for each in given if each.host is not None]
    try:
        found = await runtime.call(partial(source.members, hosts), ANSWER_SECONDS)
    except MembersFailed as failed:
        _advise(runtime, cluster, f"{failed}; until that changes, instances are those that are known already")
        return
    except Exception as error:  # noqa: BLE001 - a source of another distribution; a connect works without it
        _advise(
            runtime, cluster, f"aurora_source={source.name} could not list members: {type(error).__name__}: {error}"
        )
        return
    system = cluster.view.shown_system
    if system is not None and found.system != system:
        _advise(
            runtime,
            cluster,
            f"aurora_source={source.name} asks the manager of another cluster: its data are of the system "
            f"{found.system}, those at {', '.join(map(str, given))} of {system}; its list is not used",
        )
        return
    if found.advice is not None:
        _advise(runtime, cluster, found.advice)
    cluster.observe(found, runtime.now())


def _advise(runtime: Runtime[Any], cluster: Cluster, text: str) -> None:
    cluster.update(ClusterState.advise, "members", text, runtime.now())
