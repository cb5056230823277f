"""The decisions of the quorum storage, without I/O, clock or randomness.

Every module here takes values and returns values: what to write, what to answer, which node to ask. The shells around
it (`aurora_router_cluster.storage`) do it. So the same code runs under PostgreSQL and under the simulator.
"""
