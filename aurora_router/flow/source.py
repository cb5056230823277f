"""A topology source, as data: what to ask, and how to read the answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aurora_router.flow.runtime import Rows
    from aurora_router.model.observation import Topology


@dataclass(frozen=True, slots=True)
class Source:
    """One kind of server's way to tell of its cluster.

    Attributes:
        name: as the option ``aurora_source`` spells it.
        sql: one statement, with every function and operator qualified (a search_path proves nothing); its first columns
            are those of `flow.topology_query.ROLE`.
        read: ``(rows, asked) -> Topology``; `asked` is the id that the instance was dialled by, for sources that
            can not tell their own.
        absent: SQLSTATEs by which a server says that it is not of this kind.
        complete: whether one answer tells of the whole cluster.
        identify: one statement that asks for the columns of `asking.ROLE` and the instance's id; None: it has none.
        identified: the id in the answer to it; None where it is none.
    """

    name: str
    sql: str
    read: Callable[[Rows, str], Topology]
    absent: frozenset[str] = frozenset()
    complete: bool = True
    identify: str | None = None
    identified: Callable[[Rows], str | None] = lambda _: None
