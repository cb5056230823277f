"""The cluster's name server, and the names that it answers."""
