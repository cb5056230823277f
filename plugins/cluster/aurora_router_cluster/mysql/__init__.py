"""A cluster of real MariaDB servers that behaves like Aurora MySQL; there is no quorum storage under it.

Durability is that of semi-synchronous replication: a commit is acknowledged when one reader has it, too (`plane`).
Aurora's SQL surface is put on by a front before each server (`front`, `rewriting`).
"""
