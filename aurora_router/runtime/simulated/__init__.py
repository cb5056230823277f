"""The simulated runtime: a virtual clock, a seed, a cluster that answers service queries; public as `simulation`."""
