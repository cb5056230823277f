"""Running the doctor, and the clusters that it examines."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import threading
from pathlib import Path

import psycopg
import pytest

from aurora_router.cli.main import main
from aurora_router.runtime import dns
from aurora_router.runtime.registry import REGISTRY

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


@pytest.fixture(autouse=True)
def nothing_known():
    REGISTRY.reset()
    dns.forget()


@pytest.fixture
def examine(capsys):
    """Run ``aurora-router doctor``: returns the exit status, and the findings by their codes."""

    def examine(conninfo, *words):
        capsys.readouterr()
        status = main(["doctor", "--json", conninfo, *words])
        report = json.loads(capsys.readouterr().out)
        return status, {each["code"]: each for each in report["findings"]}

    return examine


def make_database(cluster, *statements):
    """Another database of the cluster, changed by its superuser; returns how to connect to it."""
    name = f"d{secrets.token_hex(4)}"
    writer = cluster.instance(cluster.writer)
    keys = {"host": writer.socket_directory, "port": writer.port, "user": "postgres", "autocommit": True}
    with psycopg.connect(**keys) as conn:
        conn.execute(f"CREATE DATABASE {name} OWNER {cluster.user}")
    with psycopg.connect(**keys, dbname=name) as conn:
        for each in statements:
            conn.execute(each)
    wait_for_readers(cluster)
    return {"dbname": name, "aurora_cluster": name}


def make_plain(cluster):
    """A database in which the servers are plain PostgreSQL."""
    return make_database(cluster, "DROP FUNCTION aurora_replica_status", "DROP FUNCTION aurora_db_instance_identifier")


def wait_for_readers(cluster):
    """Wait until the readers have replayed what is committed."""
    from tests.superuser import connect_as_superuser

    with connect_as_superuser(cluster) as writer:
        (position,) = writer.execute("SELECT pg_current_wal_insert_lsn()::text").fetchone()
    for name in cluster.readers:
        with connect_as_superuser(cluster, name) as reader:
            for _ in range(3000):
                if reader.execute("SELECT pg_last_wal_replay_lsn() >= %s", [position]).fetchone() == (True,):
                    break
                threading.Event().wait(0.01)
            else:
                raise AssertionError(f"{name} never replayed {position}")


def make_role(cluster, *statements):
    """Another user, changed by the superuser; returns how to log in."""
    from tests.superuser import run_as_superuser

    name = f"r{secrets.token_hex(4)}"
    run_as_superuser(cluster, f"CREATE ROLE {name} LOGIN PASSWORD 'word'")
    for each in statements:
        run_as_superuser(cluster, each.format(role=name))
    wait_for_readers(cluster)
    return {"user": name, "password": "word"}


@contextlib.contextmanager
def listening(answer=None):
    """A server that is none of PostgreSQL: it answers everything in the same way; None: not at all."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as accepted:

        def serve():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                accepted.enter_context(connection)
                if answer is not None:
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            done.set()
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]
