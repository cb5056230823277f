"""Values: what a cluster looks like to a client. Frozen, slotted, without a clock and without I/O."""
