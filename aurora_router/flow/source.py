"""A topology source, as data: the query, and how to read its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.frozen import frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aurora_router.flow.runtime import Rows
    from aurora_router.model.observation import Members, Topology


class OtherKind(Exception):
    """A server has the functions that a source asks, and is of another kind all the same."""


class MembersFailed(Exception):
    """The manager of a cluster did not list its members; the text says what was tried, and what to do."""


@frozen
class Source:
    """How one kind of server reports its cluster.

    Attributes:
        name: as the option ``aurora_source`` spells it.
        sql: one statement, with every function and operator qualified (a search_path proves nothing); its first columns
            are those of `flow.runtime.ServiceQueries.role`.
        read: ``(rows, asked) -> Topology``; `asked` is the id that the instance was dialled by, for sources that
            do not report their own. It raises `OtherKind` if the server is of another kind, though it answers. A row
            that makes no sense is left out; any other exception ends the connect with `ExtensionFailed`.
        absent: SQLSTATEs by which a server shows that it is not of this kind.
        complete: whether one answer lists the whole cluster.
        servers: what servers of this kind are called in messages; empty: by `name`.
        id_sql: one statement that returns the columns of `ServiceQueries.role` and the id; None: there is none.
        read_id: returns the id in the answer to it, or None.
        advance_sql: one statement that adds a record to the log of a writer, and changes nothing else; see
            `flow.topology_query.advance_log`. None: there is none, or tokens do not follow the log.
        temporary: SQLSTATEs of class 28 with which a server of this kind refuses logins for as long as it restarts;
            elsewhere they are final.
        grant: what to do about a user that may not ask, for people.
        members: asks the manager of the cluster for its members, beside SQL; takes the hosts that the user gave, may
            take its time, and is called in a thread of its own where that matters. It raises `MembersFailed`. None:
            there is no manager.
        install: what a database lacks whose servers have a cluster's endpoint, and not these functions, for people;
            empty: nothing that could be installed.
    """

    name: str
    sql: str
    read: Callable[[Rows, str], Topology]
    absent: frozenset[str] = frozenset()
    complete: bool = True
    servers: str = ""
    id_sql: str | None = None
    read_id: Callable[[Rows], str | None] = lambda _: None
    advance_sql: str | None = None
    temporary: frozenset[str] = frozenset()
    grant: str = "grant EXECUTE on that function"
    install: str = ""
    members: Callable[[Sequence[str]], Members] | None = None
