"""The cluster as a Python object: a client of the supervisor's process."""
