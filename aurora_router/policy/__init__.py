"""Decisions: pure functions and tables. What they need is passed to them."""
