"""A password stays where it was given: no log record, event, error, repr or child's arguments repeat it."""

from __future__ import annotations

import logging
import traceback

import psycopg
import pytest
import sqlalchemy

import aurora_router
from aurora_router_cluster import LocalCluster
from tests.superuser import run_as_superuser

pytestmark = [pytest.mark.cluster, pytest.mark.one_python]

USER = "keeper"
SECRET = "Zq7-not-to-be-seen-4x"


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster.start(readers=1) as cluster:
        run_as_superuser(cluster, f"CREATE ROLE {USER} LOGIN PASSWORD '{SECRET}'")
        yield cluster


def without_password(cluster, **options):
    given = dict(each.split("=", 1) for each in cluster.conninfo("writer", user=USER).split())
    del given["password"]
    return {**given, **options}


def as_keyword(cluster, monkeypatch, directory, secret):
    return aurora_router.connect(**without_password(cluster, password=secret))


def in_the_url(cluster, monkeypatch, directory, secret):
    options = without_password(cluster)
    host, port, name = options.pop("host"), options.pop("port"), options.pop("dbname")
    options.pop("user")
    query = "&".join(f"{key}={value}" for key, value in options.items())
    return aurora_router.connect(f"postgresql://{USER}:{secret}@{host}:{port}/{name}?{query}")


def in_the_environment(cluster, monkeypatch, directory, secret):
    monkeypatch.setenv("PGPASSWORD", secret)
    return aurora_router.connect(**without_password(cluster))


def in_a_password_file(cluster, monkeypatch, directory, secret):
    path = directory / "passwords"
    path.write_text(f"*:*:*:{USER}:{secret}\n")
    path.chmod(0o600)
    return aurora_router.connect(**without_password(cluster, passfile=str(path)))


def in_a_service_file(cluster, monkeypatch, directory, secret):
    options = without_password(cluster, password=secret)
    ours = {key: options.pop(key) for key in list(options) if key.startswith("aurora_")}
    path = directory / "services"
    path.write_text("[orders]\n" + "".join(f"{key}={value}\n" for key, value in options.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(path))
    return aurora_router.connect("service=orders", **ours)


def by_sqlalchemy(cluster, monkeypatch, directory, secret):
    options = without_password(cluster)
    url = sqlalchemy.URL.create(
        "postgresql+aurora",
        username=USER,
        password=secret,
        host=options.pop("host"),
        port=int(options.pop("port")),
        database=options.pop("dbname"),
    )
    options.pop("user")
    engine = sqlalchemy.create_engine(url, connect_args=options, poolclass=sqlalchemy.NullPool, echo="debug")
    assert SECRET not in repr(engine)
    return engine.raw_connection()


WAYS = [as_keyword, in_the_url, in_the_environment, in_a_password_file, in_a_service_file, by_sqlalchemy]


def shown(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)) + repr(error)


@pytest.mark.parametrize("way", WAYS)
def test_no_output_repeats_a_password(way, cluster, monkeypatch, tmp_path, caplog):
    said: list[str] = []
    unsubscribe = aurora_router.subscribe(lambda name, event: said.append(f"{name} {event!r} {event}"))
    try:
        with caplog.at_level(logging.DEBUG):
            right = way(cluster, monkeypatch, tmp_path, SECRET)
            try:
                said.append(repr(right) + repr(getattr(right, "placement", "")))
                with pytest.raises((psycopg.Error, sqlalchemy.exc.SQLAlchemyError)) as refused:
                    way(cluster, monkeypatch, tmp_path, SECRET + "-wrong")
                said.append(shown(refused.value))
                cluster.kill(cluster.writer)
                with pytest.raises(psycopg.OperationalError) as lost:
                    right.cursor().execute("SELECT pg_sleep(60)")
                said.append(shown(lost.value))
                again = way(cluster, monkeypatch, tmp_path, SECRET)
                again.cursor().execute("SELECT 1")
                again.close()
            finally:
                right.close()
        said += [f"{record.getMessage()} {record.args} {record.__dict__}" for record in caplog.records]
    finally:
        unsubscribe()
    assert caplog.records
    assert len(said) > len(caplog.records)
    assert [each for each in said if SECRET in each] == []
