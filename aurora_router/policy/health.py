"""Which instances of a cluster failed, as one value.

Theory. Three facts about an instance are kept apart, because they end differently. A failed dial starts a *quarantine*,
which ends by itself. A failure that the view accepted is *open* until the instance answers again, however long that
takes: its length is what `InstanceRecovered` reports. A *hang* is remembered as a time alone: a dial that began before
it and timed out shows nothing about the capacity of the server (`flow.dial_limiter`).
"""

from __future__ import annotations

from dataclasses import field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.bounds import forget_oldest
from aurora_router.model.event import InstanceFailed, InstanceRemoved
from aurora_router.policy.quarantine import Quarantine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aurora_router.model.event import Event


@frozen
class Health:
    """Which instances failed; each method returns the next value. All times are in seconds, by the runtime's clock.

    Attributes:
        quarantine: which instances are avoided, and until when.
        failed_at: when instances failed that have not answered since, by id.
        hung_at: when an instance was last found hung; before all times if none was.
    """

    quarantine: Quarantine = field(default_factory=Quarantine)
    failed_at: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    hung_at: float = -1.0

    def record_failure(self, instance: str, now: float, base: float, began: float) -> Health:
        """After a failed dial; see `Quarantine.record_failure`."""
        return self._with_quarantine(self.quarantine.record_failure(instance, now, base, began))

    def prolong(self, instance: str, now: float, seconds: float) -> Health:
        """While a silent instance is asked; see `Quarantine.prolong`."""
        return self._with_quarantine(self.quarantine.prolong(instance, now, seconds))

    def record_success(self, instance: str) -> Health:
        """After an answer: the instance is not avoided any more, and its failure is over."""
        return self._with_quarantine(self.quarantine.record_success(instance)).end_failure(instance)

    def record_hang(self, now: float) -> Health:
        """After an instance was found hung."""
        return replace(self, hung_at=now)

    def follow(self, events: Iterable[Event], now: float) -> Health:
        """After a change of the view: failures begin, and those of removed instances are over."""
        after = self
        for event in events:
            if isinstance(event, InstanceFailed) and event.id not in after.failed_at:
                failed_at = {**after.failed_at, event.id: now}
                forget_oldest(failed_at)
                after = replace(after, failed_at=MappingProxyType(failed_at))
            elif isinstance(event, InstanceRemoved):
                after = after.end_failure(event.id)
        return after

    def end_failure(self, instance: str) -> Health:
        """After an instance answered, or was removed: its failure, if any, is over."""
        if instance not in self.failed_at:
            return self
        failed_at = {id_: at for id_, at in self.failed_at.items() if id_ != instance}
        return replace(self, failed_at=MappingProxyType(failed_at))

    def _with_quarantine(self, quarantine: Quarantine) -> Health:
        return self if quarantine is self.quarantine else replace(self, quarantine=quarantine)
