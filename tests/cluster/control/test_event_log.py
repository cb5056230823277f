from __future__ import annotations

from aurora_router_cluster.control.event_log import CLUSTER, MOST, EventLog


async def messages(log):
    return [(each["source"], each["message"]) for each in await log.events()]


async def test_changes_of_state_are_events():
    log = EventLog()
    log.compare({"one": "creating"})
    log.compare({"one": "available", "two": "creating"})
    log.compare({"one": "available", "two": "available"})
    log.compare({"one": "unreachable", "two": "available"})
    log.compare({"one": "stopped", "two": "available"})
    log.compare({"one": "restarting", "two": "available"})
    log.compare({"one": "available"})
    assert await messages(log) == [
        ("one", "DB instance created"),
        ("two", "DB instance created"),
        ("one", "DB instance shutdown"),
        ("one", "DB instance restarted"),
        ("two", "DB instance deleted"),
    ]


async def test_the_oldest_events_are_forgotten():
    log = EventLog()
    for number in range(MOST + 5):
        log.add(CLUSTER, "demo", "failover", str(number))
    found = await messages(log)
    assert (len(found), found[0]) == (MOST, ("demo", "5"))
