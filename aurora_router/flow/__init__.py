"""Procedures: how a connection comes about, written once as coroutines over a `Runtime`.

Nothing here knows threads, event loops, sockets, clocks or drivers: those are the runtime's. The same code runs
blocking, on asyncio, and in a simulation with a virtual clock.
"""
