"""Plain MariaDB servers, without Aurora's surface: TLS, the kinds of authentication, a list of hosts."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from types import SimpleNamespace

import pymysql
import pytest
import trustme

import aurora_router_mysql
from aurora_router.flow.runtime import Target
from aurora_router.model.instance import Role
from aurora_router_cluster.mysql import server as server_module
from aurora_router_cluster.mysql.server import Server
from aurora_router_cluster.postgres.account import Account
from aurora_router_cluster.postgres.addresses import Allocator
from aurora_router_mysql.wire import open_session

pytestmark = pytest.mark.cluster
PASSWORD = "s3cret 'word"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    import shutil
    import tempfile
    from pathlib import Path

    directory = Path(tempfile.mkdtemp(prefix="ar-", dir="/dev/shm"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def plain(mariadb, place, authority):
    """One server with TLS that is named ``localhost`` in its certificate, and users of several kinds."""
    certificate = authority.issue_cert("localhost")
    files = {name: place / f"{name}.pem" for name in ("ca", "cert", "key")}
    authority.cert_pem.write_to_path(files["ca"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    certificate.private_key_pem.write_to_path(files["key"])
    for each in files.values():
        each.chmod(0o644)
    account = Account.default()
    own = (f"--ssl-ca={files['ca']}", f"--ssl-cert={files['cert']}", f"--ssl-key={files['key']}")
    address = Allocator(shared=True).take_any(())
    server = Server("plain", place / "plain", mariadb, account, address, 1, "admin")
    server.make_home()
    server.install()

    async def begin():
        await server.start(password=False)
        quoted = PASSWORD.replace("'", "''")
        await server.query(
            "SET GLOBAL read_only = OFF",
            f"CREATE USER native@'%' IDENTIFIED BY '{quoted}'",
            f"CREATE USER tls@'%' IDENTIFIED BY '{quoted}' REQUIRE SSL",
            "CREATE USER empty@'%'",
            "CREATE DATABASE orders",
            *(f"GRANT ALL ON orders.* TO {each}@'%'" for each in ("native", "tls", "empty")),
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_module, "OPTIONS", (*server_module.OPTIONS, *own))
        asyncio.run(begin())
    yield SimpleNamespace(server=server, at=address, ca=str(files["ca"]), socket=str(server.socket))
    server.kill()


def connect(plain, **keywords):
    given = {"host": plain.at.host, "port": plain.at.port, "user": "native", "password": PASSWORD, "database": "orders"}
    return aurora_router_mysql.connect(**{**given, "aurora_failover_timeout": 0, **keywords})


def ask(connection, sql):
    with contextlib.closing(connection), connection.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchall()


CIPHER = "select variable_value <> '' from information_schema.session_status where variable_name = 'Ssl_cipher'"


def test_tls_is_preferred_as_by_pymysql(plain):
    assert ask(connect(plain), CIPHER) == ((1,),)
    assert ask(connect(plain, ssl_disabled=True), CIPHER) == ((0,),)


def test_a_name_is_verified_though_an_address_is_dialled(plain):
    context = ssl.create_default_context(cafile=plain.ca)
    assert ask(connect(plain, host="localhost", ssl=context), CIPHER) == ((1,),)
    with pytest.raises(pymysql.err.OperationalError, match="certificate is not valid for") as other:
        connect(plain, ssl=context)
    assert type(other.value) is pymysql.err.OperationalError


def test_a_foreign_authority_is_refused(plain):
    with pytest.raises(pymysql.err.OperationalError, match="certificate verify failed"):
        connect(plain, ssl=ssl.create_default_context())


def test_a_socket_of_files(plain):
    connection = connect(plain, host=None, unix_socket=plain.socket)
    assert connection.placement.role is Role.WRITER
    assert ask(connection, "select 1") == ((1,),)


@pytest.mark.parametrize("user", ["native", "tls", "empty"])
@pytest.mark.parametrize("tls", [True, False])
async def test_the_monitor_logs_in_as_the_user_does(plain, user, tls):
    password = "" if user == "empty" else PASSWORD
    template = pymysql.connections.Connection(
        user=user, password=password, database="orders", defer_connect=True, ssl_disabled=not tls
    )
    target = Target("plain", "localhost", plain.at.port, (plain.at.host,))
    if user == "tls" and not tls:
        with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
            await open_session(target, template)
        return
    session = await open_session(target, template)
    try:
        assert await session.query("select user(), null, database()") == [(f"{user}@{plain.at.host}", None, "orders")]
        assert await session.query(CIPHER) == [("1" if tls else "0",)]
        assert await session.query("select repeat('x', 70000)") == [("x" * 70000,)]
        assert await session.query("set @a = 1") == []
        with pytest.raises(pymysql.err.ProgrammingError, match="nowhere"):
            await session.query("select * from nowhere")
        assert await session.query("select connection_id()") == [(str(session.thread_id),)]
    finally:
        await session.close()


async def test_the_monitor_is_refused_as_the_user_is(plain):
    template = pymysql.connections.Connection(user="native", password="wrong", defer_connect=True)
    target = Target("plain", None, plain.at.port, (plain.at.host,))
    with pytest.raises(pymysql.err.OperationalError) as denied:
        await open_session(target, template)
    assert denied.value.args[0] == 1045
    with pytest.raises(pymysql.err.OperationalError) as refused:
        await open_session(Target("plain", None, 1, (plain.at.host,)), template)
    assert (refused.value.args[0], type(refused.value.original_exception)) == (2003, ConnectionRefusedError)


async def test_a_session_that_is_killed_says_so(plain):
    template = pymysql.connections.Connection(user="native", password=PASSWORD, defer_connect=True)
    session = await open_session(Target("plain", None, plain.at.port, (plain.at.host,)), template)
    await plain.server.query(f"KILL {session.thread_id}")
    with pytest.raises(pymysql.err.OperationalError, match=r"Lost connection|killed"):
        await session.query("select 1")
    await session.close()


# ---------------------------------------------------------------- lists of hosts


@pytest.fixture(scope="module")
def hosts(cluster):
    """The inner servers of a cluster: plain MariaDB with replication, each at an address of its own."""
    connection = aurora_router_mysql.connect(**cluster.mysql_keywords(ssl_disabled=True, autocommit=True))
    ((port,),) = ask(connection, "select @@port")
    return ",".join(f"{each.host}:{port}" for each in cluster.instances)


def test_a_list_of_plain_servers_refuses_clients_from_outside(hosts):
    """Clients of the reference cluster go through the fronts alone."""
    with pytest.raises(pymysql.err.OperationalError, match=r"Access denied|is not allowed"):
        aurora_router_mysql.connect(
            host=hosts, user="app", password="app", ssl_disabled=True, aurora_failover_timeout=0
        )


def test_a_list_with_a_server_that_is_down(plain):
    began = time.monotonic()
    at = f"127.0.0.1:1,{plain.at.host}:{plain.at.port}"
    connection = connect(plain, host=at, aurora_failover_timeout=5)
    assert connection.placement.instance == f"{plain.at.host}:{plain.at.port}"
    assert connection.placement.role is Role.WRITER
    assert time.monotonic() - began < 5
    source = connection.placement._cluster.source
    assert source is not None
    assert source.name == "mariadb"
    (row,) = [each for each in connection.placement.view.instances.values() if each.role is Role.WRITER]
    assert row.system == "GTID domain 0"
    connection.close()
