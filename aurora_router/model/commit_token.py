"""Commit tokens: what identifies a transaction, so that its outcome can be asked for later."""

from __future__ import annotations

import json
from dataclasses import asdict, field
from typing import Any

from aurora_router.frozen import frozen


@frozen
class ServerIncarnation:
    """One uninterrupted run of a server, from a recovery (or a clean start) to the next one.

    The start of the postmaster is not enough: after a crash of one backend it goes on, with its start time, through a
    recovery of its own. Each recovery moves the end of the replayed log, so both together distinguish two runs.

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


@frozen
class WitnessTable:
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


@frozen
class CommitToken:
    """What identifies one transaction. ``str(token)`` and `parse` carry it to another process.

    Attributes:
        xid: its full transaction id (xid8).
        pid: its backend.
        began: its ``now()``, microseconds since 1970 by the server's clock.
        started: start of the postmaster that ran it, likewise.
        incarnation: the server's run, with the method of the log position; None otherwise.
        lsn: end of the record that holds the xid, with the method of the log position.
        flush_proven: whether no restart in place can have lost that record (see `policy.outcome`).
        witness: the id of its witness row, with the method of the witness.
        witness_table: where that row is; None in tokens of versions that did not record it.
    """

    xid: int
    pid: int
    began: int
    started: int
    incarnation: ServerIncarnation | None = None
    lsn: int | None = None
    flush_proven: bool = False
    witness: str | None = None
    witness_table: WitnessTable | None = None

    def __str__(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def parse(cls, text: str) -> CommitToken:
        """Read what ``str(token)`` wrote.

        Raises:
            ValueError: it is no commit token.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            incarnation, witness_table = values.pop("incarnation"), values.pop("witness_table", None)
            token = cls(
                **values,
                incarnation=None if incarnation is None else ServerIncarnation(**incarnation),
                witness_table=None if witness_table is None else WitnessTable(**witness_table),
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(f"not a commit token: {text[:80]!r}") from error
        return token
