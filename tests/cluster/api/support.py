"""What the tests of the API on real clusters have in common."""

from __future__ import annotations

import dns.message
import dns.query

QUICK = {"Delay": 0.1, "MaxAttempts": 600}
"""Waiters that ask often."""


def members(rds, cluster):
    """Name of each member -> whether it is the writer."""
    found = rds.describe_db_clusters(DBClusterIdentifier=cluster.name)["DBClusters"][0]
    return {one["DBInstanceIdentifier"]: one["IsClusterWriter"] for one in found["DBClusterMembers"]}


def writer_of(rds, cluster):
    return next(name for name, writes in members(rds, cluster).items() if writes)


def readers_of(rds, cluster):
    return [name for name, writes in members(rds, cluster).items() if not writes]


def wait_until_available(rds, cluster):
    rds.get_waiter("db_cluster_available").wait(DBClusterIdentifier=cluster.name, WaiterConfig=QUICK)
    in_cluster = [{"Name": "db-cluster-id", "Values": [cluster.name]}]
    rds.get_waiter("db_instance_available").wait(Filters=in_cluster, WaiterConfig=QUICK)


def resolve(cluster, target="writer"):
    """The addresses that a target's name leads to, over some answers."""
    host, port = cluster.dns.split(":")
    query = dns.message.make_query(cluster.endpoint(target), "A")
    answers = [dns.query.udp(query, host, port=int(port), timeout=5) for _ in range(4)]
    return {record.to_text() for answer in answers for rrset in answer.answer for record in rrset}


def instances_of(cluster, target):
    """The instances that a target's name leads to, over some answers."""
    names = {one.host: one.name for one in cluster.instances}
    return {names[address] for address in resolve(cluster, target)}
