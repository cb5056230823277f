"""What is believed of Amazon Aurora and could not be tried: a table, with what shows on a cluster whether it holds.

Each belief is used in a way that is safe where it is false: the driver then asks more, waits longer or refuses a
connection; it takes no wrong instance. A judgement is a pure function of evidence that `gathering.evidence` collects
without any change to the cluster; what only a failover or a rotation would show has none.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from aurora_router.doctor.finding import join_short
from aurora_router.frozen import frozen
from aurora_router.model.endpoint import EndpointKind, parse_endpoint
from aurora_router.model.observation import ROW_AGE_SECONDS, STALE_ROW_SECONDS
from aurora_router.model.view import PROOF_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from aurora_router.doctor.facts import Facts, Server, Session
    from aurora_router.model.observation import Row

READ_ONLY = "25006"
LONGEST_TTL = 5
"""Seconds, of the records of Aurora's endpoints."""
CLOCK_SECONDS = 1.0
"""By so much the clocks of instances may differ without being taken for old rows."""


class Verdict(enum.Enum):
    """What the evidence says of a belief."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


class Judgement(NamedTuple):
    """A verdict, and the evidence in words."""

    verdict: Verdict
    evidence: str


class Look(NamedTuple):
    """What one instance answered to the topology query: when, in Unix time by our clock, and the rows."""

    instance: str
    standby: bool
    at: float
    rows: tuple[Row, ...]

    @property
    def writers(self) -> list[str]:
        """The ids that are marked as the writer."""
        return [row.id for row in self.rows if row.writer]


@frozen
class Evidence:
    """What was collected.

    Attributes:
        facts: as the doctor gathers them.
        looks: at all instances, some seconds apart, oldest first.
    """

    facts: Facts
    looks: tuple[tuple[Look, ...], ...] = ()

    @property
    def all_looks(self) -> Iterator[Look]:
        """Every look."""
        for each in self.looks:
            yield from each

    @property
    def sessions(self) -> list[tuple[Server, Session]]:
        """The instances that answered, dialled by their own names."""
        return [(each, each.session) for each in self.facts.instances if each.session is not None]


@frozen
class Assumption:
    """One belief.

    Attributes:
        code: how it is called in reports.
        belief: what is believed.
        used: where the driver relies on it, as modules below ``aurora_router``.
        otherwise: what the driver does if it is false.
        judge: the judgement of evidence; None: no harmless question shows it.
        needs: where there is no judgement: what would show it.
    """

    code: str
    belief: str
    used: str
    otherwise: str
    judge: Callable[[Evidence], Judgement] | None = None
    needs: str = ""


def judge_all(evidence: Evidence) -> list[tuple[Assumption, Judgement]]:
    """Judge every assumption."""
    return [
        (each, Judgement(Verdict.UNKNOWN, f"not tried: {each.needs}") if each.judge is None else each.judge(evidence))
        for each in ASSUMPTIONS
    ]


def _conclude(wrong: Iterable[str], count: int, what: str) -> Judgement:
    """False where something contradicts; true where something was seen, and nothing contradicts."""
    found = list(wrong)
    if found:
        return Judgement(Verdict.FALSE, join_short(found))
    return Judgement(Verdict.TRUE if count else Verdict.UNKNOWN, f"{count} {what}")


# ---------------------------------------------------------------- sessions


def _judge_reports(evidence: Evidence) -> Judgement:
    sessions = evidence.sessions
    silent = [server.name for server, session in sessions if session.reported_standby is None]
    if silent:
        return Judgement(Verdict.FALSE, f"no report from {join_short(silent)}")
    wrong = (
        f"{server.name} reports {'on' if session.reported_standby else 'off'}, and is a "
        f"{'reader' if session.standby else 'writer'}"
        for server, session in sessions
        if session.reported_standby is not session.standby
    )
    judged = _conclude(wrong, len(sessions), "sessions report their role")
    has_reader = any(session.standby for _, session in sessions)
    return judged if has_reader or judged.verdict is Verdict.FALSE else Judgement(Verdict.UNKNOWN, "there is no reader")


def _judge_process_ids(evidence: Evidence) -> Judgement:
    wrong = (f"{server.name}: another backend answers" for server, session in evidence.sessions if session.pooled)
    return _conclude(wrong, len(evidence.sessions), "sessions are answered by the backend that began them")


def _judge_ports(evidence: Evidence) -> Judgement:
    route = evidence.facts.setup.route
    if route is None or not route.direct:
        return Judgement(Verdict.UNKNOWN, "the instances are not dialled by Aurora's own names")
    wrong = (f"{server.name} sees another connection" for server, session in evidence.sessions if not session.direct)
    return _conclude(wrong, len(evidence.sessions), "servers see the connection as it leaves here")


def _judge_refusals(evidence: Evidence) -> Judgement:
    readers = [(server.name, session.write_refusal) for server, session in evidence.sessions if session.standby]
    wrong = (f"{name}: {state or 'accepts it'}" for name, state in readers if state != READ_ONLY)
    return _conclude(wrong, len(readers), f"readers refuse to write with {READ_ONLY}")


def _judge_systems(evidence: Evidence) -> Judgement:
    systems = {server.name: session.system for server, session in evidence.sessions if session.system is not None}
    if len(set(systems.values())) > 1:
        return Judgement(Verdict.FALSE, f"{len(set(systems.values()))} identifiers in {len(systems)} instances")
    return Judgement(Verdict.TRUE if len(systems) > 1 else Verdict.UNKNOWN, f"{len(systems)} instances show it")


# ---------------------------------------------------------------- rows


def _judge_own_rows(evidence: Evidence) -> Judgement:
    looks = list(evidence.all_looks)
    wrong = (f"{look.instance} does not list itself" for look in looks if look.instance not in _ids(look))
    return _conclude(wrong, len(looks), "answers list the instance that gives them")


def _ids(look: Look) -> set[str]:
    return {row.id for row in look.rows}


def _judge_one_writer(evidence: Evidence) -> Judgement:
    looks = list(evidence.all_looks)
    wrong = (f"{look.instance} marks {len(look.writers)} writers" for look in looks if len(look.writers) != 1)
    return _conclude(wrong, len(looks), "answers mark one writer")


def _judge_own_mark(evidence: Evidence) -> Judgement:
    looks = list(evidence.all_looks)
    wrong = (
        f"{look.instance} is a {'reader' if look.standby else 'writer'}, and its own row says otherwise"
        for look in looks
        for row in look.rows
        if row.id == look.instance and row.writer is look.standby
    )
    return _conclude(wrong, len(looks), "answers agree with pg_is_in_recovery()")


def _judge_agreement(evidence: Evidence) -> Judgement:
    for looks in evidence.looks:
        named = {writer for look in looks for writer in look.writers}
        if len(named) > 1:
            return Judgement(Verdict.FALSE, f"instances name different writers: {join_short(sorted(named))}")
    count = max((len(looks) for looks in evidence.looks), default=0)
    return Judgement(Verdict.TRUE if count > 1 else Verdict.UNKNOWN, f"{count} instances were compared")


def _judge_names(evidence: Evidence) -> Judgement:
    wrong = (
        f"{server.instance} leads to {session.instance}"
        for server, session in evidence.sessions
        if session.instance is not None and session.instance != server.instance
    )
    lost = (f"{name.host} has no address" for name in evidence.facts.names if name.error is not None)
    return _conclude((*wrong, *lost), len(evidence.sessions), "instances are found by their ids")


def _tokens(evidence: Evidence) -> Iterator[tuple[str, list[int]]]:
    """What each instance shows of the writer's durable LSN, oldest first."""
    shown: dict[str, list[int]] = {}
    for look in evidence.all_looks:
        for row in look.rows:
            if row.writer and row.token is not None:
                shown.setdefault(look.instance, []).append(row.token)
    yield from shown.items()


