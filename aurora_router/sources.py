"""Topology sources of your own: how another kind of server reports its cluster.

A `Source` is data: one statement that is sent on a fresh connection, the SQLSTATEs by which a server of another kind
refuses it, and a function that reads the rows. The built-in ones are made of the same class.

It is found by name among the entry points of the group ``aurora_router.sources``, and used where ``aurora_source``
names it; several names are tried in their order.
"""

from __future__ import annotations

from aurora_router.flow.runtime import Rows
from aurora_router.flow.source import MembersFailed, OtherKind, Source
from aurora_router.flow.topology_query import ROLE
from aurora_router.model.observation import Member, Members, Row, Topology
from aurora_router.runtime.sources import GROUP
from aurora_router.runtime.sources.postgresql import POSTGRESQL

__all__ = [
    "GROUP",
    "POSTGRESQL",
    "ROLE",
    "Member",
    "Members",
    "MembersFailed",
    "OtherKind",
    "Row",
    "Rows",
    "Source",
    "Topology",
]
