"""A secret that rotates while clients connect: for tests, and for `nox -s aws`."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import aurora_router

REGION = "eu-west-1"
ROLE = "seller"
PATIENT = {"aurora_connect_timeout": "30", "aurora_failover_timeout": "60"}
"""Options of a connect that is not to fail because the machine is busy."""
HIDDEN = "Zq7-not-to-be-seen-4x"


def store(manager, value, name="orders"):
    """Make a secret; returns its ARN."""
    text = value if isinstance(value, str) else json.dumps(value)
    return manager.create_secret(Name=name, SecretString=text)["ARN"]


def login(number, user=ROLE):
    """The text of a secret."""
    return json.dumps({"username": user, "password": f"{HIDDEN} {number}"})


class Rotation:
    """A secret that rotates in four steps, and the password of a role that follows it."""

    def __init__(self, manager, change, name="orders") -> None:
        self.manager, self.change, self.number = manager, change, 1
        self.arn = store(manager, login(1), name)
        change(ROLE, 1)

    def begin(self, user=ROLE):
        """createSecret and setSecret: the database wants what is pending."""
        self.number += 1
        self.pending = self.manager.put_secret_value(
            SecretId=self.arn, SecretString=login(self.number, user), VersionStages=["AWSPENDING"]
        )["VersionId"]
        self.change(user, self.number)

    def end(self):
        """finishSecret."""
        versions = self.manager.list_secret_version_ids(SecretId=self.arn)["Versions"]
        current = next(each["VersionId"] for each in versions if "AWSCURRENT" in each["VersionStages"])
        move = {"SecretId": self.arn, "MoveToVersionId": self.pending, "RemoveFromVersionId": current}
        self.manager.update_secret_version_stage(VersionStage="AWSCURRENT", **move)


def who(options, *, awaited=False):
    """The user that a connect logs in as."""
    if not awaited:
        with aurora_router.connect(**options) as conn:
            return conn.execute("SELECT session_user").fetchone()[0]

    async def main():
        async with await aurora_router.AsyncConnection.connect(**options) as conn:
            return (await (await conn.execute("SELECT session_user")).fetchone())[0]

    return asyncio.run(main())


def rotate_under_load(options, rotation, *, clients, rotations, window, pause):
    """How many connects succeeded, and the errors of those that failed."""
    done, errors, ending = [], [], threading.Event()

    def client():
        while not ending.is_set():
            try:
                done.append(who(options))
            except Exception as error:  # noqa: BLE001 - whatever it is, it counts
                errors.append(error)
            ending.wait(0.02)

    with ThreadPoolExecutor(clients) as pool:
        running = [pool.submit(client) for _ in range(clients)]
        try:
            for _ in range(rotations):
                time.sleep(pause)
                rotation.begin()
                time.sleep(window)
                rotation.end()
            time.sleep(pause)
        finally:
            ending.set()
        for each in running:
            each.result(60.0)
    return len(done), errors
