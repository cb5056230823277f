"""A program in a process that gevent or eventlet has patched, as a web server's worker is; see `test_greenlets`."""

import sys

if sys.argv[1] == "gevent":
    from gevent import monkey

    monkey.patch_all()
else:
    import warnings

    warnings.simplefilter("ignore")
    import eventlet

    eventlet.monkey_patch()

import asyncio
import contextlib
import threading
import time

import psycopg

import aurora_router
from aurora_router_cluster import LocalCluster

PATIENCE = 30.0


def until(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.02)


def all_of(*functions):
    """Run functions in greenlets; return what they returned."""
    found = {}

    def run(index, function):
        try:
            found[index] = function()
        except Exception as error:  # noqa: BLE001 - it is what is looked for
            found[index] = error

    threads = [threading.Thread(target=run, args=each) for each in enumerate(functions)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    return [found.get(index, "hangs") for index in range(len(functions))]


def query(info, sql):
    with aurora_router.connect(info) as connection:
        return connection.execute(sql).fetchone()[-1]


async def work():
    await asyncio.sleep(0)
    return 1


def main(name):
    cluster = LocalCluster.attach(name)
    greenlets = []
    end = aurora_router.subscribe(lambda cluster, event: greenlets.append(asyncio._get_running_loop() is None))
    info = cluster.conninfo(aurora_profile="aggressive")

    assert all_of(*[lambda: query(info, "SELECT 1")] * 8) == [1] * 8
    held = aurora_router.connect(info, autocommit=True)
    held.execute("SELECT pg_advisory_lock(7)")

    def unlock():
        until(lambda: held.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()[0] == 3, "they wait")
        held.execute("SELECT pg_advisory_unlock(7)")
        return 1

    assert all_of(*[lambda: query(info, "SELECT pg_advisory_lock(7), 1")] * 3, unlock) == [1] * 4
    assert asyncio.run(work()) == 1
    with contextlib.suppress(aurora_router.NameNotResolved):
        aurora_router.connect(host="no-such-name.invalid", user="app")

    writer = cluster.writer
    cluster.freeze(writer)

    def statement():
        try:
            held.execute("SELECT 1")
        except psycopg.OperationalError:
            return "cut"

    def reconnected():
        until(lambda: held.broken, "the connection was cut")
        with aurora_router.connect(info, aurora_failover_timeout=PATIENCE) as connection:
            return connection.placement.instance

    outcome = all_of(statement, reconnected, reconnected)
    cluster.thaw(writer)
    assert outcome == ["cut", cluster.writer, cluster.writer], outcome
    assert cluster.writer != writer
    held.close()
    assert greenlets
    assert all(greenlets), "published in the thread of the monitor"
    end()
    print("fine")


main(sys.argv[2])
