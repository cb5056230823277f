"""The pitfalls of a quorum log under PostgreSQL: for each the tests that keep it away.

What no other module shows is tested here; `PITFALLS` names the rest, and a test sees to it that they exist.
"""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import psycopg
import pytest

from aurora_router.policy.outcome import is_unreplicated
from aurora_router_cluster import LocalCluster
from aurora_router_cluster.lsn import parse_lsn
from aurora_router_cluster.postgres import processes

TESTS = Path(__file__).parents[2]

DONOR = "simulation/storage/test_damaged_donor.py"
CORE = "cluster/storage/core"
REAL = "cluster/storage/real/test_losses.py"
PITFALLS = {
    "1. A cancel during the quorum wait looks like success, with a warning": [
        "cluster/storage/test_pitfalls.py::test_a_cancel_during_the_quorum_wait_is_known_by_its_warning",
        "policy/test_outcome.py::test_the_warning_of_a_wait_that_was_cut_short",
    ],
    "2. A crashed writer that restarts in place shows commits that were never acknowledged": [
        "cluster/storage/test_pitfalls.py::test_a_crashed_writer_does_not_restart_in_place",
        "cluster/test_failover.py::test_without_a_reader_the_writer_is_restarted",
    ],
    "3. A standby refuses to start with less than the template had": [
        "cluster/postgres/test_settings.py::test_the_template_asks_for_no_more_than_its_copies",
    ],
    "4. A former writer's files do not fit the new history": [
        "cluster/test_failover.py::test_what_only_the_lost_writer_had_is_rewound",
        "cluster/storage/quorum/test_quorum.py::test_the_former_writer_comes_back_as_a_reader",
    ],
    "5. The log begins on a page that continues a record": [
        "cluster/storage/core/test_wal.py::test_a_stream_may_begin_on_a_page_that_continues_a_record",
        "cluster/postgres/test_template.py::test_the_log_of_a_template_starts_in_its_only_segment",
    ],
    "6. pg_ctl promote polls slowly": ["cluster/postgres/test_engine.py::test_a_standby_follows_and_is_promoted"],
    "7. Gossip up to the VCL never heals a lost write quorum; a base comes from the elected history": [
        f"{REAL}::test_with_three_down_commits_wait_are_seen_nowhere_and_go_through_after_healing",
        "simulation/storage/test_simulation.py::test_every_planted_bug_is_found",
    ],
    "8. A new timeline is shown only when its history file is stored": [
        "cluster/wire/test_walsender.py::test_readers_follow_a_promotion_only_when_its_history_file_is_stored",
        "cluster/wire/test_walsender.py::test_pg_receivewal_streams_through_a_switch_and_stops_in_order",
    ],
    "9. A timeline can be burned by a promotion whose writer was never attached": [
        "cluster/storage/quorum/test_quorum.py::test_a_writer_that_was_promoted_too_early_is_refused",
        "cluster/wire/test_walsender.py::test_readers_pass_a_timeline_that_never_had_a_writer",
        "cluster/storage/core/test_recovery.py::test_timelines_come_from_the_newest_charter",
    ],
    "10. One surviving byte per position and branch": [
        "cluster/storage/core/test_recovery.py::test_histories_agree_below_their_divergence",
        "cluster/storage/core/test_recovery.py::test_nodes_exchange_log_only_in_one_epoch_and_one_history",
        "simulation/storage/test_simulation.py::test_schedules_are_clean",
    ],
    "11. The identity of an instance cannot be a setting, which any user may change": [
        "cluster/postgres/test_template.py::test_an_instance_believes_itself_and_no_other_claim",
        "cluster/postgres/test_template.py::test_a_search_path_trick_does_not_reach_the_functions",
    ],
    "12. Data files that are hard links are modified in place": [
        "cluster/storage/test_pitfalls.py::test_no_file_of_an_instance_or_of_the_storage_is_shared",
    ],
    "13. Without fsync no data directory may be used again after a crash of the machine": [
        "cluster/test_lifetime.py::test_a_name_is_free_again_after_a_kill",
        "cluster/test_lifetime.py::test_a_killed_supervisor_is_cleaned_up_after",
    ],
    "14. Stopping the postmaster alone leaves its sessions answering": [
        "cluster/postgres/test_engine.py::test_a_frozen_instance_answers_nobody_and_thaws",
    ],
    "15. A message of the log that ends inside of a record and of a page breaks a reader's replay": [
        "cluster/wire/test_log_messages.py::test_each_message_ends_with_a_record_or_a_page",
        "cluster/storage/real/test_bulk.py::test_replay_does_not_break_under_a_bulk_load",
    ],
    "16. A copy shrinks between its promise and its use as a donor": [
        f"{DONOR}::test_a_donor_that_shrank_after_its_promise_is_replaced_by_another_one",
        f"{DONOR}::test_where_no_copy_has_what_was_promised_the_recovery_changes_nothing_and_can_be_tried_again",
    ],
    "17. A promise at too few nodes ends the present epoch's reads, and opens no other": [
        "simulation/storage/test_simulation.py::test_what_failed_once_stays_mended",
    ],
    "18. A membership change is a read-modify-write, and may be interrupted": [
        "simulation/storage/test_simulation.py::test_each_dimension_is_clean_alone",
    ],
    "19. Running out of file descriptors is no failure of a disk": [
        "cluster/storage/test_journal.py::test_running_out_of_descriptors_loses_nothing",
        "cluster/storage/test_journal.py::test_files_that_are_open_do_not_grow_with_the_log",
    ],
    "21. A disk that failed makes a copy absent, until it works again": [
        "cluster/storage/quorum/test_disks.py::test_full_disks_make_copies_absent_until_there_is_room",
    ],
    "22. Log is deleted in two steps, and a new epoch may not have heard of the second": [
        "simulation/storage/test_unfinished_collection.py::test_the_next_epoch_finishes_it_and_the_nodes_agree_again",
        f"{CORE}/test_recovery.py::test_a_replica_says_what_it_has_removed_also_where_the_charter_knows_of_less",
    ],
    "23. An epoch that never was leaves marks in the log of the one that began at the same position": [
        f"{CORE}/test_segment.py::test_an_extent_may_leave_out_what_closed_the_chain_for_an_epoch_that_never_was",
        "cluster/storage/core/test_recovery.py::test_a_chain_goes_on_that_was_closed_by_an_epoch_that_never_was",
    ],
    "24. A damaged frame takes all of its log with it, and metadata that rot must not": [
        "cluster/storage/test_journal.py::test_a_scrub_finds_all_log_of_a_file_that_is_gone",
        "cluster/storage/test_journal.py::test_the_log_of_an_epoch_whose_metadata_rotted_is_there_after_a_restart",
    ],
    "20. Before Python 3.12 a wait with a deadline loses a cancellation that coincides with an exception": [
        "cluster/test_timeouts.py::test_a_cancellation_counts_also_when_the_work_ends_at_that_moment",
        "cluster/storage/test_isolated.py::test_one_that_was_killed_while_it_started_comes_back",
    ],
}


