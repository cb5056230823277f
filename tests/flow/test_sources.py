"""A topology source of another distribution: recognised, asked and read like the built-in ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from aurora_router.errors import ExtensionFailed, InvalidOption
from aurora_router.model.event import ConfigurationAdvice
from aurora_router.runtime.simulated import answers
from aurora_router.runtime.sources import GROUP
from aurora_router.runtime.sources.aurora_postgresql import AURORA_POSTGRESQL, UNDEFINED_FUNCTION
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation, WatchedProcess

RACK = """
from aurora_router.sources import ROLE, Row, Source, Topology

SQL = ROLE + ", m.id, m.writer, m.self FROM rack.members() AS m"

def read(rows, asked):
    members = tuple(Row(id, writer=writer == "t") for _, _, _, id, writer, _ in rows)
    observer = next(id for _, _, _, id, _, own in rows if own == "t")
    return Topology(members, observer, observer_is_writer=rows[0][0] == "f")

RACK = Source("rack", SQL, read, absent=frozenset({"42883"}))
"""


@pytest.fixture
def rack(install):
    """A distribution with the source ``rack``; the text of its module may be given."""

    def install_rack(text=RACK):
        install("rack_source", text, GROUP, {"rack": "rack_source:RACK"})

    return install_rack


@pytest.fixture
def serves_rack(monkeypatch):
    """Let simulated servers have the function that the source asks."""

    def answer(connection):
        standby, pid, port = answers._session(connection)
        members = connection.cluster.instances.values()
        return [
            (standby, pid, port, each.id, "t" if each.writer else "f", "t" if each is connection.instance else "f")
            for each in members
        ]

    from aurora_router.sources import ROLE

    monkeypatch.setitem(answers.ANSWERS, ROLE + ", m.id, m.writer, m.self FROM rack.members() AS m", answer)


@pytest.fixture
def cluster():
    with Simulation() as simulation:
        yield SimulatedCluster(Network(simulation), readers=2, aurora=False)


def run(cluster, coroutine):
    return cluster.network.simulation.run(coroutine)


def test_its_topology_routes(rack, serves_rack, cluster):
    rack()
    process = SimulatedProcess(cluster.network)
    view = run(cluster, process.topology(cluster.conninfo("writer", aurora_source="rack")))
    assert (view.writer, set(view.instances)) == ("demo-1", {"demo-1", "demo-2", "demo-3"})
    served = {
        run(cluster, process.connect(cluster.conninfo("reader", aurora_source="rack"))).instance.id for _ in range(2)
    }
    assert served == {"demo-2", "demo-3"}, "plain PostgreSQL alone would know the instance that was asked"


def test_a_failover_is_followed(rack, serves_rack, cluster):
    rack()
    process = WatchedProcess(cluster.network)
    conninfo = cluster.conninfo("writer", aurora_source="rack")

    async def client():
        first = await process.connect(conninfo)
        cluster.crash("demo-1")
        cluster.failover("demo-2")
        second = await process.connect(conninfo)
        return first.instance.id, second.instance.id

    assert run(cluster, client()) == ("demo-1", "demo-2")


def test_several_are_tried_in_their_order(rack, serves_rack, cluster):
    rack()
    process = SimulatedProcess(cluster.network)
    view = run(cluster, process.topology(cluster.conninfo("writer", aurora_source="aurora,rack")))
    assert set(view.instances) == {"demo-1", "demo-2", "demo-3"}


def test_a_server_of_another_kind_is_recognised(rack, monkeypatch, cluster):
    rack()

    def refuse(connection):
        raise answers.new_refusal(UNDEFINED_FUNCTION, "function rack.members() does not exist")

    from aurora_router.sources import ROLE

    monkeypatch.setitem(answers.ANSWERS, ROLE + ", m.id, m.writer, m.self FROM rack.members() AS m", refuse)
    process = SimulatedProcess(cluster.network)
    with pytest.raises(InvalidOption, match=r"aurora_source=rack, but .* is not a server for the source rack \(.*rack"):
        run(cluster, process.connect(cluster.conninfo("writer", aurora_source="rack")))
    assert run(cluster, process.connect(cluster.conninfo("writer", aurora_source="rack,auto"))).instance.id == "demo-1"
    assert cluster.open_connections == 1


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('writer=writer == "t"', "writer=writer[9]", "IndexError"),
        ("return Topology", "members = Topology", "TypeError|AttributeError"),
        ('own == "t"', 'own == "x"', "StopIteration"),
    ],
)
def test_an_exception_of_it_is_named(rack, serves_rack, cluster, old, new, told):
    assert old in RACK
    rack(RACK.replace(old, new))
    process = SimulatedProcess(cluster.network)
    with pytest.raises(ExtensionFailed, match=rf"the topology source rack could not read .* \(({told})") as caught:
        run(cluster, process.connect(cluster.conninfo("writer", aurora_source="rack")))
    assert caught.value.__cause__ is not None
    assert cluster.network.simulation.now < 1.0, "a retry would fail in the same way"
    assert cluster.open_connections == 0


def test_an_exception_of_it_does_not_end_the_watch(rack, serves_rack, cluster):
    """The monitor goes on by the roles that instances report, and says once what is wrong."""
    checked = RACK.replace("    members =", "    assert not broken\n    members =")
    rack("broken = False\n" + checked)
    process = WatchedProcess(cluster.network)
    conninfo = cluster.conninfo("writer", aurora_source="rack", aurora_refresh=2)

    async def client():
        conn = await process.connect(conninfo)
        sys.modules["rack_source"].broken = True
        await process.runtime.sleep(30.0)
        return conn

    conn = run(cluster, client())
    assert conn.result.cluster.monitor is not None
    advice = [event.text for _, _, event in process.events if isinstance(event, ConfigurationAdvice)]
    assert len(advice) == 1
    assert "the topology source rack could not read the answer of demo-1 (AssertionError" in advice[0]


def test_what_is_no_source_is_refused(rack, cluster):
    rack("RACK = 'SELECT 1'")
    process = SimulatedProcess(cluster.network)
    with pytest.raises(InvalidOption, match=r"aurora_source='rack': its entry point gives a str, and has to give an"):
        run(cluster, process.connect(cluster.conninfo("writer", aurora_source="rack")))


def test_a_built_in_name_cannot_be_taken(install, cluster):
    install("usurper", "raise AssertionError", GROUP, {"aurora": "usurper:AURORA"})
    from aurora_router.runtime.sources import find_sources

    assert find_sources(("aurora",)) == (AURORA_POSTGRESQL,)


def test_a_source_is_imported_when_it_is_needed():
    code = (
        "import sys, aurora_router\n"
        "from aurora_router.runtime.connect_args import read_connect_args\n"
        "print(*sys.modules)\n"
        "read_connect_args('host=h aurora_source=postgresql', {})\n"
        "print(*sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    before, after = (set(line.split()) for line in ended.stdout.splitlines())
    sources = {"aurora_router.runtime.sources.aurora_postgresql", "aurora_router.runtime.sources.postgresql"}
    assert before & sources == set()
    assert after & sources == {"aurora_router.runtime.sources.postgresql"}
    assert "importlib.metadata" not in after - before, "entry points are looked for only where one is named"
