"""What a transaction leaves with its client, so that its fate can be found out later."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Life:
    """One uninterrupted run of a server, from a recovery (or a clean start) to the next one.

    The start of the postmaster is not enough: after a crash of one backend it goes on, with its start time, through a
    recovery of its own. Each recovery moves the end of the replayed log, so both together tell two runs apart.

    Attributes:
        system: the system identifier.
        timeline: the timeline that is written to.
        started: start of the postmaster, microseconds since 1970 by the server's clock.
        recovered: end of the last replayed record, as a number; None where the server started without a recovery.
    """

    system: str
    timeline: int
    started: int
    recovered: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """The witness table that holds a transaction's row: that a row is missing in another one means nothing.

    Attributes:
        system: the system identifier; None where the server does not offer it.
        database: object id of the database.
        table: object id of the table, which is another one after it was dropped and created again.
        name: the database's name, for messages; not compared, since a pooler may know it by another one.
    """

    system: str | None
    database: int
    table: int
    name: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """The marks of one transaction. ``str(ticket)`` and `parse` carry it to another process.

    Attributes:
        xid: its full transaction id (xid8).
        pid: its backend.
        began: its ``now()``, microseconds since 1970 by the server's clock.
        started: start of the postmaster that ran it, likewise.
        life: the server's run, with the way of the log position; None otherwise.
        lsn: end of the record that holds the xid, with the way of the log position.
        held: whether no restart in place can have lost that record (see `policy.outcome`).
        witness: the id of its witness row, with the way of the witness.
        place: where that row is; None in tickets of versions that did not record it.
    """

    xid: int
    pid: int
    began: int
    started: int
    life: Life | None = None
    lsn: int | None = None
    held: bool = False
    witness: str | None = None
    place: Place | None = None

    def __str__(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> Ticket:
        """Read what ``str(ticket)`` wrote.

        Raises:
            ValueError: it is no ticket.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            life, place = values.pop("life"), values.pop("place", None)
            ticket = cls(
                **values,
                life=None if life is None else Life(**life),
                place=None if place is None else Place(**place),
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"not a ticket of a transaction: {text[:80]!r}") from error
        return ticket
