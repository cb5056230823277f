"""A local cluster that behaves like Amazon Aurora PostgreSQL, made of real PostgreSQL instances."""
