"""``outcome install|uninstall|prune|ask URL``: the witness table, and the outcome of a transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.cli import output
from aurora_router.cli.inspect import read_target
from aurora_router.errors import AuroraRouterError
from aurora_router.flow import commit_sql
from aurora_router.model.commit_token import CommitToken
from aurora_router.policy.outcome import KEPT_SECONDS, Outcome
from aurora_router.router import Router

if TYPE_CHECKING:
    import argparse

NO_VERDICT = 3
"""Exit status of ``ask`` where there is no verdict (yet)."""
_KEPT_HOURS = KEPT_SECONDS / 3600


class TooYoung(AuroraRouterError, ValueError):
    """Rows were to be pruned that a resolver may still ask for."""


class OutcomeCommand:
    """Prepare a database for witness rows, and ask for the outcome of a transaction."""

    name = "outcome"
    help = "install, prune or remove the witness table of run_transaction; ask for the outcome of a transaction"

    def configure(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments."""
        actions = parser.add_subparsers(required=True, metavar="ACTION", dest="action")
        for action, about in (
            ("install", f"create {commit_sql.TABLE} (idempotent), which every user of the database may use"),
            ("uninstall", f"drop {commit_sql.TABLE}"),
            ("prune", f"delete its rows that are older than {_KEPT_HOURS:g} h; run it daily"),
            ("ask", "print the outcome of the transaction of a commit token"),
        ):
            child = actions.add_parser(action, help=about, description=about)
            child.add_argument("target", metavar="URL", help="a URL or conninfo of the cluster, with the database")
            child.add_argument("--json", action="store_true", help="print JSON")
            if action == "prune":
                hours = f"keep younger rows; at least {_KEPT_HOURS:g}, which is the default"
                child.add_argument("--hours", type=float, default=_KEPT_HOURS, help=hours)
            if action == "ask":
                child.add_argument("token", metavar="TOKEN", help="as run_transaction's on_token gave it")

    def run(self, args: argparse.Namespace) -> int:
        """Do it."""
        router = Router(read_target(args.target))
        if args.action == "ask":
            return self._ask(router, args)
        if args.action == "install":
            database, _ = _run_on_writer(router, commit_sql.INSTALL)
            text = f"{commit_sql.TABLE} is in the database {database}"
            _say(args, text, table=commit_sql.TABLE, database=database, installed=True)
        elif args.action == "uninstall":
            database, _ = _run_on_writer(router, commit_sql.UNINSTALL)
            text = f"{commit_sql.TABLE} is not in the database {database} (any more)"
            _say(args, text, table=commit_sql.TABLE, database=database, installed=False)
        else:
            if not args.hours >= _KEPT_HOURS:
                raise TooYoung(f"--hours {args.hours:g}: rows are kept for {_KEPT_HOURS:g} h at least")
            database, count = _run_on_writer(router, commit_sql.prune(args.hours * 3600.0))
            _say(args, f"{count} rows pruned", table=commit_sql.TABLE, database=database, pruned=count)
        return 0

    @staticmethod
    def _ask(router: Router, args: argparse.Namespace) -> int:
        try:
            token = CommitToken.parse(args.token)
        except ValueError as error:
            output.complain(f"aurora-router: {error}")
            return 2
        finding = router.finding_of(token)
        outcome = finding.outcome
        if outcome in {Outcome.COMMITTED, Outcome.NOT_COMMITTED}:
            _say(args, outcome.value, outcome=outcome.value)
            return 0
        _say(args, f"{outcome.value}: {finding.reason}", outcome=outcome.value, reason=finding.reason)
        return NO_VERDICT


def _say(args: argparse.Namespace, text: str, **facts: object) -> None:
    """Print a sentence, or with ``--json`` the same as an object."""
    if args.json:
        output.say_json(facts)
    else:
        output.say(text)


def _run_on_writer(router: Router, sql: str) -> tuple[str, int]:
    """Run statements on the writer; returns the database's name, and how many rows the last one changed."""
    with router.connect(role="writer", autocommit=True) as connection:
        return connection.info.dbname, connection.execute(sql.encode()).rowcount
