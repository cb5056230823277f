"""Failovers of real MariaDB servers under clients that write: nothing lost, nothing doubled."""

from __future__ import annotations

import threading
import time

import pymysql
import pytest

import aurora_router_mysql
from aurora_router.model.event import WriterChanged
from aurora_router_cluster import LocalCluster

pytestmark = pytest.mark.cluster


class Client(threading.Thread):
    """Writes numbers of its own, each once, until it is stopped; remembers which were acknowledged."""

    def __init__(self, keywords, number):
        super().__init__(daemon=True)
        self.keywords = keywords
        self.number = number
        self.acknowledged, self.sent, self.errors = [], 0, []
        self.stopping = threading.Event()

    def run(self):
        while not self.stopping.is_set():
            try:
                connection = aurora_router_mysql.connect(**self.keywords)
            except pymysql.err.MySQLError as error:
                self.errors.append(error)
                continue
            try:
                with connection.cursor() as cursor:
                    while not self.stopping.is_set():
                        self.sent += 1
                        cursor.execute("insert into ledger values (%s, %s)", (self.number, self.sent))
                        self.acknowledged.append(self.sent)
            except pymysql.err.MySQLError as error:
                self.errors.append(error)
            finally:
                if not connection._closed:
                    connection.close()


@pytest.fixture
def ledger(whole, make):
    with make().cursor() as cursor:
        cursor.execute("create or replace table ledger (client int, n int)")  # no key: a doubled one would show
    keywords = whole.mysql_keywords(ssl_disabled=True, autocommit=True)
    clients = [Client(keywords, number) for number in range(3)]
    for each in clients:
        each.start()
    yield clients
    for each in clients:
        each.stopping.set()
        each.join(60)


def settle(clients, make):
    for each in clients:
        each.stopping.set()
        each.join(60)
        assert not each.is_alive()
    with make().cursor() as cursor:
        cursor.execute("select client, n from ledger")
        rows = cursor.fetchall()
    assert len(rows) == len(set(rows)), "a write is there twice"
    missing = {(each.number, n) for each in clients for n in each.acknowledged} - set(rows)
    assert not missing, f"{len(missing)} acknowledged writes are lost"
    assert sum(len(each.acknowledged) for each in clients) > 20


def kill(cluster):
    cluster.kill(cluster.writer)


def hang(cluster):
    cluster.freeze(cluster.writer)


def plan(cluster):
    cluster.failover()


@pytest.mark.parametrize("way", [kill, hang, plan], ids=lambda way: way.__name__)
def test_a_failover_loses_and_doubles_nothing(whole, make, ledger, events, eventually, way):
    before = whole.writer
    eventually(lambda: all(each.acknowledged for each in ledger))
    way(whole)
    eventually(lambda: whole.writer != before)
    counts = [len(each.acknowledged) for each in ledger]
    eventually(lambda: all(len(each.acknowledged) > had + 5 for each, had in zip(ledger, counts, strict=True)))
    settle(ledger, make)
    assert make().placement.instance == whole.writer
    assert any(isinstance(each, WriterChanged) and each.new == whole.writer for each in events)
    eventually(lambda: whole.instance(before).state == "available")
    assert whole.instance(before).role == "reader"


def test_a_failover_back_and_forth(whole, make):
    first = whole.writer
    connection = make()
    for target in whole.readers:
        done = whole.failover(target)
        assert (done.writer, done.planned) == (target, True)
        assert make().placement.instance == target
    whole.failover(first)
    assert make().placement.instance == first
    with pytest.raises(pymysql.err.MySQLError), connection.cursor() as cursor:
        cursor.execute("select 1")


def has_all(cluster, reader):
    """Whether a reader has received all that the writer has acknowledged, and is waited for: it may replace it."""
    at = {each.name: each.lsn for each in cluster.instances}
    return reader in cluster.status().volume["holders"] and at[reader] == at[cluster.writer]


def test_a_former_writer_is_the_writer_again_while_its_successor_is_down(mariadb, eventually):
    """It is the only instance that answers, and was not asked between its restart and its promotion."""
    with LocalCluster.start(engine="mysql", readers=1) as pair:
        keywords = pair.mysql_keywords(ssl_disabled=True, aurora_failover_timeout=20)
        first, second = pair.writer, pair.readers[0]
        connection = aurora_router_mysql.connect(**keywords)
        pair.kill(first)
        eventually(lambda: pair.writer == second)
        with pytest.raises(pymysql.err.MySQLError), connection.cursor() as cursor:
            cursor.execute("select 1")
        aurora_router_mysql.connect(**keywords).close()
        eventually(lambda: has_all(pair, first))
        pair.kill(second, hold=True)
        eventually(lambda: pair.writer == first)
        again = aurora_router_mysql.connect(**keywords)
        assert again.placement.instance == first
        again.close()


def test_a_restarted_reader_serves_again(whole, make, eventually):
    name = whole.readers[0]
    whole.restart(name)
    assert whole.instance(name).state == "available"
    assert make(aurora_instance=name).placement.instance == name


def test_the_loss_of_a_reader_does_not_stop_the_writer(whole, make, eventually):
    connection = make()
    with connection.cursor() as cursor:
        cursor.execute("create or replace table numbers (i int)")
        whole.kill(whole.readers[0], hold=True)
        began = time.monotonic()
        for number in range(20):
            cursor.execute("insert into numbers values (%s)", (number,))
        assert time.monotonic() - began < 10
