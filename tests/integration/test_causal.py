"""Read-your-writes on a real cluster whose readers replay each commit 20 ms late, through failovers."""

from __future__ import annotations

import psycopg
import pytest

import aurora_router
from aurora_router import CausalToken, CausalTokenRejected
from aurora_router.flow import causal_sql, commit_sql
from aurora_router.model.causal_token import LogPosition, WitnessRow
from benchmarks.causal import lagging_cluster, run_pairs, wait_for_grant
from tests.superuser import run_as_superuser

pytestmark = pytest.mark.cluster

PAIRS = 300


@pytest.fixture(scope="module")
def cluster():
    with lagging_cluster("20 ms") as cluster:
        yield cluster


@pytest.fixture
def router(cluster):
    return aurora_router.Router(cluster.conninfo())


@pytest.fixture
def witness(cluster):
    run_as_superuser(cluster, commit_sql.INSTALL)
    yield
    run_as_superuser(cluster, commit_sql.UNINSTALL)


@pytest.fixture
def unprivileged(cluster):
    """The user may not see the timeline on readers."""
    run_as_superuser(cluster, "REVOKE pg_read_all_stats FROM app")
    yield
    run_as_superuser(cluster, "GRANT pg_read_all_stats TO app")
    wait_for_grant(cluster)


def insert(conn):
    conn.execute("INSERT INTO public.pairs VALUES (-1, 0) ON CONFLICT DO NOTHING")


def test_no_read_with_a_token_is_stale_whatever_happens_to_the_writer(cluster):
    found = run_pairs(cluster, PAIRS, tokens=True, failovers=2)
    assert found.failed == []
    assert found.stale == 0
    assert found.pairs == PAIRS
    assert found.reader_share > 0.5, found.served


