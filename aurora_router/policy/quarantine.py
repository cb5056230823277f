"""Instances that just failed: only a last resort for a while.

Theory. A dead reader that stays in the rotation costs every connect a time-out; one that is taken out for good never
comes back. So a failure takes an instance out for a base time, each further *incident* doubles it up to `MAX_SECONDS`,
a success clears it. Many connections that fail with the same instance at the same moment are one incident: a failure
during the quarantine does not prolong it, unless it is of a try that began within it (a last resort that failed too).
One that hangs is dialled by the monitor alone, until it answers: a quarantine is prolonged while it is asked.
An instance that did not fail for `MAX_SECONDS` after its quarantine starts from the beginning.

Invariant: no quarantine reaches further than `MAX_SECONDS` beyond the failure that caused it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.model.bounds import forget_oldest

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_SECONDS = 30.0
"""Longest quarantine: about the length of a failover, after which looking again is worth a dial."""


class _Term(NamedTuple):
    """One instance's quarantine: when it began and ends (by the runtime's clock), how long it is; all in seconds."""

    since: float
    until: float
    length: float


_NO_TERMS: Mapping[str, _Term] = MappingProxyType({})


class Quarantine:
    """Which instances are avoided, and until when; `record_failure`, `prolong` and `record_success` return the next.

    Attributes:
        terms: the quarantine of each instance that failed and did not succeed since; it may be over.
    """

    __slots__ = ("terms",)

    def __init__(self, terms: Mapping[str, _Term] = _NO_TERMS) -> None:
        self.terms = terms

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quarantine) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(frozenset(self.terms.items()))

    def __repr__(self) -> str:
        terms = ", ".join(f"{id_} until {term.until:g}" for id_, term in self.terms.items())
        return f"<Quarantine {terms or 'of no instance'}>"

    def remaining(self, instance: str, now: float) -> float:
        """Seconds that an instance is still kept away from; 0.0: it is not."""
        term = self.terms.get(instance)
        return max(0.0, term.until - now) if term is not None else 0.0

    def record_failure(self, instance: str, now: float, base: float, began: float | None = None) -> Quarantine:
        """Return the quarantine after a failure of an instance: a first term, or one twice as long as the last.

        A failure changes nothing if the try began before the present term.

        Args:
            instance: which instance failed.
            now: the time by the runtime's clock, in seconds.
            base: length of a first quarantine, in seconds; 0 or less: none.
            began: when the try that failed began; None: unknown, which counts as before the quarantine.
        """
        if base <= 0:
            return self
        term = self.terms.get(instance)
        if term is not None and now < term.until and (began is None or began < term.since):
            return self
        length = min(base if term is None else max(base, 2 * term.length), MAX_SECONDS)
        if term is not None and now - term.until > MAX_SECONDS:
            length = min(base, MAX_SECONDS)
        remembered = {id_: each for id_, each in self.terms.items() if now - each.until <= MAX_SECONDS}
        following = {**remembered, instance: _Term(now, now + length, length)}
        forget_oldest(following)
        return Quarantine(MappingProxyType(following))

    def prolong(self, instance: str, now: float, seconds: float) -> Quarantine:
        """Keep away for so many seconds more from an instance that failed and is silent, while it is asked."""
        term, until = self.terms.get(instance), now + min(seconds, MAX_SECONDS)
        if term is None or term.until >= until:
            return self
        return Quarantine(MappingProxyType({**self.terms, instance: term._replace(until=until)}))

    def record_success(self, instance: str) -> Quarantine:
        """Return the quarantine without an instance that was reached."""
        if instance not in self.terms:
            return self
        return Quarantine(MappingProxyType({id_: each for id_, each in self.terms.items() if id_ != instance}))
