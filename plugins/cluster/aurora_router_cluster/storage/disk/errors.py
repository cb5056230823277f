"""What goes wrong on a node's disk.

DiskError
 ├── LogFailedError        a write or a sync failed: the log takes no more frames until it is opened again
 ├── OutOfFilesError       no file could be opened at this moment: nothing was lost, try again
 ├── DamagedError          what was read is not what was written: refill it from a peer
 └── IdentityError         a data directory's control file or log cannot be understood
"""

from __future__ import annotations


class DiskError(Exception):
    """Root of all errors of a storage node's disk."""


class LogFailedError(DiskError):
    """A write or sync failed. What was not reported durable before may be lost, and nothing more is accepted.

    After a failed fsync the kernel may have dropped the dirty pages, so that trying again would lie.
    """


class OutOfFilesError(DiskError):
    """This process or machine has too many files open, or no memory for another one; or the log was closed meanwhile.

    It says nothing of the disk.
    """


class DamagedError(DiskError):
    """A checksum does not match; no byte of it was handed out."""


class IdentityError(DiskError):
    """A control file or log segment is not of a PostgreSQL version that is understood."""
