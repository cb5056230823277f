"""Each check, from facts alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from aurora_router.doctor.checks import CHECKS, UNEXPLAINED, examine
from aurora_router.doctor.facts import (
    Alias,
    Application,
    Certificate,
    Commits,
    Connected,
    Facts,
    Failure,
    Member,
    Name,
    Server,
    Session,
    Topology,
    Versions,
    Wire,
)
from aurora_router.doctor.finding import Level
from aurora_router.doctor.gathering.setup import read_setup
from aurora_router.doctor.reason import Reason, reason_of
from aurora_router.policy.options import OutcomeMethod
from aurora_router.policy.route import route

VERSIONS = Versions(driver="0.1.0", psycopg="3.3.9", libpq=180000)
NOW = 1_800_000_000.0
DAY = 86400.0
HOST = "demo.cluster-c9ak.eu-west-1.rds.amazonaws.com"
READER_HOST = "demo.cluster-ro-c9ak.eu-west-1.rds.amazonaws.com"
NAMES = (HOST, READER_HOST, "demo-1.c9ak.eu-west-1.rds.amazonaws.com")
SECURE = f"host={HOST} user=app password=x dbname=app sslmode=verify-full sslrootcert=/roots.pem"
REFUSED = Failure(None, "connection refused")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch):
    for name in ("PGHOST", "PGHOSTADDR", "PGTARGETSESSIONATTRS", "PGSSLMODE", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


def setup(conninfo=SECURE, application=None, canonical=None, **more):
    read, args = read_setup(conninfo, application or Application())
    known = {"versions": VERSIONS, "has_roots": True, "environment": {}, "exposed_passfile": None, **more}
    return replace(read, route=None if args is None else route(args.request, canonical), **known)


def server(name=HOST, instance=None, session=None, **more):
    """A healthy server with TLS, or one with something else."""
    healthy = {
        "host": HOST, "address": "10.0.0.1", "wire": Wire.TLS, "seconds": 0.02,
        "certificate": Certificate(NAMES, NOW - 9 * DAY, NOW + 300 * DAY),
    }  # fmt: skip
    return Server(name=name, instance=instance, session=session, **{**healthy, **more})


def writer(instance="demo-1", **more):
    return Session(**{"instance": instance, "standby": False, "end": ("10.0.0.1", 5432), "system": "7", **more})


def reader(instance="demo-2", **more):
    return writer(instance, standby=True, **more)


def facts(conninfo=SECURE, **more):
    """A healthy cluster of two instances, with what is changed."""
    members = (Member("demo-1", writer=True), Member("demo-2", writer=False, lag=0.01))
    healthy = {
        "setup": setup(conninfo),
        "names": (Name(host=HOST, addresses=("10.0.0.1",), ttl=5),),
        "given": (server(session=writer()),),
        "topology": Topology(source="aurora", is_aurora=True, members=members, observer="demo-1"),
        "instances": (
            server("demo-1", "demo-1", writer()),
            server("demo-2", "demo-2", reader(), address="10.0.0.2"),
        ),
        "commits": Commits(has_table=True, may_use_table=True, log_refusal="not supported"),
        "connected": Connected(instance="demo-1", role="writer"),
    }  # fmt: skip
    return Facts(now=NOW, **{**healthy, **more})


def failed(text, sqlstate=None, **more):
    return facts(given=(server(failure=Failure(sqlstate, text), **more),), instances=(), topology=None, commits=None)


def alias(target, host="db.example.com", ttl=60):
    return Name(host=host, addresses=("10.0.0.1",), ttl=5, aliases=(Alias(host, target, ttl),))


OWN = SECURE.replace(HOST, "db.example.com")
WRITES = OWN.replace("db.", "writer.").replace("verify-full", "require")
PROXY = SECURE.replace("cluster-", "proxy-")
ADDRESS = "host=10.0.0.1 user=app sslmode=disable"
TUNNEL = f"{ADDRESS} aurora_instance_host=demo-1=10.0.0.1"
IAM = SECURE.replace(" password=x", " aurora_credentials=env")
OTHER = server("b", session=writer(None, system="8"), address="10.0.0.2")
PLAIN = server(host="10.0.0.1", session=writer(None, direct=False), wire=Wire.PLAIN, certificate=None)
OLD = server(session=writer(version=130009))
NEWER = (server("demo-1", "demo-1", writer()), server("demo-2", "demo-2", reader(version=170004)))
SMALL = (server("demo-1", "demo-1", writer(connections=500)), server("demo-2", "demo-2", reader(connections=90)))
READERS = (Member("demo-1", writer=True), Member("demo-2", writer=False, lag=3.0))
LATE = Topology(source="aurora", is_aurora=True, members=READERS)
AHEAD = Topology(source="aurora", is_aurora=True, members=(READERS[0], Member("demo-2", writer=False, ahead=90.0)))
ALONE = Topology(source="aurora", is_aurora=True, members=READERS[:1])
DENIED = Topology(
    source="postgresql",
    is_aurora=True,
    refusal=Failure("42501", "permission denied"),
    grant="GRANT USAGE ON SCHEMA rds_tools",
)

CASES = [
    ("refused", facts("host=db aurora_rol=reader"), "did you mean aurora_role"),
    ("environment", facts(setup=setup("user=app", environment={"PGHOST": "db"})), "PGHOST=db"),
    ("environment", facts(setup=setup(environment={"PGHOSTADDR": "10.0.0.9"})), "unset PGHOSTADDR"),
    ("fixed-address", facts(f"{SECURE} hostaddr=10.0.0.1"), "10.0.0.1"),
    ("session-attributes", facts(f"{SECURE} target_session_attrs=read-only aurora_role=writer"), "aurora_role wins"),
    ("reader-endpoint", facts(SECURE.replace(HOST, READER_HOST) + " aurora_role=writer"), "the cluster endpoint"),
    ("no-effect", facts(f"{SECURE} aurora_max_lag=1"), "there is one writer"),
    ("no-effect", facts(f"{PROXY} aurora_role=reader"), "does its own routing"),
    ("no-effect", facts(f"{SECURE} load_balance_hosts=random"), "aurora_balance=random"),
    ("monitor-off", facts(f"{SECURE} aurora_monitor=off aurora_refresh=5"), "aurora_refresh have no effect"),
    ("timeouts", facts(f"{SECURE} connect_timeout=10 aurora_failover_timeout=8"), "to 2 or less"),
    ("timeouts", facts(f"{SECURE} connect_timeout=0 aurora_failover_timeout=300"), "130 s"),
    ("password-file", facts(setup=setup(exposed_passfile="/home/app/.pgpass")), "chmod 600 /home/app/.pgpass"),
    ("versions", facts(setup=setup(versions=replace(VERSIONS, libpq=130009))), "libpq 13"),
    ("versions", facts(given=(OLD,), instances=()), "before version 14"),
    ("versions", facts(instances=NEWER), "different major versions"),
    ("unresolved", facts(names=(Name(host=HOST, error="NXDOMAIN"),), given=()), "no address"),
    ("name-server", facts(names=(Name(host=HOST, error="timed out", is_silent=True),), given=()), "port 53"),
    ("long-ttl", facts(names=(Name(host=HOST, addresses=("10.0.0.1",), ttl=3600),)), "3600 s"),
    ("long-ttl", facts(OWN, setup=setup(OWN, canonical=None), names=(alias("db.example.org", ttl=900),)), "900 s"),
    ("hosts-file", facts(names=(Name(host=HOST, addresses=("10.0.0.1",), in_hosts_file=True),)), "/etc/hosts"),
    ("alias", facts(OWN, names=(alias(HOST),)), "aurora_trust_cname=on"),
    (
        "alias",
        facts(setup=setup(WRITES, canonical=READER_HOST), names=(alias(READER_HOST, "writer.example.com"),)),
        f"be an alias of {HOST}",
    ),
    ("unreachable", facts(given=(server(wire=Wire.REFUSED),)), "nothing listens"),
    ("unreachable", facts(given=(server(wire=Wire.UNREACHABLE),)), "security groups"),
    ("unreachable", facts(given=(server(wire=Wire.SILENT),)), "sends nothing"),
    ("unreachable", facts(given=(server(wire=Wire.FOREIGN),)), "is no PostgreSQL server"),
    ("login", failed('FATAL:  password authentication failed for user "app"', "28P01"), "rejects"),
    ("login", failed('FATAL:  PAM authentication failed for user "app"', "28000"), "rds_iam"),
    ("login", failed('FATAL:  database "x" does not exist', "3D000"), "no such database"),
    ("login", failed("FATAL:  sorry, too many clients already", "53300"), "no connection slot"),
    ("login", failed('FATAL:  no pg_hba.conf entry for host "10.0.0.9"', "28000"), "pg_hba.conf"),
    ("login", failed("FATAL:  the database system is starting up", "57P03"), "starts or stops"),
    ("login", failed('FATAL:  no pg_hba.conf entry for host "10.0.0.9", no encryption'), "without TLS"),
    ("login", failed("fe_sendauth: no password supplied"), "no password is given"),
    ("credentials", facts(IAM, given=(server(failure=Failure(None, "the provider failed")),)), "aws sts"),
    ("slow-dial", facts(given=(server(session=writer(), seconds=0.8),)), "aurora_ping_timeout to 3"),
    ("tls-missing", failed("server does not support SSL, but SSL was required"), "ssl = on"),
    ("tls-missing", facts(given=(server(session=writer(), wire=Wire.PLAIN),)), "readable"),
    ("tls-roots", facts(setup=setup(has_roots=False)), "/roots.pem"),
    ("tls-roots", failed("SSL error: certificate verify failed"), "global-bundle.pem"),
    ("tls-roots", failed('weak sslmode "require" may not be used with sslrootcert=system'), "verify-full"),
    ("tls-names", failed('server certificate for "x" does not match host name "y"'), NAMES[2]),
    ("tls-expiry", failed("SSL error: certificate has expired"), "has expired"),
    (
        "tls-expiry",
        facts(given=(server(session=writer(), certificate=Certificate(NAMES, 0.0, NOW + 9 * DAY)),)),
        "expires on 2027-01-",
    ),
    ("tls-unverified", facts(SECURE.replace("verify-full", "require")), "would pass from here"),
    (
        "tls-unverified",
        facts(
            SECURE.replace("verify-full", "require"),
            given=(server(session=writer(), unverified=Failure(None, "certificate verify failed")),),
        ),
        "would fail now",
    ),
    ("topology-rights", facts(topology=DENIED), "GRANT USAGE ON SCHEMA rds_tools"),
    ("instance-hosts", facts(ADDRESS, unlocated=("demo-1", "demo-2")), "aurora_instance_host=demo-1=HOST"),
    ("instance-hosts", facts(TUNNEL, unlocated=("demo-2",)), "Add demo-2=HOST:PORT"),
    ("instance-hosts", facts("host=10.0.0.1,10.0.0.2 user=app sslmode=disable"), "as the only host"),
    ("swapped", facts(instances=(server("demo-1", "demo-1", reader()),)), "demo-1 leads to demo-2"),
    ("stale-record", facts(given=(server(session=reader()),)), "the writer is demo-1"),
    (
        "stale-record",
        facts(SECURE.replace(HOST, READER_HOST), given=(server(host=READER_HOST, session=writer()),)),
        "although there are readers",
    ),
    ("roles", facts(given=(server(session=reader()),), instances=()), "only readers are reached"),
    (
        "roles",
        facts(f"{SECURE} aurora_role=reader", topology=ALONE, instances=(server("demo-1", "demo-1", writer()),)),
        "Reads go to the writer",
    ),
    ("unknown-instance", facts(f"{SECURE} aurora_instance=demo-9"), "demo-1, demo-2"),
    ("unknown-instance", facts(f"{SECURE} aurora_zone_map=demo-7=a"), "aurora_zone_map names demo-7"),
    ("zones", facts(f"{SECURE} aurora_role=reader aurora_zones=eu-west-1a"), "aurora_attributes=rds"),
    ("lag", facts(f"{SECURE} aurora_role=reader aurora_max_lag=1", topology=LATE), "demo-2 3 s"),
    ("clock", facts(given=(server(session=writer(clock=-30.0)),)), "-30 s"),
    ("clock", facts(topology=AHEAD), "demo-2 +90 s"),
    (
        "different-systems",
        facts("host=a,b user=app sslmode=disable", given=(server("a", session=writer(None)), OTHER), instances=()),
        "a, b",
    ),
    ("no-failover-target", facts(topology=ALONE, instances=(server("demo-1", "demo-1", writer()),)), "Add a reader"),
    ("prepared-statements", facts(given=(server(session=writer(pooled=True)),)), "prepare_threshold=None"),
    ("prepared-statements", facts(PROXY), "RDS Proxy"),
    ("load-balancer", facts(ADDRESS, repeats=("10.0.0.1:5432", "10.0.0.2:5432")), "10.0.0.1:5432, 10.0.0.2:5432"),
    ("hang-detection", facts(ADDRESS, given=(server(session=writer(direct=False)),)), "tcp_user_timeout"),
    ("pool-size", facts(setup=setup(application=Application(pool_size=30, processes=4))), "4 processes with 30"),
    ("pool-size", facts(setup=setup(application=Application(pool_size=23, processes=4))), "are 96; 100 can be had"),
    ("unequal-limits", facts(instances=SMALL), "demo-2 90"),
    ("idle-limit", facts(given=(server(session=writer(settings={"idle_session_timeout": "5min"})),)), "5min"),
    ("witness", facts(commits=Commits(log_refusal="wal_level")), "outcome install URL"),
    ("witness", facts(commits=Commits(has_table=True, log_refusal="wal_level")), "GRANT USAGE"),
    ("witness", facts(commits=Commits(method=OutcomeMethod.WITNESS)), "refuses to begin"),
    ("log-outcome", facts(commits=Commits(method=OutcomeMethod.LOG, log_refusal="wal_level")), "wal_level"),
    ("read-only", facts(given=(server(session=writer(settings={"default_transaction_read_only": "on"})),)), "25006"),
    ("lossy-commits", facts(given=(server(session=writer(settings={"synchronous_commit": "off"})),)), "RESET"),
    (UNEXPLAINED, facts(connected=Connected(error=REFUSED)), "connection refused"),
]


@pytest.mark.parametrize(("code", "given", "words"), CASES, ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)])
def test_a_check_finds(code, given, words):
    found = [each.problem for each in examine(given) if each.code == code]
    assert len(found) == 1, found
    problem = found[0]
    assert words.lower() in f"{problem.what} {problem.meaning} {problem.remedy}".lower()
    assert problem.meaning.endswith((".", "now"))


def test_every_check_has_a_case():
    codes = [each.code for each in CHECKS]
    assert len(codes) == len(set(codes)), "a code names one check"
    assert {code for code, _, _ in CASES} == {*codes, UNEXPLAINED}


@pytest.mark.parametrize(
    "given",
    [
        facts(),
        facts(setup=setup(application=Application(pool_size=20, processes=4))),
        facts(f"{SECURE} target_session_attrs=read-write"),
        facts(SECURE.replace(HOST, READER_HOST), given=(server(host=READER_HOST, session=reader()),)),
        facts(setup=setup(PROXY, application=Application(prepares=False)), instances=(), topology=None),
        facts(f"{ADDRESS} tcp_user_timeout=5000", topology=None, instances=(), given=(PLAIN,)),
        facts(commits=Commits()),
        facts(setup=setup("service=orders", environment={"PGHOST": "db"}), given=(), topology=None, instances=()),
    ],
)
def test_what_is_healthy_gets_no_finding(given):
    assert examine(given) == ()


@pytest.mark.parametrize("conninfo", [SECURE, OWN, ADDRESS, f"{SECURE} aurora_role=reader", "host=a,b"])
def test_nothing_is_concluded_from_what_is_not_known(conninfo):
    given = setup(conninfo)
    assert examine(Facts(now=NOW, setup=given)) == ()
    assert examine(Facts(now=NOW, setup=given, given=(Server(name="db"),), topology=Topology())) == ()


def test_errors_come_first_and_explain_a_failed_connect():
    given = facts(
        f"{SECURE} aurora_monitor=off",
        given=(server(failure=Failure("28P01", "password authentication failed")),),
        instances=(),
        topology=None,
        connected=Connected(error=REFUSED),
    )
    levels = [(each.code, each.problem.level) for each in examine(given)]
    assert levels == [("login", Level.ERROR), ("monitor-off", Level.WARNING)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('root certificate file "/nowhere" does not exist', Reason.NO_ROOTS),
        ("SSL error: certificate verify failed", Reason.UNTRUSTED),
        ("SSL error: certificate has expired", Reason.EXPIRED),
        ("something else", Reason.OTHER),
    ],
)
def test_reasons_are_read_from_the_text(text, reason):
    assert reason_of(Failure(None, text)) is reason


def test_no_password_is_among_the_facts():
    given, args = read_setup("postgresql://app:hush@db/app?sslpassword=hush", Application())
    assert args is not None
    assert "hush" not in repr(given)
    given, args = read_setup("postgresql+aurora://app:hush@db/app", Application())
    assert "hush" not in repr(given)
