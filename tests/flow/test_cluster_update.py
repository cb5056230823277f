"""The state of a cluster is replaced as a whole, also where a signal handler replaces it in between."""

from __future__ import annotations

from aurora_router.policy.cluster_state import ClusterState
from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation


def test_a_change_by_a_signal_handler_within_a_change_is_not_lost():
    with Simulation(seed=1) as simulation:
        simulated = SimulatedCluster(Network(simulation), readers=0)
        process = SimulatedProcess(simulated.network)

        async def client():
            conn = await process.connect(simulated.conninfo())
            cluster = conn.result.cluster
            conn.close()
            return cluster

        cluster = simulation.run(client())
        interrupted = []

        def advise(state: ClusterState):
            if not interrupted:
                interrupted.append(state)
                cluster.update(ClusterState.advise, "handler", "by the handler", 1.0)
            return state.advise("frame", "by the frame", 1.0)

        cluster.update(advise)
        assert {"frame", "handler"} <= cluster.state.advised
