"""What a day in virtual time consists of: tokens end, secrets rotate, instances fail over, AWS is away for a while.

Procedures, cache and providers are the real ones. Simulated are the clock, the network, and what checks a password: for
tokens it verifies the signature, the name, the port, the region and the age, as RDS does.
"""

from __future__ import annotations

import datetime as dt
import json
import random
from calendar import timegm
from collections import Counter
from time import strptime

import psycopg
from botocore.exceptions import ClientError

import aurora_router
from aurora_router.flow.runtime import DialFailed
from aurora_router.runtime import credential_dial, credentials
from aurora_router.runtime.connect_args import read_connect_args
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.monitor import RENEWAL_SECONDS
from aurora_router.simulation import Condition, Network, SimulatedCluster, Simulation, WatchedProcess
from aurora_router_aws import sdk

from .conftest import SECRET_KEY, verify

EPOCH = 1_800_000_000.0
PATIENT = "aurora_hang_grace=20 aurora_ping_timeout=5"
"""The monitor looks at each session every few seconds: the day takes seconds so, and not minutes."""
ARN = "arn:aws:secretsmanager:eu-test-1:123456789012:secret:orders-AbCdEf"


class Tokens:
    """A server that accepts IAM tokens."""

    options = "user=seller aurora_credentials=iam"

    def __init__(self, world) -> None:
        self.world, self.last = world, {}

    def accepts(self, target, params):
        said = verify(params["password"], SECRET_KEY)
        age = self.world.time() - timegm(strptime(said["X-Amz-Date"], "%Y%m%dT%H%M%SZ"))
        right = (said["host"], said["region"], said["DBUser"]) == (f"{target.host}:5432", "eu-test-1", "seller")
        self.world.counts["tokens"] += self.last.get(target.host) != params["password"]
        self.last[target.host] = params["password"]
        return right and -1.0 <= age <= 900.0

    def hour(self):
        """No AWS credentials for two minutes of each hour: less than is left of a token when it is renewed."""
        self.world.simulation.at(self.world.simulation.now + 1200.0, lambda: self.world.set_away(True))
        self.world.simulation.at(self.world.simulation.now + 1320.0, lambda: self.world.set_away(False))


class Secrets:
    """A server with a password that rotates, and Secrets Manager, which follows a while later."""

    options = f"user=other aurora_credentials=secret aurora_secret={ARN}"

    def __init__(self, world) -> None:
        self.world, self.wanted, self.current, self.pending = world, 1, 1, None

    def accepts(self, target, params):
        return (params["user"], params["password"]) == ("seller", f"word {self.wanted}")

    def get_secret_value(self, *, SecretId, VersionStage):  # noqa: N803 - as in boto3
        assert SecretId == ARN
        number = self.current if VersionStage == "AWSCURRENT" else self.pending
        self.world.counts[VersionStage] += 1
        if self.world.away or number is None:
            code = "InternalServiceError" if self.world.away else "ResourceNotFoundException"
            raise ClientError({"Error": {"Code": code, "Message": "not now"}}, "GetSecretValue")
        return {"SecretString": json.dumps({"username": "seller", "password": f"word {number}"})}

    def hour(self):
        """A rotation, whose window is open for a second to two minutes; an outage of half an hour after it."""
        now, rng, at = self.world.simulation.now, self.world.rng, self.world.simulation.at
        start, window = now + rng.uniform(60.0, 600.0), rng.uniform(1.0, 120.0)
        at(start, self.begin)
        at(start + window, self.end)
        # What was read after the rotation counts through an outage: the next rotation is later.
        at(now + 1800.0, lambda: self.world.set_away(True))
        at(now + 3500.0, lambda: self.world.set_away(False))

    def begin(self):
        self.pending = self.wanted = self.current + 1

    def end(self):
        self.current, self.pending = self.pending, None


