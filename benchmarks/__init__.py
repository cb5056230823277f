"""Measurements against what users would otherwise run; ``python -m benchmarks --help``.

Ratios come from blocks of work that alternate in random order within one process (see `paired`), and beside each ratio
stands its control: the same comparison of the stock driver with itself, which shows how far noise alone goes.
"""
