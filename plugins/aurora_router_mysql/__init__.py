"""Connection routing for Amazon Aurora MySQL, and for MySQL and MariaDB: PyMySQL's own connections, placed right.

`connect` and `Connection` take what PyMySQL's take, and the ``aurora_…`` options by keyword. Events, views and
placements are those of `aurora_router`; psycopg is not imported.
"""

from aurora_router_mysql.connection import Connection, connect
from aurora_router_mysql.errors import (
    RETRYABLE,
    CommitOutcomeUnknown,
    FailoverError,
    InstanceTimeout,
    NameNotResolved,
    NameNotVerifiable,
    NoInstanceAvailable,
    RoutingError,
    TransactionEnded,
    WriterTimeout,
    WriterUnavailable,
)

__all__ = [
    "RETRYABLE",
    "CommitOutcomeUnknown",
    "Connection",
    "FailoverError",
    "InstanceTimeout",
    "NameNotResolved",
    "NameNotVerifiable",
    "NoInstanceAvailable",
    "RoutingError",
    "TransactionEnded",
    "WriterTimeout",
    "WriterUnavailable",
    "connect",
]