def _judge_order(evidence: Evidence) -> Judgement:
    shown = dict(_tokens(evidence))
    if not shown and any(True for _ in evidence.all_looks):
        return Judgement(Verdict.FALSE, "no answer shows the writer's durable LSN")
    wrong = (f"it decreases at {instance}" for instance, tokens in shown.items() if tokens != sorted(tokens))
    seen = [instance for instance, tokens in shown.items() if len(tokens) > 1]
    return _conclude(wrong, len(seen), "instances show a durable LSN that does not decrease")


def _judge_reach(evidence: Evidence) -> Judgement:
    """Compare within one answer: its rows are of about one moment."""
    wrong, count = [], 0
    for look in evidence.all_looks:
        writer = max((row.token for row in look.rows if row.writer and row.token is not None), default=None)
        if writer is None or look.standby:
            continue
        count += 1
        wrong += [f"{row.id} is beyond the writer" for row in look.rows if row.token is not None and row.token > writer]
    return _conclude(wrong, count, "answers of the writer show no reader beyond it")


def _judge_ages(evidence: Evidence) -> Judgement:
    ages = [
        (row.id, row.age)
        for look in evidence.all_looks
        for row in look.rows
        if row.age is not None and row.age < STALE_ROW_SECONDS
    ]
    limit = ROW_AGE_SECONDS + CLOCK_SECONDS
    wrong = (f"{id_}: {age:.1f} s" for id_, age in ages if age > limit)
    return _conclude(wrong, len(ages), f"rows of other instances are at most {limit:g} s old")


