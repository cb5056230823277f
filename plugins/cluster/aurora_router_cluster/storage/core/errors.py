"""What can go wrong in the storage.

::

    StorageError
    ├── Refused             a node answered no: the caller's epoch is over
    ├── NodeUnavailable     no answer: down, cut off, or too slow (also a ConnectionError)
    │   └── NodeFailed      the node itself answered that it cannot: its disk has failed
    ├── QuorumUnavailable   too few nodes for what was asked; it can be asked again later
    ├── Fenced              this driver's epoch is over; only a newer one can write
    └── CorruptLog          bytes that cannot be what the writer wrote
"""

from __future__ import annotations

NEVER_FORMATTED = 0
"""The epoch that a node without metadata obeys."""


class StorageError(Exception):
    """Root of the storage's own errors."""


class Refused(StorageError):
    """A node refuses a request of another epoch.

    Attributes:
        promised: the epoch that the node has promised to obey; `NEVER_FORMATTED` for one that holds nothing.
    """

    def __init__(self, message: str, promised: int) -> None:
        super().__init__(message)
        self.promised = promised


class NodeUnavailable(StorageError, ConnectionError):
    """A node gave no answer within the deadline of its handle."""


class NodeFailed(NodeUnavailable):
    """A node answered that it cannot do anything at present, and why: its disk has failed."""


class QuorumUnavailable(StorageError):
    """Too few nodes answered."""


class Fenced(StorageError):
    """A later epoch has been promised at so many nodes that this one can never write again."""


class CorruptLog(StorageError):
    """The log cannot be read: what was found where is in the message."""
