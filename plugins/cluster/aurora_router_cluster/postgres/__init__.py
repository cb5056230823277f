"""Running unmodified PostgreSQL: its binaries, directories, processes and sessions."""
