"""PostgreSQL's replication protocol, both ends: the writer's log in, the readers' log out."""
