"""Faults of simulated instances look like those of real ones, and queries are answered as servers do."""

from __future__ import annotations

import pytest

from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.flow.topology_query import IN_RECOVERY
from aurora_router.policy.verdict import judge
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL
from aurora_router.runtime.sources.postgresql import POSTGRESQL
from aurora_router.simulation import (
    Cancelled,
    Condition,
    Network,
    Relay,
    SimulatedCluster,
    SimulatedProcess,
    SimulatedRuntime,
    Simulation,
)

VERDICTS = {
    Condition.REFUSING: "refused",
    Condition.HANGING: "timeout",
    Condition.UNREACHABLE: "unreachable",
    Condition.STARTING: "starting_up",
    Condition.STOPPING: "starting_up",
    Condition.FULL: "too_many_connections",
    Condition.REJECTING: "authentication",
    Condition.BARRED: "authentication",
    Condition.UNVERIFIED: "identity",
    Condition.RESETTING: "connection_lost",
    Condition.UNKNOWN: "rejected",
    Condition.WITHOUT_TLS: "protocol",
    Condition.EXHAUSTED: "exhausted",
}


@pytest.fixture
def simulation():
    with Simulation() as simulation:
        yield simulation


@pytest.fixture
def cluster(simulation):
    return SimulatedCluster(Network(simulation))


def target(instance):
    return Target(instance.id, instance.id, 5432, (instance.address,))


def dial(cluster, id_="demo-1", seconds=2.0):
    runtime = SimulatedRuntime(cluster.network)
    return runtime, cluster.network.simulation.run(runtime.dial(target(cluster.instances[id_]), seconds))


def test_every_condition_has_a_verdict():
    assert set(VERDICTS) == set(Condition) - {Condition.WELL}


@pytest.mark.parametrize(("condition", "verdict"), VERDICTS.items(), ids=lambda each: getattr(each, "name", each))
def test_a_dial_fails_as_a_real_one(cluster, condition, verdict):
    cluster.instances["demo-1"].condition = condition
    with pytest.raises(DialFailed) as caught:
        dial(cluster)
    assert judge(caught.value.fault).name == verdict
    assert cluster.open_connections == 0
    assert cluster.network.simulation.now == (
        2.0 if condition is Condition.HANGING else pytest.approx(0.001, abs=0.002)
    )


def test_an_instance_that_begins_to_hang_during_a_dial(cluster, simulation):
    simulation.at(0.001, lambda: cluster.hang("demo-1"))
    with pytest.raises(DialFailed, match="no answer within"):
        dial(cluster)
    assert simulation.now == 2.0


def test_an_instance_that_is_removed_during_a_dial(cluster, simulation):
    simulation.at(0.001, lambda: cluster.remove("demo-1"))
    with pytest.raises(DialFailed, match="closed the connection"):
        dial(cluster)


def test_the_next_address_is_tried(cluster, simulation):
    runtime = SimulatedRuntime(cluster.network)
    both = Target("x", "x", 5432, ("10.9.9.9", cluster.instances["demo-2"].address))
    connection = simulation.run(runtime.dial(both, 1.0))
    assert connection.instance.id == "demo-2"
    assert simulation.counts["dial"] == 2


def test_a_target_without_an_address(cluster, simulation):
    with pytest.raises(DialFailed, match="has no address"):
        simulation.run(SimulatedRuntime(cluster.network).dial(Target("x", "/tmp", 5432), 1.0))


def test_aurora_rows_are_read_by_the_librarys_parser(cluster, simulation):
    cluster.instances["demo-2"].lag = 0.25
    simulation.run_until(10)
    runtime, connection = dial(cluster, "demo-3")
    told = AURORA_POSTGRESQL.read(simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0)), "demo-3")
    rows = {row.id: row for row in told.rows}
    assert (told.observer, told.observer_is_writer, told.complete) == ("demo-3", False, True)
    assert [id_ for id_, row in rows.items() if row.writer] == ["demo-1"]
    assert rows["demo-3"].age is None
    assert rows["demo-1"].age == pytest.approx(0.05)
    assert rows["demo-2"].lag == 0.25
    assert rows["demo-1"].token == cluster.durable_lsn


def test_a_frozen_view_grows_old(cluster, simulation):
    cluster.freeze_view("demo-3")
    before = cluster.durable_lsn
    cluster.failover("demo-2")
    simulation.run_until(100)
    runtime, connection = dial(cluster, "demo-3")

    def told():
        return AURORA_POSTGRESQL.read(
            simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0)), "demo-3"
        ).rows

    (writer,) = (row for row in told() if row.writer)
    assert (writer.id, writer.token) == ("demo-1", before)
    assert writer.age == pytest.approx(100, abs=0.1)
    cluster.thaw_view("demo-3")
    assert [row.id for row in told() if row.writer] == ["demo-2"]


def test_plain_rows_tell_the_timeline(simulation):
    cluster = SimulatedCluster(Network(simulation), aurora=False)
    cluster.failover("demo-2")
    runtime, connection = dial(cluster, "demo-2")
    told = POSTGRESQL.read(simulation.run(runtime.ask(connection, POSTGRESQL.sql, 1.0)), "demo-2")
    assert (told.rows[0].token, told.observer_is_writer) == (2, True)
    assert simulation.run(runtime.ask(connection, IN_RECOVERY, 1.0)) == [("f",)]
    with pytest.raises(DialFailed) as caught:
        simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0))
    assert caught.value.fault.sqlstate == "42883"


