"""The quorum storage: six copies of the log in three zones, under unmodified PostgreSQL."""
