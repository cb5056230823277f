"""What was observed of a cluster: the only input that changes a view."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen
from aurora_router.model.description import Description

if TYPE_CHECKING:
    from aurora_router.model.drain import DrainNote
    from aurora_router.model.instance import Occupancy

STALE_ROW_SECONDS = 300.0
"""A row that was not updated for longer belongs to an instance that is gone (unless it is the writer's)."""
ROW_AGE_SECONDS = 2.0
"""How old a row of ``aurora_replica_status()`` may be, in seconds. So the row of a fenced instance may show for so long
what it had made durable before, and the rows of other instances which one was the writer before."""
MISSING_SECONDS = 5.0
"""An instance that complete answers do not list is gone after this time: while a reader restarts, none lists it."""


@frozen
class Row:
    """One instance in the answer to a topology query.

    Attributes:
        id: the instance that the row is about.
        writer: whether the row marks it as the writer.
        age: seconds since the row was updated, by the clock of the server that answered, which need not agree with
            the clock that wrote it: only a hint (see `reduce`). None: not known, or the row is about the instance
            itself that answered.
        updated: when the row was updated, in seconds, by the clock of the instance that it is about. Compared with
            other values of the same instance alone; None: not known.
        lag: replica lag in seconds, None when not reported.
        lag_at: when the lag was that, by the runtime's clock in seconds; None: not known.
        cpu: CPU use in percent, None when not reported.
        host: host name to dial, where the source reports one.
        port: TCP port to dial, where the source reports one.
        zone: availability zone, where known.
        token: monotone evidence for the claim that it is the writer: the timeline (plain PostgreSQL) or the durable
            LSN (Aurora); None when the source has none.
        system: the history that the instance's data is of (plain PostgreSQL: the system identifier): tokens and
            positions are compared within one history alone. None: not known.
        lsn: how far the instance's own log is written (the writer) or replayed (a reader); None: not known.
    """

    id: str
    writer: bool = False
    age: float | None = None
    lag: float | None = None
    cpu: float | None = None
    host: str | None = None
    port: int | None = None
    zone: str | None = None
    token: int | None = None
    lag_at: float | None = None
    updated: float | None = None
    system: str | None = None
    lsn: int | None = None


@frozen
class Topology:
    """The answer of one instance to a topology query.

    Attributes:
        rows: what it reported of the instances, itself included.
        observer: its own id; None when it could not say (a source without such a function).
        observer_is_writer: its own report about itself (``not pg_is_in_recovery()``); None when not asked.
        complete: whether the rows are meant to be the whole cluster (False: only the observer, as with plain
            PostgreSQL, or some rows could not be read). What they lack may still make the answer an incomplete one.
        malformed: the ids of the rows that could not be read, as they came.
        monotone: whether the token of a writer never decreases (the timeline of plain PostgreSQL); False: it may (the
            durable LSN of a volume that was set back, or of a writer promoted a moment ago).
        asked_at: when the question was sent, in seconds by the runtime's clock; None: as new as the answer.
        by_id: whether the observer was dialled as a certain instance. False: through a name that the user gave, which
            says by itself which cluster it is.
        drains: the drains that go on, and for how many seconds from the answer on; None: the source does not read them.
    """

    rows: tuple[Row, ...]
    observer: str | None = None
    observer_is_writer: bool | None = None
    complete: bool = True
    malformed: tuple[str, ...] = ()
    monotone: bool = False
    asked_at: float | None = None
    by_id: bool = False
    drains: tuple[tuple[DrainNote, float], ...] | None = None


@frozen
class SelfReport:
    """An instance's report about itself outside of a topology query.

    Reported as ``in_hot_standby`` at start-up, or by an error (25006: it is a reader). `asked_at`: as in `Topology`.
    """

    id: str
    writer: bool
    asked_at: float | None = None


@frozen
class ProcessEnded:
    """Nothing listens where an instance was: its process has ended, and what answers there later was started since."""

    id: str


@frozen
class LoadReport:
    """How many client connections an instance has, by its own report.

    Attributes:
        id: the instance.
        occupancy: what it reported.
    """

    id: str
    occupancy: Occupancy


@frozen
class Failure:
    """An instance did not answer as it should.

    Attributes:
        id: the instance.
        generation: its generation when the failed connection (or the dial) was begun; a failure of an older
            generation is no news.
        gone: whether there is evidence that connections made so far are lost with it (it was declared hung). A dial
            that failed is none: whatever it says, established connections may work.
        reason: for people.
        alive: whether it answered all the same (it is full): no evidence that it might have lost its role.
    """

    id: str
    generation: int
    gone: bool
    reason: str
    alive: bool = False


@frozen
class GivenHosts:
    """The user listed the hosts of all instances: they are known before any of them has answered.

    Attributes:
        hosts: (id, host, port) of each; the id is the host as the user gave it.
    """

    hosts: tuple[tuple[str, str | None, int | None], ...]


@frozen
class Member:
    """One member, as the manager of a cluster lists it.

    Attributes:
        host: where it is dialled.
        port: its TCP port.
        zone: availability zone; None: not known.
        leads: whether the manager names it as the writer.
        serves_reads: whether it is meant to take reads.
    """

    host: str
    port: int
    zone: str | None = None
    leads: bool = False
    serves_reads: bool = True


@frozen
class Members:
    """What the manager of a cluster lists, asked beside SQL. It is no evidence of roles; see `reduce`, rule 11.

    Attributes:
        members: all of them.
        system: the history that their data is of, see `Row.system`.
        complete: whether that is all, for certain: those that were asked agree.
        advice: what is odd, for people; None: nothing.
    """

    members: tuple[Member, ...]
    system: str
    complete: bool = False
    advice: str | None = None


Observation = Topology | SelfReport | ProcessEnded | LoadReport | Failure | GivenHosts | Description | Members


def end_of_record(position: int) -> int:
    """Return where the last record of PostgreSQL's log ends, given the insert position.

    That is behind a page's header where a record would begin there.
    """
    return position - position % _PAGE if position % _PAGE in _HEADERS else position


_PAGE, _HEADERS = 8192, (24, 40)
"""A page of the log, and the sizes of its header (40: of the first page of a file); access/xlog_internal.h."""