def test_there_is_no_database_here(cluster, simulation):
    runtime, connection = dial(cluster)
    with pytest.raises(LookupError, match="service queries alone"):
        simulation.run(runtime.ask(connection, "select 1", 1.0))


def test_a_query_on_a_broken_connection(cluster, simulation):
    runtime, connection = dial(cluster)
    cluster.crash("demo-1")
    with pytest.raises(DialFailed, match="closed the connection unexpectedly"):
        simulation.run(runtime.ask(connection, IN_RECOVERY, 1.0))


def test_a_query_to_an_instance_that_hangs(cluster, simulation):
    runtime, connection = dial(cluster)
    cluster.hang("demo-1")
    with pytest.raises(DialFailed, match="no answer within"):
        simulation.run(runtime.ask(connection, IN_RECOVERY, 3.0))
    assert simulation.now == pytest.approx(3.0, abs=0.01)


def test_a_restart_takes_its_time_and_the_role_that_is_due(cluster, simulation):
    process = SimulatedProcess(cluster.network)
    cluster.failover("demo-2", zombie=True)
    assert cluster.instances["demo-1"].writer
    cluster.restart("demo-1", seconds=2.0)
    with pytest.raises(DialFailed, match="starting up"):
        dial(cluster)
    simulation.run_until(3)
    connection = simulation.run(process.connect(cluster.conninfo("instance:demo-1")))
    assert connection.in_hot_standby is True


def test_placement_and_closing(cluster, simulation):
    process = SimulatedProcess(cluster.network)
    connection = simulation.run(process.connect(cluster.conninfo()))
    state = connection.result.cluster
    assert connection.current
    assert state.connections("demo-1") == cluster.open_connections == 1
    connection.close()
    assert state.connections("demo-1") == cluster.open_connections == 0
    _, bare = dial(cluster)
    assert not bare.current


def test_topology_leaves_no_connection(cluster, simulation):
    process = SimulatedProcess(cluster.network)
    view = simulation.run(process.topology(cluster.conninfo()))
    assert (view.writer, list(view.instances)) == ("demo-1", ["demo-1", "demo-2", "demo-3"])
    assert cluster.open_connections == 0


@pytest.mark.parametrize("moment", [0.0005, 0.0015, 0.0028, 0.0032, 0.0045, 0.006])
@pytest.mark.parametrize("seed", range(4))
def test_a_cancelled_connect_leaks_nothing(moment, seed):
    """At every step: resolving, dialling, asking, dialling the chosen one."""
    with Simulation(seed) as simulation:
        cluster = SimulatedCluster(Network(simulation))
        process = SimulatedProcess(cluster.network)
        task = simulation.spawn(process.connect(cluster.conninfo(), aurora_role="reader"))
        simulation.at(moment, task.cancel)
        simulation.run_until(1)
        assert task.done
        if isinstance(task.error, Cancelled):
            assert cluster.open_connections == 0
        else:
            task.result().close()
        (state,) = process.home._clusters.values()
        assert not any(map(len, state._dialling.values()))
        assert state.begin_topology_query()


def test_a_relay_reports_what_it_likes(cluster, simulation):
    """A session through it leads to the instance all the same, which reports the truth when it is asked."""
    network, reader = cluster.network, cluster.instances["demo-2"]
    network.listen("10.9.9.9", 6432, cluster, reader)
    network.relays["10.9.9.9", 6432] = Relay(reports=False, own_pid=True)
    runtime = SimulatedRuntime(network)
    through = simulation.run(runtime.dial(Target("pooler", "pooler", 6432, ("10.9.9.9",)), 1.0))
    assert through.instance is reader
    assert (runtime.in_hot_standby(through), through.standby) == (False, True)
    assert simulation.run(runtime.ask(through, IN_RECOVERY, 1.0))[0][0] == "t"
    assert runtime.in_hot_standby(through) is False
    assert runtime.backend_pid(through) != through.server_pid, "a pooler's own"
    assert runtime.local_port(through) != through.client_port
    _, direct = dial(cluster, "demo-2")
    assert runtime.in_hot_standby(direct) is True
    assert runtime.backend_pid(direct) == direct.server_pid
    assert runtime.local_port(direct) == direct.client_port


def test_an_instance_knows_its_own_lag_however_old_its_view_is(cluster, simulation):
    cluster.freeze_view("demo-2")
    cluster.instances["demo-2"].lag = 7.0
    cluster.instances["demo-3"].lag = 8.0
    runtime, connection = dial(cluster, "demo-2")
    rows = AURORA_POSTGRESQL.read(simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0)), "demo-2").rows
    assert {row.id: row.lag for row in rows} == {"demo-1": 0.0, "demo-2": 7.0, "demo-3": 0.01}


def test_an_instance_sends_odd_rows(cluster, simulation):
    cluster.instances["demo-2"].rewrites = lambda rows: [(None, *row[1:]) for row in rows if row[1] != "t"]
    runtime, connection = dial(cluster, "demo-2")
    rows = simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0))
    assert len(rows) == 2
    assert all("demo-1" not in row for row in rows)
    runtime, connection = dial(cluster, "demo-3")
    assert len(simulation.run(runtime.ask(connection, AURORA_POSTGRESQL.sql, 1.0))) == 3
