"""Django, once in a process, with the settings that the documentation shows, on a cluster of its own."""

from __future__ import annotations

import re
import secrets
from copy import deepcopy
from pathlib import Path

import pytest

from benchmarks.causal import wait_for_grant
from tests.superuser import run_as_superuser

PAGE = Path(__file__).parents[2] / "docs" / "howto-django.md"


@pytest.fixture(scope="session")
def documented():
    """What the page's examples define: `DATABASES`, with a pool in the end, and the routers."""
    first, *rest = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    namespace = {}
    exec(first, namespace)
    databases = deepcopy(namespace["DATABASES"])
    for each in rest:
        exec(each, namespace)
    return {**databases, "pooled": namespace["DATABASES"]["default"]}, namespace["DATABASE_ROUTERS"]


@pytest.fixture(scope="session")
def cluster():
    """Fails over on request; a test that breaks it repairs it."""
    from aurora_router_cluster import LocalCluster

    with LocalCluster.start(readers=2, auto=False) as cluster:
        run_as_superuser(cluster, "GRANT pg_read_all_stats TO app")
        wait_for_grant(cluster)
        yield cluster


@pytest.fixture(scope="session")
def configured(documented, cluster):
    """The aliases, once the app is migrated; they are for the thread of the tests."""
    import django
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connections

    databases, routers = documented
    for each in databases.values():
        target = "reader" if "cluster-ro-" in each["HOST"] else "writer"
        each |= {"HOST": cluster.endpoint(target), "PORT": cluster.port, "NAME": cluster.dbname}
        each |= {"USER": cluster.user, "PASSWORD": cluster.password}
        each["OPTIONS"] = {**each.get("OPTIONS", {}), "aurora_dns": cluster.dns}
    settings.configure(DATABASES=databases, DATABASE_ROUTERS=routers, INSTALLED_APPS=["tests.django.shop"], USE_TZ=True)
    django.setup()
    call_command("migrate", verbosity=0)
    yield connections
    connections.close_all()


@pytest.fixture
def default(configured):
    """The connection to the writer, idle."""
    configured["default"].close()
    yield configured["default"]
    configured["default"].close()


@pytest.fixture
def items(configured):
    """The model, with an empty table."""
    from tests.django.shop.models import Item

    yield Item
    Item.objects.using("default").all().delete()


@pytest.fixture
def wrapper(configured):
    """Makes further connections like those of an alias, with other settings, under a name of their own."""
    made = []

    def make(alias="default", options=None, **changed):
        like = deepcopy(configured[alias].settings_dict)
        like["OPTIONS"] = {**like["OPTIONS"], **(options or {})}
        one = type(configured[alias])({**like, **changed}, f"{alias}-{secrets.token_hex(4)}")
        made.append(one)
        return one

    yield make
    for each in made:
        each.close()
        if each.alias in getattr(each, "_connection_pools", {}):
            each.close_pool()
