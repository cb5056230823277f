"""A Django database backend, ``ENGINE = "aurora_router_django"``: Django's PostgreSQL backend on the right instance."""
