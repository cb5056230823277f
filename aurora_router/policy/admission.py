"""Whether a connect may begin now: what a cluster's phase may decide about it.

Theory. During a planned change (a switchover between two clusters, a planned failover) it is known for seconds that a
connect would fail, or would end on the side that is about to go. A policy that knows the phase says so before anything
is dialled: the connect is held until the phase is over, sent to another host, or refused. Without a policy each connect
passes.

Invariant: a policy cannot prolong a connect. One that is held ends at its own deadline, with the policy's reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from aurora_router.model.endpoint import WantedRole
    from aurora_router.model.view import View


@frozen
class Hold:
    """The connect waits; the policy is asked again at the next change of the cluster, and at `until`.

    Attributes:
        until: by the runtime's clock, in seconds.
        reason: why, for the error if the connect's own time is over before.
    """

    until: float
    reason: str


@frozen
class Redirect:
    """The connect goes to another host, where it is routed as if that had been given; once, not further.

    Attributes:
        host: the host name.
        port: the port there; None: the default.
    """

    host: str
    port: int | None = None


@frozen
class Refuse:
    """The connect fails at once.

    Attributes:
        reason: why, for the error.
    """

    reason: str


Admission: TypeAlias = "Hold | Redirect | Refuse | None"
"""What is decided about a connect; None: it passes."""


class AdmissionPolicy(Protocol):
    """Decides about connects to one cluster. A pure function of the phase that it was made for and of what it gets."""

    def __call__(self, role: WantedRole, view: View, now: float) -> Admission:
        """Decide about a connect.

        Args:
            role: which instances may serve.
            view: the cluster as last known.
            now: by the runtime's clock, in seconds.
        """
        ...
