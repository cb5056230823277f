"""Faults on purpose: what can be broken, how, and how it is healed; see docs/faults.md."""
