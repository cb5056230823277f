"""An independent probe of a MariaDB cluster: when could anything first write? Run by `benchmarks.mysql`.

``python -m benchmarks.mysql_probe PORT HOST…`` writes a row at every host, each in a thread of its own, as soon as and
as often as it can, by stock PyMySQL; each write that succeeded is a line with the monotonic time in seconds.
"""

from __future__ import annotations

import sys
import threading
import time

import pymysql

PAUSE = 0.001


def probe(host: str, port: int) -> None:
    """Write at one host for as long as this process runs."""
    while True:
        try:
            connection = pymysql.connect(
                host=host, port=port, user="app", password="app", database="app", autocommit=True, ssl_disabled=True,
                connect_timeout=1, read_timeout=1, write_timeout=1,
            )  # fmt: skip
            with connection.cursor() as cursor:
                while True:
                    cursor.execute("insert into probed values (1)")
                    sys.stdout.write(f"{time.monotonic()!r}\n")
                    sys.stdout.flush()
                    time.sleep(PAUSE)
        except pymysql.err.MySQLError:
            time.sleep(PAUSE)


if __name__ == "__main__":
    threads = [threading.Thread(target=probe, args=(host, int(sys.argv[1])), daemon=True) for host in sys.argv[2:]]
    for each in threads:
        each.start()
    sys.stdin.read()  # until the benchmark ends
