"""The RDS API for the clusters of one user: AWS's query protocol on loopback, answered from what their supervisors say.

One process per state directory, a client of the supervisors (`process`). A request goes through `server` (HTTP),
`service` (the order of the checks), `signature` (SigV4), `protocol` (parameters in and XML out, both by botocore's
description of the service) and an action of `actions`, which asks `account` for the clusters.
"""
