"""Topology sources, as data: SQL and how to read its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.policy.options import Source as Choice
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from aurora_router.runtime.sources.postgresql import POSTGRESQL

if TYPE_CHECKING:
    from aurora_router.flow.source import Source

BY_CHOICE: dict[Choice, tuple[Source, ...]] = {
    Choice.AUTO: (AURORA_POSTGRESQL, POSTGRESQL),
    Choice.AURORA: (AURORA_POSTGRESQL,),
    Choice.POSTGRESQL: (POSTGRESQL,),
}
"""``aurora_source`` -> the sources to try, in order."""
