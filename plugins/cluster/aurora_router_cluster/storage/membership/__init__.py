"""Changes of the members: one node or a zone replaced under load, or a cluster formed again from too few copies."""
