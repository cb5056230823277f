"""Runtimes: the adapters that do the input and output for the procedures in `flow`."""
