"""A simulation with one cluster and one process, for tests that write down what happens step by step."""

from __future__ import annotations

from aurora_router.simulation import Network, SimulatedCluster, SimulatedProcess, Simulation


class Scene:
    """One cluster and one process.

    Args:
        process: the class of the process.
        network: the class of the network.
        made: how the cluster is made, see `SimulatedCluster`.
    """

    def __init__(self, process=SimulatedProcess, *, network=Network, **made):
        self.simulation = Simulation(1)
        self.network = network(self.simulation)
        self.cluster = SimulatedCluster(self.network, **made)
        self.process = process(self.network)

    def run(self, procedure):
        """Run a procedure to its end, and close the simulation."""
        try:
            return self.simulation.run(procedure)
        finally:
            self.simulation.close()
