"""How a cluster scales: how many readers it wants, and what capacity an instance needs. Values and functions alone."""
