"""Runs in the incumbent's own environment: connects by its wrapper and reports what it saw, as JSON."""

import json
import sys

import psycopg
from aws_advanced_python_wrapper import AwsWrapperConnection, release_resources


def look(conninfo, *, read_only):
    """One connection by the wrapper: which dialect it chose, which hosts it knows, where it is."""
    with AwsWrapperConnection.connect(
        psycopg.Connection.connect, conninfo, plugins="failover,host_monitoring", autocommit=True
    ) as conn:
        cursor = conn.cursor()
        cursor.execute("SELECT pg_catalog.aurora_db_instance_identifier(), pg_catalog.pg_is_in_recovery()")
        instance, standby = cursor.fetchone()
        service = conn._plugin_service
        service.refresh_host_list()
        return {
            "asked_for": "reader" if read_only else "writer",
            "dialect": type(service.database_dialect).__name__,
            "instance": instance,
            "standby": standby,
            "hosts": {host.host.split(".")[0]: host.role.name for host in service.all_hosts},
        }


writer, reader = sys.argv[1:]
try:
    sys.stdout.write(json.dumps([look(writer, read_only=False), look(reader, read_only=True)]) + "\n")
finally:
    release_resources()
