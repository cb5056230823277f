"""What was known of an instance when a statement on a connection to it failed: a value, for the error's note."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from aurora_router.model.event import Event
    from aurora_router.model.instance import Role


@frozen
class Incident:
    """What happened to the instance of a connection whose statement failed.

    Attributes:
        cluster: name of the cluster.
        instance: id of the instance; None behind a proxy, which does not report it.
        role_before: the instance's role when the connection was made; None: unknown.
        role_now: its role as last known; None: unknown, or it is not in the cluster any more.
        writer_now: id of the writer as last known; None while there is none.
        cut: why this library shut the connection down; None: it did not.
        lost: whether the connection was lost; False: the server refused a write (25006) and the connection lives.
        events: the last events of the cluster, oldest first, each with its age in seconds when the error was raised.
        text: all of it for people, which is also the error's note.
    """

    cluster: str
    instance: str | None
    role_before: Role | None
    role_now: Role | None
    writer_now: str | None
    cut: str | None
    lost: bool
    events: tuple[tuple[float, Event], ...] = ()
    text: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def summary(self) -> str:
        """The first line of the text: which connection was lost, or which instance refused to write."""
        return self.text.partition("\n")[0]
