"""A client that writes a ledger through faults: every entry counts once, whatever happens to the writer.

In the test process it is a thread; in a container it is run as ``python3 - CONNINFO CLIENT STOP`` with this file as
standard input, until the file STOP appears, and prints what it knows as JSON.
"""

from __future__ import annotations

import json
import pathlib
import sys
import threading
import time
from functools import partial

import psycopg

import aurora_router

TABLE = "create table if not exists ledger (client text, entry int)"


class OneConnection:
    """The smallest pool: it keeps its connection while that leads to the writer."""

    def __init__(self, router):
        self._router = router
        self._kept = None

    def getconn(self):
        kept, self._kept = self._kept, None
        if kept is not None and not kept.closed and kept.placement.current:
            return kept
        if kept is not None:
            kept.close()
        return self._router.connect(role="writer")

    def putconn(self, connection):
        if connection.closed:
            return
        self._kept = connection

    def close(self):
        if self._kept is not None:
            self._kept.close()


class Ledger:
    """Writes entry after entry; `acked` are those that committed, `unknown` those of which the outcome is unknown."""

    def __init__(self, conninfo, client):
        self.client = client
        self.acked, self.unknown, self.errors = [], [], []
        self.longest = 0.0  # seconds between two commits
        self._router = aurora_router.Router(conninfo)
        self._pool = OneConnection(self._router)

    def run(self, stop):
        entry, last = 0, time.monotonic()
        while not stop():
            entry += 1
            try:
                self._router.run_transaction(partial(self._insert, entry), pool=self._pool)
            except aurora_router.CommitOutcomeUnknown:
                self.unknown.append(entry)
            except psycopg.Error as error:
                self.errors.append(f"{entry}: {type(error).__name__}: {error}")
            else:
                self.acked.append(entry)
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now
            time.sleep(0.02)
        self._pool.close()

    def _insert(self, entry, connection):
        connection.execute("insert into ledger values (%s, %s)", (self.client, entry))

    def facts(self):
        return {"acked": self.acked, "unknown": self.unknown, "errors": self.errors, "longest": self.longest}


class InThread(Ledger):
    """A ledger that is written while a block runs."""

    def __enter__(self):
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.run, args=(self._stop.is_set,))
        self._thread.start()
        return self

    def __exit__(self, *_exc):
        self._stop.set()
        self._thread.join()


def main(conninfo, client, stop):
    written = Ledger(conninfo, client)
    path = pathlib.Path(stop)
    written.run(path.exists)
    print(json.dumps(written.facts()))


if __name__ == "__main__" and len(sys.argv) == 4:
    main(*sys.argv[1:])
