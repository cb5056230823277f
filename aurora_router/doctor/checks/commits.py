"""Writing, and finding out the outcome of a COMMIT whose answer was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.finding import Check, error, join_short, warning
from aurora_router.flow.commit_sql import TABLE
from aurora_router.model.endpoint import WantedRole
from aurora_router.policy.options import OutcomeMethod

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Problem

_INSTALL = "aurora-router outcome install URL (as a user who may create a schema)"


def _find_witness(facts: Facts) -> Iterator[Problem]:
    commits = facts.commits
    if commits is None or commits.method not in {OutcomeMethod.AUTO, OutcomeMethod.WITNESS}:
        return
    is_wanted = commits.method is OutcomeMethod.WITNESS
    if commits.has_table and not commits.may_use_table:
        yield (error if is_wanted or commits.log_refusal else warning)(
            f"{TABLE} is there, and this user may not use it",
            "run_transaction cannot find out the outcome of a COMMIT by it.",
            f"GRANT USAGE ON SCHEMA aurora_router TO PUBLIC; GRANT SELECT, INSERT ON {TABLE} TO PUBLIC",
        )
    elif is_wanted and not commits.has_table:
        yield error(
            f"aurora_outcome=witness, and there is no {TABLE} in this database",
            "run_transaction refuses to begin.",
            _INSTALL,
        )
    elif not commits.has_table and commits.log_refusal is not None:
        yield warning(
            f"the outcome of a COMMIT without an answer cannot be found out: there is no {TABLE}, and no log position "
            f"({commits.log_refusal})",
            "run_transaction raises CommitOutcomeUnknown where a failover takes the answer.",
            _INSTALL + "; or set aurora_outcome=off if run_transaction is not used.",
        )


def _find_log(facts: Facts) -> Iterator[Problem]:
    commits = facts.commits
    if commits is not None and commits.method is OutcomeMethod.LOG and commits.log_refusal is not None:
        yield error(
            f"aurora_outcome=log, and the server gives no log position: {commits.log_refusal}",
            "run_transaction cannot find out outcomes.",
            f"Remove aurora_outcome=log, and run {_INSTALL}.",
        )


def _find_read_only(facts: Facts) -> Iterator[Problem]:
    route = facts.setup.route
    if route is None or route.role is not WantedRole.WRITER:
        return
    refusing = [
        server.name
        for server, session in facts.sessions
        if not session.standby and session.settings.get("default_transaction_read_only") == "on"
    ]
    if refusing:
        yield error(
            f"sessions with the writer ({join_short(refusing)}) begin read-only: default_transaction_read_only is on",
            "Each write fails with 25006, as on a reader.",
            "ALTER ROLE … RESET default_transaction_read_only (or of the database, PGOPTIONS, options=).",
        )


def _find_lossy(facts: Facts) -> Iterator[Problem]:
    lossy = [
        server.name
        for server, session in facts.sessions
        if not session.standby and session.settings.get("synchronous_commit") == "off"
    ]
    if lossy:
        yield warning(
            f"synchronous_commit is off at {join_short(lossy)}",
            "A COMMIT is acknowledged before it is durable: a failover loses what was acknowledged last.",
            "ALTER ROLE … RESET synchronous_commit (or of the database, PGOPTIONS, options=).",
        )


CHECKS = (
    Check("witness", "the witness table of run_transaction, and the rights to it", _find_witness),
    Check("log-outcome", "aurora_outcome=log where the server gives no log position", _find_log),
    Check("read-only", "sessions with the writer that begin read-only", _find_read_only),
    Check("lossy-commits", "commits that are acknowledged before they are durable", _find_lossy),
)
