"""Patroni clusters: members by the REST API, roles by SQL. ``aurora_source=patroni``."""

from aurora_router_patroni.source import PatroniSource

__all__ = ["PatroniSource"]