def test_nor_with_witness_rows(cluster, witness):
    found = run_pairs(cluster, PAIRS // 5, tokens=True, failovers=1, method="witness")
    assert found.failed == []
    assert found.stale == 0
    assert found.reader_share > 0.5, found.served


def test_without_tokens_reads_are_stale(cluster):
    """The two tests above can fail."""
    assert run_pairs(cluster, PAIRS // 5, tokens=False).stale > 0


def test_a_transaction_gives_its_token(router):
    tokens = []
    assert router.run_transaction(lambda conn: insert(conn) or "done", on_causal=tokens.append) == "done"
    assert [type(each.proof) for each in tokens] == [LogPosition]
    with router.connect(role="reader", after=tokens[0]) as reader:
        assert reader.execute("SELECT count(*) FROM public.pairs WHERE client = -1").fetchone() == (1,)


def test_a_witness_row_of_a_transaction_is_its_token(cluster, witness):
    router = aurora_router.Router(cluster.conninfo(aurora_outcome="witness"))
    commits, tokens = [], []
    router.run_transaction(insert, on_token=commits.append, on_causal=tokens.append)
    assert [each.proof.id for each in tokens] == [commits[-1].witness]


async def test_on_asyncio(cluster):
    router = aurora_router.AsyncRouter(cluster.conninfo())
    tokens = []

    async def work(conn):
        await conn.execute("INSERT INTO public.pairs VALUES (-1, 0) ON CONFLICT DO NOTHING")

    await router.run_transaction(work, on_causal=tokens.append)
    async with await router.connect(role="reader", after=tokens[0]) as reader:
        assert await reader.has_replayed(tokens[0])
    async with await router.connect(role="writer") as writer:
        token = await writer.causal_token()
        await writer.execute("SELECT 1")
        with pytest.raises(psycopg.ProgrammingError, match="commit or roll back"):
            await writer.causal_token()
    async with await router.connect(role="reader") as reader:
        assert await reader.has_replayed(token, timeout=30)


def test_no_token_is_given_for_what_did_not_commit(router):
    tokens = []

    def fail(conn):
        insert(conn)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        router.run_transaction(fail, on_causal=tokens.append)
    router.run_transaction(lambda conn: conn.execute("SELECT 1"), read_only=True, on_causal=tokens.append)
    assert tokens == []


def test_a_function_that_fails_after_the_commit_leaves_its_outcome_unknown(router):
    def fail(token):
        raise RuntimeError("no place for it")

    with pytest.raises(aurora_router.CommitOutcomeUnknown, match=r"is committed.*no place for it") as caught:
        router.run_transaction(insert, on_causal=fail)
    assert router.outcome_of(caught.value) is aurora_router.Outcome.COMMITTED


def test_between_transactions_alone(router):
    with router.connect(role="writer") as writer:
        token = writer.causal_token()
        writer.execute("SELECT 1")
        for ask in (writer.causal_token, lambda: writer.has_replayed(token)):
            with pytest.raises(psycopg.ProgrammingError, match="commit or roll back"):
                ask()
        writer.rollback()
        assert writer.has_replayed(token)
    with pytest.raises(psycopg.OperationalError, match="closed"):
        writer.causal_token()


def test_a_reader_gives_a_token_of_what_it_has_shown(router):
    """Reads that never go back: the next reader has replayed at least as much."""
    with router.connect(role="reader") as reader:
        token = reader.causal_token()
    with router.connect(role="writer") as writer:
        assert writer.has_replayed(token)


def test_a_user_who_may_not_see_timelines_gets_a_witness_row(router, witness, unprivileged):
    with router.connect(role="writer") as writer:
        token = writer.causal_token()
    assert isinstance(token.proof, WitnessRow)
    with router.connect(role="reader", after=token) as reader:
        assert reader.has_replayed(token)


def test_or_hears_what_to_do(router, cluster, unprivileged, monkeypatch):
    """And that is found out once: what a database lacks is remembered for a while."""
    asked, write_witness = [], causal_sql.write_witness

    def write(id_, *, system):
        asked.append(id_)
        return write_witness(id_, system=system)

    monkeypatch.setattr(causal_sql, "write_witness", write)
    of_its_own = cluster.conninfo(application_name="unprivileged")
    for _ in range(3):
        with aurora_router.connect(of_its_own) as writer:
            with pytest.raises(aurora_router.InvalidOption, match=r"GRANT pg_read_all_stats"):
                writer.causal_token()
            assert writer.execute("SELECT 1").fetchone() == (1,), "the connection is as it was"
    assert len(asked) == 1
    with aurora_router.connect(cluster.conninfo(aurora_causal="log")) as writer:
        token = writer.causal_token()
    with router.connect(role="reader", after=token, autocommit=True) as conn:
        if conn.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):  # the REVOKE was not replayed yet
            assert conn.has_replayed(token)


def test_a_server_that_does_not_report_its_system_identifier_is_asked_for_it_once(cluster, witness, monkeypatch):
    sent, write_witness = [], causal_sql.write_witness

    def write(id_, *, system):
        sent.append(system)
        return write_witness(id_, system=system)

    monkeypatch.setattr(causal_sql, "write_witness", write)
    run_as_superuser(cluster, "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    try:
        with aurora_router.connect(cluster.conninfo(aurora_causal="witness")) as writer:
            tokens = [writer.causal_token() for _ in range(2)]
            assert writer.has_replayed(tokens[-1])
    finally:
        run_as_superuser(cluster, "GRANT EXECUTE ON FUNCTION pg_control_system() TO public")
    assert sent == [True, False, False]
    assert [each.proof.table.system for each in tokens] == [None, None]


def test_tokens_that_the_writer_contradicts(router):
    with router.connect(role="writer") as writer:
        token = writer.causal_token()
    system, timeline, lsn = token.proof.system, token.proof.timeline, token.proof.lsn
    for forged, why in (
        (LogPosition("1", timeline, lsn), "another cluster"),
        (LogPosition(system, timeline, lsn + 2**40), "has not reached"),
        (LogPosition(system, timeline + 1, 1), "was replaced"),
    ):
        with pytest.raises(CausalTokenRejected, match=why):
            router.connect(role="reader", after=CausalToken(forged))
    with router.connect(role="reader", after=CausalToken.parse(str(token))) as reader:
        assert reader.has_replayed(token)


def test_durable_lsns_by_option_alone(cluster):
    """The reference cluster keeps what the option assumes: its readers show what they have replayed."""
    found = run_pairs(cluster, PAIRS // 5, tokens=True, method="durable_lsn")
    assert (found.failed, found.stale) == ([], 0)
    assert found.reader_share > 0.5, found.served
    with aurora_router.connect(cluster.conninfo(aurora_causal="durable_lsn")) as writer:
        token = writer.causal_token()
    with pytest.raises(CausalTokenRejected, match="aurora_causal=durable_lsn"):
        aurora_router.connect(cluster.conninfo("reader"), after=token)
    reader = aurora_router.connect(cluster.conninfo("reader"))
    with reader, pytest.raises(CausalTokenRejected, match="aurora_causal=durable_lsn"):
        reader.has_replayed(token)
