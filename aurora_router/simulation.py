"""A simulation in which routing can be tried without servers, sockets or time: for tests of what happens over time.

A `Simulation` is a clock and a seed. In its `Network` there are clusters (`SimulatedCluster`), which fail on demand,
and processes (`SimulatedProcess`), each of which connects by the same procedures as real connections::

    with Simulation(seed=7) as simulation:
        network = Network(simulation)
        cluster = SimulatedCluster(network, readers=2)
        process = SimulatedProcess(network)
        simulation.at(10.0, lambda: cluster.failover("demo-2"))

        async def client():
            first = await process.connect(cluster.conninfo("writer"))
            await simulation.sleep(20.0)
            second = await process.connect(cluster.conninfo("writer"))
            return first.instance.id, second.instance.id

        assert simulation.run(client()) == ("demo-1", "demo-2")

An hour of waiting costs nothing, a first connect one or two milliseconds of real time; the same seed gives the same
run. It tries *routing*:
there is no database in it, so what talks to one is tested against a real cluster (`aurora_router_cluster`).
"""

from aurora_router.runtime.simulated.cluster import SimulatedCluster
from aurora_router.runtime.simulated.connection import Relay, SimulatedConnection
from aurora_router.runtime.simulated.instance import Condition, SimulatedInstance
from aurora_router.runtime.simulated.monitor_runtime import SimulatedMonitorRuntime, WatchedProcess
from aurora_router.runtime.simulated.names import NameServer, SimulatedDns
from aurora_router.runtime.simulated.network import Network
from aurora_router.runtime.simulated.runtime import SimulatedProcess, SimulatedRuntime
from aurora_router.runtime.simulated.scheduler import Cancelled, Deadlock, Simulation, Task

__all__ = [
    "Cancelled",
    "Condition",
    "Deadlock",
    "NameServer",
    "Network",
    "Relay",
    "SimulatedCluster",
    "SimulatedConnection",
    "SimulatedDns",
    "SimulatedInstance",
    "SimulatedMonitorRuntime",
    "SimulatedProcess",
    "SimulatedRuntime",
    "Simulation",
    "Task",
    "WatchedProcess",
]