def _judge_updates(evidence: Evidence) -> Judgement:
    if len(evidence.looks) < 2:
        return Judgement(Verdict.UNKNOWN, "one look alone")
    answering = {look.instance for look in evidence.looks[-1]}
    first, last = (_updates(looks) for looks in (evidence.looks[0], evidence.looks[-1]))
    common = [key for key in first if key in last and key[1] in answering]
    wrong = (
        f"the row of {id_} at {observer} stays"
        for observer, id_ in common
        if first[observer, id_] == last[observer, id_]
    )
    return _conclude(wrong, len(common), "rows of instances that run are updated")


def _updates(looks: tuple[Look, ...]) -> dict[tuple[str, str], float]:
    return {
        (look.instance, row.id): row.updated
        for look in looks
        for row in look.rows
        if row.updated is not None and row.id != look.instance
    }


def _judge_lags(evidence: Evidence) -> Judgement:
    lags = [(row.id, row.lag) for look in evidence.all_looks for row in look.rows if not row.writer]
    wrong = (f"{id_} has none" for id_, lag in lags if lag is None)
    return _conclude(wrong, len(lags), "rows of readers have a lag")


# ---------------------------------------------------------------- names, TLS


def _judge_certificates(evidence: Evidence) -> Judgement:
    request = evidence.facts.setup.request
    given = [each.host for each in request.given if each.host] if request is not None else []
    endpoints = [host for host in given if parse_endpoint(host).kind in _ENDPOINTS]
    there = [each for each in evidence.facts.instances if each.certificate is not None]
    wrong = (
        f"the certificate of {each.name} lacks {host}"
        for each in there
        for host in (each.host, *endpoints)
        if host and each.certificate and host.lower() not in {name.lower() for name in each.certificate.names}
    )
    return _conclude(wrong, len(there), "certificates have the names of instance and endpoint")


_ENDPOINTS = frozenset({EndpointKind.CLUSTER, EndpointKind.CLUSTER_READER})


def _judge_lives(evidence: Evidence) -> Judgement:
    own = [each for each in evidence.facts.names if parse_endpoint(each.host).kind in _ENDPOINTS]
    lives = {each.host: each.ttl for each in own if each.ttl is not None}
    wrong = (f"{host}: {ttl} s" for host, ttl in lives.items() if ttl > LONGEST_TTL)
    return _conclude(wrong, len(lives), f"records of endpoints hold for at most {LONGEST_TTL} s")


def _judge_endpoints(evidence: Evidence) -> Judgement:
    topology = evidence.facts.topology
    has_readers = topology is not None and any(not each.writer for each in topology.members)
    there = [
        (parse_endpoint(each.host or "").kind, each.name, each.session.standby)
        for each in evidence.facts.given
        if each.session is not None
    ]
    there = [each for each in there if each[0] in _ENDPOINTS]
    wrong = (
        f"{name} leads to a {'reader' if standby else 'writer'}"
        for kind, name, standby in there
        if (kind is EndpointKind.CLUSTER) is standby and (has_readers or kind is EndpointKind.CLUSTER)
    )
    return _conclude(wrong, len(there), "endpoints lead to an instance of their role")


