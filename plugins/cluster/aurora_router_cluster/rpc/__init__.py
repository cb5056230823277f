"""Remote procedure calls between the processes of a cluster: framing, authentication, a server, a kept connection.

Three kinds of servers use it: storage nodes (`storage.server`), the agents on other hosts and the name server there
(`hosts.link`). A caller connects, both sides prove that they know the cluster's secret (`proof`), and then the caller
sends numbered requests, which are answered in any order. Beside them each kind of server has messages of its own.

The control socket, the name server and the LDAP server of `iam` speak framings of others (lines of JSON, RFC 1035,
RFC 4511) and share `streams` alone. `starter` has what a process reports to the one that started it. The relay of the
faults imports nothing of this package: see `faults.__main__`.
"""
