"""Forms of the URL: what the stock dialect takes, and our options."""

from __future__ import annotations

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy import exc

import aurora_router

STOCK = "postgresql+psycopg"
OURS = "postgresql+aurora"

FORMS = [
    "://app:app@db.example:5433/app",
    "://",
    ":///app",
    "://app@/app?host=/var/run/postgresql",
    "://app@/app?host=a:1&host=b:2",
    "://app@/app?host=a,b&port=1,2",
    "://app@/app?host=a&host=b",
    "://app@[::1]:5433/app",
    "://us%40er:p%2Fw%3A%20d@db.example/a%20b",
    "://db.example/app?sslmode=require&application_name=a%26b&options=-c%20work_mem%3D1MB",
]


def read(url):
    dialect = sa.make_url(url).get_dialect()()
    return dialect.create_connect_args(sa.make_url(url))


@pytest.mark.parametrize("form", FORMS)
def test_a_url_reads_as_with_the_stock_dialect(form):
    assert read(OURS + form) == read(STOCK + form)


def test_our_options_stay_text_and_percent_decoded():
    _, parameters = read(f"{OURS}://db/app?aurora_role=reader&aurora_instance_host=%7Bid%7D.db.internal%3A5433")
    assert parameters["aurora_role"] == "reader"
    assert parameters["aurora_instance_host"] == "{id}.db.internal:5433"


def connected(engine):
    with engine.connect() as connection:
        return connection.exec_driver_sql("select current_user, current_database()").one()


@pytest.mark.cluster
def test_several_hosts(kind):
    cluster = kind.cluster
    hosts = [cluster.address("writer"), *(cluster.instance(each).host for each in cluster.readers)]
    query = "&".join(f"host={host}:{cluster.port}" for host in hosts)
    url = f"{kind.url().partition('://')[0]}://app:app@/app?{query}&target_session_attrs=read-write"

    def check(engine):
        assert connected(engine) == ("app", "app")
        with engine.connect() as connection:
            assert connection.connection.driver_connection.info.hostaddr == hosts[0]

    kind.run(check, url)
    kind.run(check, url.replace(query, "&".join(reversed(query.split("&")))))


@pytest.mark.cluster
def test_unix_socket(kind):
    status = kind.cluster.instance(kind.cluster.writer)
    scheme = kind.url().partition("://")[0]
    url = f"{scheme}://app:app@/app?host={status.socket_directory}&port={status.port}"

    def check(engine):
        assert connected(engine) == ("app", "app")
        with engine.connect() as connection:
            assert connection.connection.driver_connection.info.host == status.socket_directory

    kind.run(check, url)


@pytest.mark.cluster
def test_no_host_is_the_environments(kind, monkeypatch):
    monkeypatch.setenv("PGHOST", kind.cluster.address())
    monkeypatch.setenv("PGPORT", str(kind.cluster.port))
    monkeypatch.setenv("PGUSER", "app")
    monkeypatch.setenv("PGPASSWORD", "app")
    scheme = kind.url().partition("://")[0]
    assert kind.run(connected, f"{scheme}:///app") == ("app", "app")


@pytest.mark.cluster
def test_connect_args_win_over_the_url(kind):
    def check(engine):
        with engine.connect() as connection:
            return connection.exec_driver_sql("show application_name").scalar_one()

    url = kind.url(application_name="of the url")
    assert kind.run(check, url, connect_args={"application_name": "of the args"}) == "of the args"


@pytest.mark.cluster
def test_our_options_in_connect_args(ours):
    def check(engine):
        with engine.connect() as connection:
            return connection.exec_driver_sql("select pg_is_in_recovery()").scalar_one()

    assert ours.run(check, ours.url("writer"), connect_args={"aurora_role": "reader"}) is True
    assert ours.run(check, ours.url("reader", aurora_role="writer")) is False


BAD = [
    ({"aurora_rol": "reader"}, "unknown option aurora_rol: did you mean aurora_role?"),
    ({"aurora_max_lag": "-1"}, "aurora_max_lag='-1'"),
    ({"aurora_balance": "best"}, "aurora_balance='best'"),
]


@pytest.mark.cluster
@pytest.mark.parametrize(("query", "message"), BAD, ids=lambda each: next(iter(each)) if isinstance(each, dict) else "")
def test_a_bad_option_comes_out_as_it_is(ours, query, message):
    with pytest.raises(aurora_router.InvalidOption, match=r"^" + message.replace("?", r"\?")):
        ours.run(connected, ours.url("writer", **query))
    with pytest.raises(aurora_router.InvalidOption, match=r"^" + message.replace("?", r"\?")):
        ours.run(connected, ours.url("writer"), connect_args=query)


@pytest.mark.cluster
def test_an_option_given_twice_is_refused_by_name(ours):
    with pytest.raises(aurora_router.InvalidOption, match="aurora_role"):
        ours.run(connected, ours.url("writer", aurora_role="reader") + "&aurora_role=writer")


@pytest.mark.cluster
def test_a_wrong_password_is_reported_as_ever(kind):
    url = kind.url().replace("://app:app@", "://app:wrong@")
    with pytest.raises(exc.OperationalError, match='password authentication failed for user "app"') as caught:
        kind.run(connected, url)
    assert type(caught.value.orig) is psycopg.OperationalError


@pytest.mark.cluster
def test_nobody_listening_on_ipv6_or_any_of_several_hosts(ours):
    scheme = ours.url().partition("://")[0]
    for where in ("[::1]:1/app?", "/app?host=127.0.0.1:1&host=127.0.0.1:2&"):
        with pytest.raises(exc.OperationalError) as caught:
            ours.run(connected, f"{scheme}://app@{where}aurora_connect_timeout=0.3&aurora_failover_timeout=0.3")
        assert isinstance(caught.value.orig, aurora_router.NoInstanceAvailable)
        assert caught.value.orig.attempts
