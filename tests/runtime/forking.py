"""A program that forks again and again while another of its threads connects for the first time; see `test_forks`.

Each child connects too. Prints how many children there were, and the outcome of those that did not end well.
"""

import faulthandler
import importlib
import os
import signal
import sys
import threading
import time
import warnings

import aurora_router
from aurora_router.forks import IMPORTING

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads

MODE, CONNINFO = sys.argv[1:]
SECONDS, PAUSE, PATIENCE, CHILDREN = 1.5, 0.004, 20, 40


if MODE == "async":
    import asyncio

    asyncio.new_event_loop().close()  # or a child may find a lock of asyncio's own taken: that of its policy


def connect():
    """Connect for the first time."""
    if MODE == "async":
        asyncio.run(connect_async())
    else:
        aurora_router.connect(CONNINFO).close()


async def connect_async():
    """The same on an event loop."""
    async with await aurora_router.AsyncConnection.connect(CONNINFO) as connection:
        await connection.execute("SELECT 1")


def retry():
    """Import what a connect needs whose first round failed."""
    with IMPORTING:
        importlib.import_module("aurora_router.retry")


children = []
if MODE == "monitor":
    held = aurora_router.connect(CONNINFO)
    while "aurora_router.retry" not in sys.modules:
        time.sleep(0.001)
else:
    thread = threading.Thread(target=connect)
    thread.start()
deadline = time.monotonic() + SECONDS
while time.monotonic() < deadline and len(children) < CHILDREN:
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        faulthandler.dump_traceback_later(PATIENCE - 2)
        try:
            (retry if MODE == "monitor" else connect)()
        except BaseException as error:  # noqa: BLE001 - a child must not go on as its parent
            os.write(2, f"{error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    children.append(child)
    time.sleep(PAUSE)
ends = [os.waitpid(child, 0)[1] for child in children]
print(len(children), [end for end in ends if end != 0])