class World:
    """A cluster in which something fails every few minutes, and clients that come and go, or are quiet for hours."""

    def __init__(self, seed, kind, hours, monkeypatch) -> None:
        self.seconds = hours * 3600.0
        self.rng, self.simulation = random.Random(seed), Simulation(seed=seed)
        self.network, self.counts, self.errors, self.away = Network(self.simulation), Counter(), [], False
        self.cluster = SimulatedCluster(self.network, readers=2)
        self.process, self.server = WatchedProcess(self.network), kind(self)
        self.conninfo = f"{self.cluster.conninfo('writer')} {kind.options} {PATIENT}"
        monkeypatch.setattr(credentials, "_by_provider", {})
        monkeypatch.setattr(credentials.time, "time", self.time)
        monkeypatch.setattr(credentials.native, "run_in_background", self.in_background)
        monkeypatch.setattr(sdk, "find_client", lambda *_: self.server)
        self.provider = read_connect_args(self.conninfo, {}).params.provider
        for runtime in (self.process.runtime, self.process.monitor_runtime):
            runtime.dial = self.logging_in(runtime.dial)

    def time(self):
        return EPOCH + self.simulation.now

    def set_away(self, away):
        self.away = away

    def in_background(self, function, name):
        """Run it at once: a login that waits for a thread would stop the one thread that there is here."""
        function()

    def logging_in(self, dial):
        """What dials, and then is asked for a password; one round trip for each, as with a real server."""
        params = read_connect_args(self.conninfo, {}).params

        async def dial_and_log_in(target, seconds):
            connection = await dial(target, seconds)

            def log_in(target, seconds, login):
                self.counts["logins"] += 1
                if not self.server.accepts(target, {**params, **login}):
                    self.counts["rejected"] += 1
                    raise psycopg.OperationalError('FATAL:  password authentication failed for user "seller"')

            try:
                credential_dial.make_dial(log_in, self.provider, params)(target, seconds)
            except psycopg.OperationalError as error:
                connection.close()
                raise DialFailed(fault_of(error), error) from error
            return connection

        return dial_and_log_in

    async def client(self, quiet):
        while self.simulation.now < self.seconds:
            try:
                role = self.rng.choice(["writer", "reader"])
                connection = await self.process.connect(self.conninfo, aurora_role=role)
            except aurora_router.NoInstanceAvailable:
                self.counts["unavailable"] += 1
            except (psycopg.Error, DialFailed) as error:
                self.errors.append((self.simulation.now, repr(error)))
            else:
                self.counts["connects"] += 1
                await self.simulation.sleep(self.rng.uniform(1.0, 300.0))
                connection.close()
            await self.simulation.sleep(self.rng.uniform(0.0, 2.0 * quiet))

    async def holder(self):
        """One session that stays, as a pool's does: the monitor looks after the cluster, though nothing connects."""
        while self.simulation.now < self.seconds:
            try:
                connection = await self.process.connect(self.conninfo)
            except aurora_router.NoInstanceAvailable:
                continue
            except (psycopg.Error, DialFailed) as error:
                self.errors.append((self.simulation.now, repr(error)))
                await self.simulation.sleep(5.0)
                continue
            while not connection.broken and self.simulation.now < self.seconds:
                await self.simulation.sleep(5.0)
            connection.close()

    async def faults(self):
        while self.simulation.now < self.seconds:
            await self.simulation.sleep(self.rng.uniform(120.0, 900.0))
            cluster, well = self.cluster, [each for each in self.cluster.readers if each.condition is Condition.WELL]
            what = self.rng.choice(["failover", "crash the writer", "restart", "hang"])
            self.counts[what] += 1
            if what == "restart" or not well:
                cluster.restart(self.rng.choice(list(cluster.instances)), self.rng.uniform(1.0, 10.0))
            elif what == "failover":
                cluster.failover(self.rng.choice(well).id)
            else:
                lost = cluster.writer.id
                (cluster.crash if what.startswith("crash") else cluster.hang)(lost)
                await self.simulation.sleep(self.rng.uniform(1.0, 20.0))
                cluster.failover(self.rng.choice(well).id)
                await self.simulation.sleep(self.rng.uniform(1.0, 60.0))
                cluster.heal(lost)

    async def keeping(self):
        """What the monitor's thread does: credentials are renewed though nothing connects."""
        while self.simulation.now < self.seconds:
            await self.simulation.sleep(RENEWAL_SECONDS)
            credentials.cache_of(self.provider).renew_due()

    async def hours(self):
        while self.simulation.now < self.seconds:
            self.server.hour()
            await self.simulation.sleep(3600.0)

    def run(self):
        async def day():
            tasks = [self.client(quiet) for quiet in (20.0, 120.0, 1800.0, 7200.0)]
            tasks += [self.holder(), self.faults(), self.keeping(), self.hours()]
            for task in [self.simulation.spawn(each) for each in tasks]:
                await task.wait()

        with self.simulation:
            self.simulation.run(day())


def make_virtual(monkeypatch):
    """Give botocore the clock of the last `World` in the returned list, and no credentials while AWS is away."""
    import botocore.auth

    worlds = []

    def now(*_, **__):
        return dt.datetime.fromtimestamp(worlds[-1].time(), dt.timezone.utc).replace(tzinfo=None)

    def find_keys(profile, hook=None):
        if worlds[-1].away:
            raise ClientError({"Error": {"Code": "InternalServiceError", "Message": "not now"}}, "AssumeRole")
        return original(profile, hook)

    original = sdk.find_keys
    sdk.run("start", lambda: None)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", now)
    monkeypatch.setattr(sdk, "find_keys", find_keys)
    return worlds
