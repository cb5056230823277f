"""A call of ``connect`` that has been read, whatever the driver: what is passed on to the monitor."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Any

from aurora_router.frozen import frozen
from aurora_router.runtime.dns import Names, names_of

if TYPE_CHECKING:
    from aurora_router.flow.source import Source
    from aurora_router.policy.options import CausalMethod, OutcomeMethod
    from aurora_router.policy.route import Request


@frozen
class ConnectArgs:
    """A call of ``connect``, read.

    Attributes:
        request: what routing has to know.
        params: what is left for the driver: no host, no port, none of our options.
        sources: how to ask for the topology, in the order in which to try.
        methods: how commit outcomes can be asked for, by database; learned once for all equal connects.
        degraded: where that is a fallback, and until when; see `flow.begin.Plan`.
        nameless: databases whose server does not give its system identifier.
        causal_methods: what causal tokens are made of with ``aurora_causal=auto``, by database; learned likewise.
        causal_lacking: databases that offer none of that: why, and until when that is not asked; learned likewise.
    """

    request: Request
    params: Any = field(repr=False)
    sources: tuple[Source, ...]
    methods: dict[str, OutcomeMethod] = field(default_factory=dict, compare=False)
    degraded: dict[str, tuple[OutcomeMethod, float]] = field(default_factory=dict, compare=False)
    nameless: set[str] = field(default_factory=set, compare=False)
    causal_methods: dict[str, CausalMethod] = field(default_factory=dict, compare=False)
    causal_lacking: dict[str, tuple[str, float]] = field(default_factory=dict, compare=False)

    @property
    def names(self) -> Names:
        """How to resolve host names."""
        return names_of(self.request.options)
