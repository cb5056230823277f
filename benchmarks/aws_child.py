"""A process that does much with tokens and secrets, and prints all that it can: what it prints is searched for them.

Its one argument is JSON: the conninfo for IAM tokens, the name of the cluster, and the options for a secret. The last
thing that it prints are the keys of all tables of the driver that it finds in its own memory.
"""

from __future__ import annotations

import functools
import gc
import json
import logging
import pickle
import sys
import traceback
from typing import Any

import boto3
import psycopg
from moto import mock_aws

import aurora_router
from aurora_router_aws import IamTokens, Secret
from aurora_router_cluster import LocalCluster
from tests.aws.rotation import REGION, ROLE, login, store
from tests.superuser import run_as_superuser

CONTAINERS = (dict, list, tuple, set, frozenset, type(functools.lru_cache(max)))


def say(what: object) -> None:
    """Print something in each of its forms."""
    print(what, repr(what), flush=True)


def fail(what: str, **options: Any) -> None:
    """Print a connect that fails, its error as text, with its traceback, and pickled."""
    try:
        aurora_router.connect(**options).close()
    except psycopg.Error as error:
        say(error)
        traceback.print_exception(error)
        say(pickle.dumps(error))
        say(getattr(error, "__notes__", ()))
    else:
        raise AssertionError(f"{what} did not fail")


def use_tokens(conninfo: str, cluster: LocalCluster) -> None:
    """Connects by IAM token: good ones, refused ones, through a failover."""
    for role in ("writer", "reader"):
        with aurora_router.connect(conninfo, aurora_role=role, aurora_refresh="0.2") as conn:
            say(conn.execute("SELECT current_user").fetchone())
            for each in (conn, conn.placement, conn.info, conn.pgconn):
                say(each)
    router = aurora_router.Router(conninfo)
    for each in (router, router.topology(), router.explain()):
        say(each)
    with router.connect() as conn:
        conn.autocommit = True
        cluster.failover()
        try:
            while True:
                conn.execute("SELECT pg_sleep(0.05)")
        except psycopg.Error as error:
            say(error)
            traceback.print_exception(error)
    with router.connect() as conn:
        say(conn.placement)
    fail("a token for another region", conninfo=conninfo, aurora_aws_region="us-east-1")
    right = IamTokens()
    other = lambda asked: right(asked._replace(user="other"))  # noqa: E731 - a provider of a user's own
    fail("a token for another user", conninfo=conninfo, aurora_credentials=None, credentials=other)
    say(right)


def use_a_secret(cluster: LocalCluster, options: dict[str, Any]) -> None:
    """Connects by a secret: one that is right, one that is wrong, and one that is malformed."""
    with mock_aws():
        logging.getLogger("botocore").setLevel(logging.WARNING)  # of this client alone: the driver's are its own affair
        manager = boto3.client("secretsmanager", region_name=REGION)
        arns = [
            store(manager, text, name) for name, text in (("good", login(1)), ("bad", login(2)), ("no", login(3)[5:]))
        ]
        logging.getLogger("botocore").setLevel(logging.DEBUG)
        run_as_superuser(cluster, f"ALTER ROLE {ROLE} PASSWORD '{json.loads(login(1))['password']}'")
        with aurora_router.connect(**options, aurora_secret=arns[0]) as conn:
            say(conn.execute("SELECT current_user").fetchone())
            say(conn)
        fail("a password that the database rejects", **options, aurora_secret=arns[1])
        fail("a secret that is no JSON", **options, aurora_secret=arns[2])
        say(Secret(arns[0]))


def find_keys() -> list[str]:
    """The keys of all tables that the driver's modules refer to, and what is in their caches of calls, as text."""
    modules = [each for name, each in list(sys.modules.items()) if name.startswith("aurora_router")]
    seen: set[int] = set()
    found: list[str] = []
    waiting: list[Any] = [vars(each) for each in modules if not name_of(each).startswith("aurora_router_cluster")]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            found += [repr(key) for key in each]
        waiting += [
            other
            for other in gc.get_referents(each)
            if isinstance(other, CONTAINERS) or name_of(type(other)).startswith("aurora_router")
        ]
    return found


def name_of(what: Any) -> str:
    """The module that something is from, or is."""
    return str(getattr(what, "__module__", None) or getattr(what, "__name__", ""))


def main() -> None:
    """See the module."""
    logging.basicConfig(level=logging.DEBUG, stream=sys.stdout, format="%(name)s %(message)s %(args)s")
    logging.getLogger("moto").setLevel(logging.WARNING)  # of AWS's side
    asked = json.loads(sys.argv[1])
    cluster = LocalCluster.attach(asked["cluster"])
    aurora_router.subscribe(lambda name, event: say((name, event)))
    use_tokens(asked["conninfo"], cluster)
    use_a_secret(cluster, asked["options"])
    for each in find_keys():
        print("KEY", each)
    print("END", flush=True)
    sys.stdin.read()  # the command lines of all processes are read meanwhile


if __name__ == "__main__":
    main()
