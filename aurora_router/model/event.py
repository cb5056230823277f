"""Events: what happened to a cluster, by `reduce` and by the monitor; published to hooks, and the trail of errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from aurora_router.model.instance import Role


@frozen
class WriterChanged:
    """Another instance was accepted as the writer; `epoch` is the new local epoch."""

    old: str | None
    new: str
    epoch: int


@frozen
class WriterLost:
    """The accepted writer reported that it is not the writer any more, and no other is known yet."""

    id: str


@frozen
class InstanceAdded:
    """An instance is known now that was not before."""

    id: str
    role: Role


@frozen
class InstanceRemoved:
    """An instance left the cluster."""

    id: str


@frozen
class RoleChanged:
    """An instance has another role; connections of an older generation are stale."""

    id: str
    old: Role
    new: Role
    generation: int


@frozen
class InstanceFailed:
    """An instance failed; connections made before are stale when `gone`."""

    id: str
    generation: int
    gone: bool
    reason: str


@frozen
class InstanceRecovered:
    """An instance answers again, `seconds` after it failed."""

    id: str
    seconds: float


@frozen
class DrainStarted:
    """An operator drains an instance: connections avoid it for `seconds`, or until that is undone."""

    id: str
    seconds: float
    reason: str


@frozen
class DrainEnded:
    """An instance is not drained any more."""

    id: str


@frozen
class ClaimRefused:
    """An instance was named as the writer (by itself or by `observer`), and the evidence does not suffice."""

    claimed: str
    observer: str | None
    accepted: str | None
    reason: str


@frozen
class WriteRefused:
    """The accepted writer refused a statement as read-only (25006); it may have lost the role, so it is asked."""

    id: str


@frozen
class AnswerRefused:
    """An answer to a topology query seems to be of another cluster: nothing of it is believed."""

    observer: str
    named: str | None
    reason: str


@frozen
class WriterSuspected:
    """Something is wrong: all instances are asked, often, until a writer confirms itself. The refresh is fast."""

    reason: str


@frozen
class WriterConfirmed:
    """The accepted writer confirmed itself `seconds` after it was suspected. The refresh is slow again."""

    writer: str
    seconds: float


@frozen
class HangSuspected:
    """Connections to an instance have been waiting for the whole grace period; it is pinged now."""

    id: str
    waiting: int


@frozen
class HangRefuted:
    """The instance is busy, not hung: after `seconds` the ping was answered, or another connection had been served."""

    id: str
    seconds: float


@frozen
class MonitorLockedOut:
    """The monitor cannot log in to any instance that answers: each connect asks by itself."""

    reason: str


@frozen
class ProcessStalled:
    """This process did not run for `seconds` longer than it wanted to, so the silence of servers proves nothing."""

    seconds: float


@frozen
class ConnectionsCut:
    """The sockets of `count` connections to an instance were shut down; each raises at its next use, or at once."""

    id: str
    count: int
    reason: str


@frozen
class ConfigurationAdvice:
    """What could be configured better, and how; published once per cluster."""

    text: str

    def __str__(self) -> str:
        return self.text


Event = (
    ConfigurationAdvice
    | WriterChanged
    | WriterLost
    | InstanceAdded
    | InstanceRemoved
    | RoleChanged
    | InstanceFailed
    | InstanceRecovered
    | DrainStarted
    | DrainEnded
    | ClaimRefused
    | WriteRefused
    | AnswerRefused
    | WriterSuspected
    | WriterConfirmed
    | HangSuspected
    | HangRefuted
    | MonitorLockedOut
    | ProcessStalled
    | ConnectionsCut
)