_FAILOVER = "it needs a failover"
ASSUMPTIONS: tuple[Assumption, ...] = (
    Assumption(
        "standby-report",
        "Readers report `in_hot_standby=on` when a session begins, and the writer `off`.",
        "`policy/role_reports.py`",
        "A report counts only after a reader was seen to report `on`; one that a query contradicts ends the belief for "
        "good. Then `pg_is_in_recovery()` is asked: one round trip for each connect.",
        _judge_reports,
    ),
    Assumption(
        "process-id",
        "The backend that answers is the one that the session was begun with.",
        "`policy/role_reports.py`",
        "The path counts as a pooler's: the role is asked, and connections are not cut for a hang.",
        _judge_process_ids,
    ),
    Assumption(
        "direct-names",
        "Aurora's own names lead to instances, without a proxy that ends the connection.",
        "`policy/paths.py`, `policy/role_reports.py`",
        "No report of a role is believed, each is asked for. A ping could meet something else than a connection does: "
        "a healthy connection could be cut; none leads to a wrong instance.",
        _judge_ports,
    ),
    Assumption(
        "read-only",
        "A reader refuses to write with the SQLSTATE 25006.",
        "`policy/suspicion.py`, `policy/verdict.py`",
        "The error of a write is no hint at a change of roles; the role reports and the topology show it.",
        _judge_refusals,
    ),
    Assumption(
        "one-system",
        "All instances of a cluster have one system identifier.",
        "`policy/outcome.py` (the identity of the witness table)",
        "The outcome of a COMMIT is reported as unknown.",
        _judge_systems,
    ),
    Assumption(
        "own-row",
        "The answer of `aurora_replica_status()` has the row of the instance that gives it.",
        "`model/reduce.py`, rule 2",
        "The answer is incomplete: it adds instances, and removes none.",
        _judge_own_rows,
    ),
    Assumption(
        "one-writer",
        "One row has `MASTER_SESSION_ID`.",
        "`model/reduce.py`, rule 2",
        "An answer that marks two writers or none proves none; the report of an instance about itself counts.",
        _judge_one_writer,
    ),
    Assumption(
        "own-mark",
        "An instance's own row agrees with its `pg_is_in_recovery()`.",
        "`model/reduce.py`, rule 1",
        "`pg_is_in_recovery()` counts, for the instance that was asked.",
        _judge_own_mark,
    ),
    Assumption(
        "agreement",
        "While nothing changes, all instances name the same writer.",
        "`model/reduce.py`, rules 3 and 5",
        "The report of an instance about itself and the durable LSN decide; in doubtful cases connects wait.",
        _judge_agreement,
    ),
    Assumption(
        "ids-are-names",
        "An instance's id is the first label of its name in DNS.",
        "`model/endpoint.py`, `flow/attempt.py`",
        "The instance is not found by its name, or another one answers, which is noticed by its id or role and not "
        "used. `aurora_instance_host` says where instances are.",
        _judge_names,
    ),
    Assumption(
        "durable-lsn",
        "The writer's `durable_lsn` does not decrease while it is the writer.",
        "`model/reduce.py`, rules 3 and 5",
        "A lower one is no proof against the accepted writer: it is replaced only in an outage, when all others agree.",
        _judge_order,
    ),
    Assumption(
        "writer-leads",
        "No row shows a durable LSN beyond the writer's own, in the writer's answer.",
        "`model/reduce.py`, rule 3",
        "The highest of all rows counts: a new writer needs longer to be believed.",
        _judge_reach,
    ),
    Assumption(
        "row-age",
        f"Rows about other instances are at most {ROW_AGE_SECONDS:g} s old.",
        "`model/observation.py` (`ROW_AGE_SECONDS`)",
        "Rows of a fenced writer count longer than they should as what a new one has to surpass: a failover to a "
        "former writer takes longer.",
        _judge_ages,
    ),
    Assumption(
        "row-updates",
        "The row of an instance that runs gets a new time stamp within seconds; that of a removed one does not.",
        "`model/reduce.py`, rule 8",
        "A living instance of which no other sign is seen is taken for removed after five minutes, until it answers "
        "itself; the row of a removed one is kept, and its dials fail.",
        _judge_updates,
    ),
    Assumption(
        "lag",
        "Rows of readers have `replica_lag_in_msec`.",
        "`policy/balance.py` (`aurora_max_lag`)",
        "With a bound, a reader of unknown lag is not used.",
        _judge_lags,
    ),
    Assumption(
        "certificate-names",
        "The certificate of an instance has its own name, that of the cluster and that of the reader endpoint.",
        "`policy/route.py` (instances are dialled by their own names)",
        "`sslmode=verify-full` refuses the connection; nothing is connected unverified.",
        _judge_certificates,
    ),
    Assumption(
        "endpoint-ttl",
        f"The records of endpoints hold for {LONGEST_TTL} s.",
        "`runtime/dns.py` (the TTL of each answer counts, whatever it is)",
        "A name leads to a former instance for longer; its role is checked, and the topology leads to the right one.",
        _judge_lives,
    ),
    Assumption(
        "endpoint-roles",
        "The cluster endpoint leads to the writer, and the reader endpoint to readers, if there are any.",
        "`flow/connect.py` (the first connect of a process)",
        "The role is checked: the connect goes on to an instance of the topology.",
        _judge_endpoints,
    ),
    Assumption(
        "fencing",
        "The storage refuses the writes of a former writer after a failover.",
        "`model/reduce.py`, rule 5; `policy/outcome.py`",
        "Two instances could acknowledge commits, and no client could prevent that. The driver cuts connections to a "
        "former writer as soon as another one is accepted.",
        needs=_FAILOVER,
    ),
    Assumption(
        "promotion-lsn",
        f"A promoted instance shows its durable LSN within {ROW_AGE_SECONDS:g} s.",
        "`model/view.py` (`PROOF_SECONDS`, `fresh`)",
        "Until it does, a former writer that claims more is not believed: a second failover soon after takes longer.",
        needs=_FAILOVER,
    ),
    Assumption(
        "log-growth",
        "After a transaction with an xid, `durable_lsn` of the writer is higher, as soon as its row is updated.",
        "`flow/topology_query.py` (`advance_log`)",
        "A former writer that is promoted again before it was heard as a reader is believed later: after "
        f"{PROOF_SECONDS:g} s, or when the others answer.",
        needs="it needs a record in the log",
    ),
    Assumption(
        "dns-delay",
        "After a failover the cluster endpoint leads to the new writer within seconds.",
        "`flow/monitor.py` (given names are asked too)",
        "Only processes that know no instance depend on it: they wait, up to `aurora_failover_timeout`.",
        needs=_FAILOVER,
    ),
    Assumption(
        "removed-rows",
        f"The row of a removed instance goes away, or is not updated for {STALE_ROW_SECONDS:g} s.",
        "`model/reduce.py`, rules 2 and 8",
        "It stays known; dials of it fail, and it is avoided.",
        needs="it needs an instance to be removed",
    ),
    Assumption(
        "visible-lsn",
        "What a reader shows as its own `durable_lsn` is visible on it.",
        "`policy/causal.py` (only with `aurora_causal=durable_lsn`)",
        "A read with a causal token could miss that write. So the method is never chosen by `auto`.",
        needs="it needs a write, and a reader that lags",
    ),
    Assumption(
        "custom-tokens",
        "No IAM token is accepted for the name of a custom endpoint.",
        "`plugins/aurora_router_aws/iam.py` (`aurora_iam_host`)",
        "The option is not needed; tokens for the name that it gives are accepted as well.",
        needs="it needs an IAM login by a custom endpoint",
    ),
    Assumption(
        "pending-secret",
        "While RDS rotates a secret, `AWSPENDING` has the password that the database has already.",
        "`plugins/aurora_router_aws/secret.py`",
        "It is rejected, `AWSCURRENT` is read again, and the error of the database is raised if that does not help.",
        needs="it needs a rotation",
    ),
)
"""All assumptions: first those that are checked."""
