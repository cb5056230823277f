"""The semi-synchronous volume: streaming replication, and a commit waits until one of the readers has flushed it.

So it is after the loss of a writer that a commit which was acknowledged is on a reader: on the one with the most log,
since each has a prefix of the writer's. The control plane promotes that one, and no other, once every reader has
answered that may have acknowledged something (`Instance.owes_log`). A commit that was not acknowledged may be there or
not; a former writer is rewound to what its successor has.

A commit waits for as long as no reader follows; on a writer that is stopped in order such a commit ends without an
answer. This is the volume of the flavour ``multi-az``, after RDS Multi-AZ DB clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router_cluster.postgres.settings import RDS_EXTENSIONS
from aurora_router_cluster.storage.direct import DirectVolume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aurora_router_cluster.postgres.endpoints import EngineAddress

_ENGINE = {"rds.extensions": RDS_EXTENSIONS}


class SemiSynchronousVolume(DirectVolume):
    """See the module, and `aurora_router_cluster.storage.volume.Volume` for the methods."""

    flavour = "multi-az"
    waits_for_readers = True

    def writer_settings(self) -> Mapping[str, str]:
        """Any one reader has a commit before its client is answered."""
        return {**_ENGINE, "synchronous_standby_names": "ANY 1 (*)"}

    def reader_settings(self, reader: str, writer: EngineAddress | None) -> Mapping[str, str]:
        """Follow the writer over its Unix socket."""
        return {**_ENGINE, **super().reader_settings(reader, writer)}
