"""The table of checks, and how it is applied. To add a check: a function in a module here, and an entry in `CHECKS`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurora_router.doctor.checks import capacity, cluster, commits, names, network, options, paths, tls
from aurora_router.doctor.finding import Finding, Level, error

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aurora_router.doctor.facts import Facts
    from aurora_router.doctor.finding import Check, Problem

CHECKS: tuple[Check, ...] = (
    *options.CHECKS,
    *names.CHECKS,
    *network.CHECKS,
    *tls.CHECKS,
    *cluster.CHECKS,
    *paths.CHECKS,
    *capacity.CHECKS,
    *commits.CHECKS,
)
"""All checks, in the order in which a connect meets what they are about."""

UNEXPLAINED = "connect-failed"
"""The code of the finding that a connect fails, where no check says why."""


def examine(facts: Facts, checks: Iterable[Check] = CHECKS) -> tuple[Finding, ...]:
    """Return what is wrong: errors first, otherwise in the order of the checks."""
    found = [Finding(each.code, problem) for each in checks for problem in each.find(facts)]
    if not any(each.problem.level is Level.ERROR for each in found):
        found += [Finding(UNEXPLAINED, problem) for problem in _find_unexplained(facts)]
    return tuple(sorted(found, key=lambda each: each.problem.level is not Level.ERROR))


def _find_unexplained(facts: Facts) -> Iterator[Problem]:
    failed = [each.failure for each in facts.given if each.failure is not None]
    if facts.connected is not None and facts.connected.error is not None:
        failed.insert(0, facts.connected.error)
    if failed:
        yield error(
            f"a connect fails: {failed[0].text}",
            "The application gets this error, too.",
            "docs/bad-input.md and docs/verdicts.md list what each error means.",
        )