@pytest.mark.parametrize("pitfall", PITFALLS)
def test_each_has_a_test(pitfall):
    for named in PITFALLS[pitfall]:
        path, _, name = named.partition("::")
        assert f"def {name}(" in (TESTS / path).read_text(encoding="utf-8"), named


@pytest.fixture(scope="module")
def running():
    with LocalCluster.start(readers=1) as made:
        with psycopg.connect(made.plain_conninfo(), autocommit=True) as connection:
            connection.execute("create table t(i int primary key)")
        yield made


@pytest.fixture
def cluster(running, restored, eventually):
    """The module's cluster, its table empty."""
    with restored(running):
        with psycopg.connect(running.plain_conninfo(), autocommit=True) as connection:
            connection.execute("truncate t")
        with psycopg.connect(running.plain_conninfo("reader"), autocommit=True) as reader:
            eventually(lambda: reader.execute("select to_regclass('t') is not null").fetchone() == (True,))
            eventually(lambda: reader.execute("select count(*) from t").fetchone() == (0,))
        yield running


def under_way(cluster) -> bool:
    volume = cluster.status().volume
    return parse_lsn(volume["received_lsn"]) > parse_lsn(volume["vdl"])


@pytest.mark.cluster
def test_a_cancel_during_the_quorum_wait_is_known_by_its_warning(cluster, eventually):
    notices = []
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.add_notice_handler(lambda told: notices.append((told.source_function, told.message_primary)))
        backend = connection.info.backend_pid
        for node in (0, 1, 2):
            cluster.nodes.down(node)
        commit = threading.Thread(target=connection.execute, args=("insert into t values (1)",), daemon=True)
        commit.start()
        eventually(lambda: under_way(cluster))
        with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as other:
            eventually(lambda: waits(other, backend))
            other.execute("select pg_cancel_backend(%s)", (backend,))
        commit.join(30)
        assert not commit.is_alive()
        (warning,) = notices
        assert is_unreplicated(*warning)
        with psycopg.connect(cluster.plain_conninfo("reader"), autocommit=True) as reader:
            assert reader.execute("select count(*) from t").fetchone() == (0,)
            for node in (0, 1, 2):
                cluster.nodes.up(node)
            eventually(lambda: reader.execute("select count(*) from t").fetchone() == (1,))


def waits(connection, backend: int) -> bool:
    asked = "select wait_event = 'SyncRep' from pg_stat_activity where pid = %s"
    return connection.execute(asked, (backend,)).fetchone() == (True,)


@pytest.mark.cluster
def test_a_crashed_writer_does_not_restart_in_place(cluster, eventually):
    before = cluster.status()
    postmaster = next(one.pid for one in before.instances if one.name == before.writer)
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        connection.execute("insert into t values (2)")
        os.kill(connection.info.backend_pid, signal.SIGKILL)
    eventually(lambda: not processes.stat_fields(postmaster) or processes.is_zombie(postmaster))
    eventually(lambda: cluster.status().epoch > before.epoch and cluster.writer is not None)
    eventually(lambda: all(one.state == "available" for one in cluster.instances))
    with psycopg.connect(cluster.plain_conninfo(), autocommit=True) as connection:
        assert connection.execute("select count(*) from t where i = 2").fetchone() == (1,)


@pytest.mark.cluster
def test_no_file_of_an_instance_or_of_the_storage_is_shared(cluster):
    run = Path(cluster.instances[0].socket_directory).parent
    files = [path for path in run.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len([path for path in files if path.name == "pg_control"]) >= 3
    assert [path for path in files if path.stat().st_nlink != 1] == []
