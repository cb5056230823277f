"""The entry to everything: `nox -l` lists it, `nox` runs what has to be green.

Arguments behind `--`: `--require-all` makes a missing interpreter an error, `--whole` runs on every interpreter also
what does not depend on it (the reference cluster's own tests); sessions that measure take `--json FILE`; everything
else goes to the tool that the session runs.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

sys.path.insert(0, str(Path(__file__).parent))
from tests.matrix.cells import Cell, covering, everything

PYTHONS = ["3.10", "3.11", "3.12", "3.13", "3.14"]
NOT_REQUIRED = {"3.14"}
"""Tested where they are found; said loudly where not, and no error even with `--require-all`."""
BETWEEN = {"3.12"}
"""Between two that are tested with real clusters, too: `--whole` tests these so as well."""
CLUSTER = "./plugins/cluster[demo,mysql,tls]"
TESTED = [".[test]", CLUSTER]
"""Both distributions of this repository, with what their tests need."""
DOCKER = "./plugins/cluster[docker]"
"""What the tests of containers need, too."""
PACKAGES = ["aurora_router", "plugins", "tests", "benchmarks", "docs", "noxfile.py"]

nox.options.sessions = ["interpreters", "lint", "types", "imports", "tests", "build"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False


def _offer_pyenv() -> None:
    """Let pyenv's shims answer for every version that it has, not for the chosen one alone."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    if not versions.is_dir() or "PYENV_VERSION" in os.environ:
        return
    found = [max((str(each.name) for each in versions.glob(f"{python}.*")), default=None) for python in PYTHONS]
    here = f"{sys.version_info.major}.{sys.version_info.minor}."
    names = sorted((name for name in found if name is not None), key=lambda name: not name.startswith(here))
    if names:
        os.environ["PYENV_VERSION"] = ":".join(names)


def _works(python: str) -> bool:
    """Whether an interpreter is there and starts (a shim may be there without one behind it)."""
    path = shutil.which(f"python{python}")
    return path is not None and subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0


_offer_pyenv()
# Hundreds of processes are started here: none of them needs to compile anything again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


OURS = {"--require-all", "--whole"}
CORE = ["tests/model", "tests/policy", "tests/flow", "tests/runtime"]
"""What is tested with its branches counted."""
OWN_PYTHON_ONLY = [
    "tests/cluster",
    "tests/commits",
    "tests/simulation",
    "tests/benchmarks",
    "tests/conformance",
    "tests/pytest_plugin",
    "tests/cli",
    "tests/doctor",
    "tests/docs",
    "tests/django",
    "tests/integration",
    "tests/mysql",
]
"""The cluster and what is around the driver are things of their own: one Python, unless `--whole`.

Single tests say so with the marker `one_python`. The matrix (`nox -s matrix`) has the conformance and a failover on
every Python.
"""


QUICK = ["-n", "3", "--hypothesis-profile=few"]
"""For what waits much of its time; the session `slow` has many examples."""
ELSEWHERE = ["-n", "3", "--hypothesis-profile=fewest"]
"""For the Pythons beside nox's own: there a property is tried, not searched for what breaks it."""


def _named_apart(path: Path, ending: str) -> Path:
    """The file of one of several reports: FILE.json becomes FILE-ending.json."""
    return path.with_name(f"{path.stem}-{ending}{path.suffix}")


def _tool_arguments(session: nox.Session) -> list[str]:
    return [each for each in session.posargs if each not in OURS]


@nox.session(venv_backend="none")
def interpreters(session: nox.Session) -> None:
    """Say loudly which of the supported Pythons are missing; an error with --require-all."""
    missing = [python for python in PYTHONS if not _works(python)]
    for python in PYTHONS:
        session.log(f"Python {python}: {'MISSING, NOT TESTED' if python in missing else 'found'}")
    if missing:
        text = f"!!! not tested because an interpreter is missing: {', '.join(missing)} !!!"
        session.warn(text)
        if "--require-all" in session.posargs and not set(missing) <= NOT_REQUIRED:
            session.error(text)


@nox.session(venv_backend="none")
def lint(session: nox.Session) -> None:
    """Style and format (ruff), unused code (vulture), plain words (tests/docs/prose.py), in nox's own environment."""
    session.run(sys.executable, "-m", "ruff", "check", *PACKAGES)
    session.run(sys.executable, "-m", "ruff", "format", "--check", *PACKAGES)
    session.run(sys.executable, "-m", "vulture")
    session.run(sys.executable, "-m", "tests.docs.prose")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Types: mypy --strict and pyright over the packages and what users write: typed examples, the pages' code."""
    session.run(sys.executable, "-m", "mypy")
    session.run(sys.executable, "-m", "mypy", "--strict", "tests/typing")
    session.run(sys.executable, "-m", "pyright", "--pythonpath", sys.executable)
    session.run(sys.executable, "-m", "pytest", "-q", "tests/docs/test_examples.py", "-k", "type_checkers")


@nox.session(venv_backend="none")
def imports(session: nox.Session) -> None:
    """The layers: dependencies point down only (import-linter)."""
    session.run(str(Path(sys.executable).with_name("lint-imports")))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """All tests but the slow ones: everything on nox's own Python, all that depends on Python on the others.

    Real clusters are started on the oldest and the newest, not between them, unless that is nox's own. On nox's own
    Python the branch coverage of the pure core (model, policy, flow) is measured: 95 % at least.
    """
    session.install(*TESTED)
    # A test that needs a second try is a bug to be fixed: it is shown, but does not hide what else is tested.
    manner = ["--dist=worksteal", "--reruns=1", "--rerun-show-tracebacks", "-raR", "--durations=20"]
    marked = "not slow"
    chosen = _tool_arguments(session)
    own = _is_own(session)
    if own and not chosen:
        _test_core(session, [*manner, *QUICK], marked)
        left_out = CORE
    elif own or "--whole" in session.posargs:
        left_out = []
    else:
        marked += " and not one_python and not bulk"
        left_out = OWN_PYTHON_ONLY
        if str(session.python) in BETWEEN:
            marked += " and not cluster"
    manner += ["-n", "3"] if own else ELSEWHERE
    session.run("pytest", *manner, "-m", marked, *(f"--ignore={each}" for each in left_out), *chosen)


def _test_core(session: nox.Session, manner: list[str], marked: str) -> None:
    measured = ["--cov=aurora_router", "--cov-branch", "--cov-report="]
    session.run("pytest", *manner, "-m", f"{marked} and not bulk", *measured, *CORE)
    core = ",".join(f"*/aurora_router/{layer}/*" for layer in ("model", "policy", "flow"))
    session.run("coverage", "report", f"--include={core}", "--fail-under=95")
    session.run("pytest", *manner, "-m", f"{marked} and bulk", *CORE)


def _is_own(session: nox.Session) -> bool:
    return str(session.python) == f"{sys.version_info.major}.{sys.version_info.minor}"


@nox.session
def slow(session: nox.Session) -> None:
    """The long and heavy tests, the storage under the system's PostgreSQL too, many examples of each property."""
    session.install(*TESTED)
    session.run("pytest", "-m", "slow", "--timeout=1800", *_tool_arguments(session))
    session.run("pytest", "--hypothesis-profile=many", "-m", "not slow and not cluster", "--timeout=1800", *CORE)


SHARING = [
    "tests/aws",
    "tests/mysql",
    "tests/cluster",
    "tests/commits",
    "tests/django",
    "tests/integration",
    "tests/poolers",
    "tests/runtime",
    "tests/sqlalchemy",
    "tests/test_connection.py",
]
"""Where the tests of a module share a cluster."""


@nox.session
def order(session: nox.Session) -> None:
    """The tests that share a cluster, each module's in reversed order: none relies on what an earlier one did to it."""
    session.install(*TESTED)
    chosen = _tool_arguments(session) or SHARING
    manner = ["--reversed", *QUICK, "--dist=loadfile"]  # a module is not shared out: its order is the reversed one
    session.run("pytest", *manner, "-m", "not slow and not bulk", *chosen)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into site/, a warning is an error; and run all of its examples."""
    session.install(".[docs,test]", CLUSTER)
    session.run("python", "docs/render.py")
    session.run("sphinx-build", "-W", "--keep-going", "-q", "-E", "docs", "site")
    session.run("pytest", "-q", "tests/docs", *_tool_arguments(session))


@nox.session
def bench(session: nox.Session) -> None:
    """Measure: ours beside what it is compared with, interleaved in one run; takes `--json FILE`."""
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks", *_tool_arguments(session))


SCHEDULES = {"storage": 150_000, "failover": 40_000}


@nox.session
def simulate(session: nox.Session) -> None:
    """Random schedules over the real code, planted bugs included: the storage's, then the client's through failovers.

    From a base seed that is new each time, and printed. Takes `storage` or `failover` (that one alone),
    `--schedules N`, `--seed N`, `--json FILE` (`FILE.storage` and `FILE.failover` where both are played).
    """
    session.install(*TESTED)
    arguments = _tool_arguments(session)
    chosen = [each for each in SCHEDULES if each in arguments] or list(SCHEDULES)
    arguments = [each for each in arguments if each not in SCHEDULES]
    for each in chosen:
        whole = [] if "--schedules" in arguments else ["--schedules", str(SCHEDULES[each])]
        passed = list(arguments)
        if "--json" in passed and len(chosen) > 1:
            passed[passed.index("--json") + 1] += f".{each}"
        session.run("python", "-m", f"tests.simulation.{each}.run", "--mutants", *whole, *passed)


@nox.session
def chaos(session: nox.Session) -> None:
    """2,000 commits cut off, 1,000 failovers under load: nothing lost, doubled or reported wrongly.

    Takes `--commits N`, `--failovers N`, `--seed S`, `--json FILE` (the failovers' go to FILE with `-failovers`).
    """
    session.install(*TESTED)
    parser = argparse.ArgumentParser()
    parser.add_argument("--commits", default="2000")
    parser.add_argument("--failovers", default="1000")
    parser.add_argument("--seed", default=None)
    parser.add_argument("--json", type=Path, default=None)
    args = parser.parse_args(_tool_arguments(session))
    seed = ["--seed", args.seed] if args.seed else []
    for module, count, ending in (("chaos_commits", "commits", ""), ("chaos_failovers", "failovers", "failovers")):
        report = _named_apart(args.json, ending) if args.json and ending else args.json
        into = ["--json", str(report)] if report else []
        session.run("python", "-m", f"benchmarks.{module}", f"--{count}", getattr(args, count), *seed, *into)


OTHERWISE_NAMED = {"etcd": "etcd-server"}
"""Program -> its package, where that has another name."""


def _has_programs(session: nox.Session, *packages: str) -> bool:
    """Whether programs of Debian packages are there; says loudly what is missing, and how to install it."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    missing = [each for each in packages if shutil.which(each, path=places) is None]
    if missing:
        names = " ".join(OTHERWISE_NAMED.get(each, each) for each in missing)
        session.warn(f"!!! not tested because {', '.join(missing)} is missing: apt-get install {names} !!!")
    return not missing


@nox.session
def pools(session: nox.Session) -> None:
    """Pools while readers join and leave, on a cluster and simulated.

    Takes `--size N`, `--leavings N`, `--bounded`, `--json FILE`.

    The figures of the simulation go to FILE with `-simulated`.
    """
    session.install(*TESTED)
    arguments = _tool_arguments(session)
    simulated: list[str] = []
    if "--json" in arguments:
        simulated = ["--json", str(_named_apart(Path(arguments[arguments.index("--json") + 1]), "simulated"))]
    session.run("python", "-m", "tests.simulation.pools", *simulated)
    session.run("python", "-m", "benchmarks.pools", *arguments)


POOLERS = ("pgbouncer", "haproxy")


@nox.session
def poolers(session: nox.Session) -> None:
    """PgBouncer and HAProxy before two clusters, 50 failovers of each setting: nothing routed wrongly, nothing cut.

    Takes `--failovers N`, `--only SETTING`, `--seed S`, `--json FILE`.
    """
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.poolers", *_tool_arguments(session))


@nox.session(name="multi-az")
def multi_az(session: nox.Session) -> None:
    """An RDS Multi-AZ DB cluster: 50 switches and 20 kills, nothing lost, nothing done twice, and what they cost.

    Takes `--switches N`, `--kills N`, `--compare` (the AWS wrapper as well), `--seed S`, `--json FILE`.
    """
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.multi_az", *_tool_arguments(session))


MANAGED = ("patroni", "etcd")


@nox.session
def patroni(session: nox.Session) -> None:
    """A real Patroni cluster: its tests, then 20 switchovers and 20 kills under load, nothing lost or done twice.

    Takes `--switches N`, `--kills N`, `--asynchronous`, `--seed S`, `--json FILE`. The programs are Debian's packages
    patroni, etcd-server and postgresql.
    """
    session.install(*TESTED)
    session.run("pytest", "tests/patroni", "-rs", "--timeout=600")
    session.run("python", "-m", "benchmarks.patroni", *_tool_arguments(session))


@nox.session
def doctor(session: nox.Session) -> None:
    """Misconfigurations that are planted for real are named by the doctor; healthy setups get no finding."""
    session.install(*TESTED)
    session.run("pytest", "tests/doctor", "-p", "no:cacheprovider", *session.posargs)


@nox.session
def aws(session: nox.Session) -> None:
    """Tokens and secrets of AWS, without AWS: no login fails, nothing is shown; takes `--bounded`, `--only`, `--json`.

    Debian's PostgreSQL judges the tokens: apt-get install postgresql.
    """
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.aws", *_tool_arguments(session))


@nox.session
def mysql(session: nox.Session) -> None:
    """PyMySQL on a cluster of MariaDB: costs, 30 kills, hangs, 200 failovers under a ledger.

    Takes `--bounded`, `--only PART`, `--kills N`, `--failovers N`, `--json FILE`.
    """
    session.install(*TESTED)
    if not _has_mariadb():
        session.warn(NO_MARIADB)
        session.skip("no MariaDB")
    session.run("python", "-m", "benchmarks.mysql", *_tool_arguments(session))


NO_MARIADB = "!!! MySQL is not tested because MariaDB is missing: apt-get install mariadb-server mariadb-backup !!!"


def _has_mariadb() -> bool:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    return all(shutil.which(each, path=places) for each in ("mariadbd", "mariadb-install-db", "mariabackup"))


@nox.session
def alarms(session: nox.Session) -> None:
    """False alarms where nothing is wrong but much is odd: 0 in ten minutes; takes `--minutes N`, `--json FILE`."""
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.alarms", *_tool_arguments(session))


@nox.session
def leaks(session: nox.Session) -> None:
    """What a process holds after 200 failovers: no more than before; takes `--failovers N`, `--json FILE`."""
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.leaks", *_tool_arguments(session))


@nox.session
def soak(session: nox.Session) -> None:
    """Long runs of the reference cluster, benchmarks/soak_*.py.

    Takes `--only NAME[,NAME]`, `--minutes N` (for each of them), `--json FILE`.
    """
    session.install(*TESTED)
    session.run("python", "-m", "benchmarks.soak", *_tool_arguments(session))


@nox.session
def cases(session: nox.Session) -> None:
    """Faults that were reported from outside: their tests, three times in a row; takes `--json FILE`, `--runs N`.

    Debian's pgbouncer and haproxy are used where they are installed (`.ci/run` installs them).
    """
    session.install(*TESTED)
    _has_programs(session, *POOLERS)
    session.run("python", "-m", "benchmarks.cases", *_tool_arguments(session))


@nox.session
@nox.parametrize("sqlalchemy", ["2.0", "2.1"])
def compliance(session: nox.Session, sqlalchemy: str) -> None:
    """SQLAlchemy's own dialect suite, ours beside the stock dialect; takes `--json FILE`, `--quick`.

    The figures of the two versions go to FILE with `-2.0` and with `-2.1`.
    """
    series = {"2.0": "SQLAlchemy[asyncio]>=2.0.16,<2.1", "2.1": "SQLAlchemy[asyncio]>=2.1,<2.2"}[sqlalchemy]
    session.install(".[pool]", CLUSTER, series, "pytest")
    arguments = _tool_arguments(session)
    if "--json" in arguments:
        at = arguments.index("--json") + 1
        arguments[at] = str(_named_apart(Path(arguments[at]), sqlalchemy))
    session.run("python", "tests/compliance/run.py", *arguments)


@nox.session
def sessions(session: nox.Session) -> None:
    """SQLAlchemy's own tests of its ORM, with `RoutingSession` too; takes `--only PARTS`, `--json FILE`."""
    session.install(".[sqlalchemy]", CLUSTER, "pytest>=8.2,<10", "pip")
    session.run("python", "tests/compliance/orm.py", *_tool_arguments(session))


@nox.session
@nox.parametrize("django", ["4.2", "5.1", "5.2", "6.0", "6.1"])
def django(session: nox.Session, django: str) -> None:
    """The Django backend on each Django, those that nox's own Python is too old for on the newest that is found."""
    if float(django) >= 6.0 and sys.version_info < (3, 12):
        new_enough = [each for each in PYTHONS if each not in {"3.10", "3.11"} and _works(each)]
        if not new_enough:
            session.warn(f"!!! Django {django} needs Python 3.12, which is not found: NOT TESTED !!!")
            session.skip("no interpreter")
        home = Path(session.create_tmp(), f"venv-{new_enough[-1]}-{django}")
        session.run(f"python{new_enough[-1]}", "-m", "venv", str(home), external=True)
        python = str(home / "bin" / "python")
        session.run(python, "-m", "pip", "install", "-q", *TESTED, f"Django=={django}.*", external=True)
        session.run(python, "-m", "pytest", "tests/django", *_tool_arguments(session), external=True)
        return
    session.install(*TESTED, f"Django=={django}.*")
    session.run("pytest", "tests/django", *_tool_arguments(session))


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """Every pair of versions of Python, SQLAlchemy, psycopg and PostgreSQL in some cell; writes docs/matrix.md."""
    _cells(session, covering())


@nox.session(python=PYTHONS)
def matrix_full(session: nox.Session) -> None:
    """All cells: hours."""
    _cells(session, everything())


def _cells(session: nox.Session, cells: list[Cell]) -> None:
    """Test the cells of a session's Python in one environment, one after the other; a failure ends it at the end."""
    session.install("-e", ".[test]", "-e", "./plugins/cluster[demo,docker,tls]", "pip")
    failed = []
    for cell in [each for each in cells if each.python == session.python]:
        session.install(*cell.requirements)
        if cell.implementation == "python":
            session.run("python", "-m", "pip", "uninstall", "-q", "-y", "psycopg-binary")
        try:
            session.run("python", "-m", "tests.matrix.run", cell.key)
        except nox.command.CommandFailed:
            failed.append(cell.key)
    session.run("python", "docs/render.py")
    if failed:
        session.error("failed: " + "; ".join(failed))


@nox.session
def incumbent(session: nox.Session) -> None:
    """A client that we did not write (aws-advanced-python-wrapper) uses the reference cluster; takes `--json FILE`."""
    session.install(".", "./plugins/cluster[demo]")
    theirs = Path(session.create_tmp()).resolve() / "incumbent"
    session.run("python", "-m", "venv", str(theirs))
    python = str(theirs / "bin" / "python")
    session.run(
        python, "-m", "pip", "install", "-q", "aws-advanced-python-wrapper==3.1.0", "psycopg[binary]", external=True
    )
    session.run("python", "tests/incumbent/run.py", python, *_tool_arguments(session))


@nox.session
def docker(session: nox.Session) -> None:
    """The cluster as twelve containers, faults by docker itself; takes `--failovers N` (1), `--json FILE`."""
    if shutil.which("docker") is None:
        how = "apt-get install docker.io docker-compose, and debootstrap where no image can be pulled"
        session.error(f"Docker is not installed; on Debian: {how}")
    session.install(*TESTED, DOCKER, "pip")
    arguments = _tool_arguments(session)
    for option, variable in (("--failovers", "AURORA_DOCKER_FAILOVERS"), ("--json", "AURORA_DOCKER_JSON")):
        if option in arguments:
            at = arguments.index(option)
            session.env[variable] = arguments[at + 1]
            del arguments[at : at + 2]
    chosen = [] if any(each.startswith("tests/") for each in arguments) else ["tests/docker"]
    _test_containers(session, *chosen, *arguments)


def _test_containers(session: nox.Session, *arguments: str) -> None:
    asked_for = {"AURORA_DOCKER": "1", "PYTHON": str(Path(session.bin) / "python")}
    session.run("pytest", "--timeout=7200", "-m", "not slow", *arguments, env=asked_for)


@nox.session
def bounded(session: nox.Session) -> None:
    """Of what takes long, a part that `.ci/run` has the time for: simulation, chaos, poolers, AWS, MySQL, Docker."""
    session.install(*TESTED, DOCKER, "pip")
    session.run("python", "-m", "tests.simulation.storage.run", "--mutants", "--enough", "1", "--schedules", "2000")
    session.run("python", "-m", "benchmarks.chaos_commits", "--commits", "100")
    session.run("python", "-m", "benchmarks.chaos_failovers", "--failovers", "50", "--clusters", "2")
    session.run("python", "-m", "benchmarks.pools", "--bounded")
    session.run("python", "-m", "benchmarks.multi_az", "--bounded")
    if _has_programs(session, *POOLERS):
        session.run("python", "-m", "benchmarks.poolers", "--failovers", "2")
    if _has_programs(session, *MANAGED):
        session.run("python", "-m", "benchmarks.patroni", "--bounded")
    if any(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        session.run("python", "-m", "benchmarks.aws", "--bounded")
    else:
        session.warn("!!! IAM is not tested because PostgreSQL is missing: apt-get install postgresql !!!")
    if _has_mariadb():
        session.run("python", "-m", "benchmarks.mysql", "--bounded")
    else:
        session.warn(NO_MARIADB)
    _test_containers(session, "tests/docker/test_docker.py", "-k", "not (node or zone) or disconnect")


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheels and sdists of both distributions; use the driver's wheel alone, then both."""
    session.install("build")
    target = (Path(session.create_tmp()) / "dist").resolve()
    shutil.rmtree(target, ignore_errors=True)
    for source in (".", "plugins/cluster"):
        session.run("python", "-m", "build", "--quiet", "--outdir", str(target), source)
    (driver,), (cluster,) = target.glob("aurora_router-*.whl"), target.glob("aurora_router_cluster-*.whl")
    session.run("python", "tests/distributions/wheels.py", str(driver), str(cluster))
    session.run("python", "-m", "venv", "--clear", str(target / "venv"))
    programs = target / "venv" / "bin"
    session.chdir(target)

    def run(program: str, *arguments: str) -> None:
        session.run(str(programs / program), *arguments, external=True)

    run("pip", "install", "--quiet", f"{driver}[binary]")
    run("python", "-c", "import aurora_router")
    run("aurora-router", "--help")
    run("aurora-router", "explain", "demo.cluster-ro-abc123.eu-west-1.rds.amazonaws.com")
    session.run(str(programs / "aurora-router"), "cluster", "up", external=True, success_codes=[2])
    run("pip", "install", "--quiet", str(driver), str(cluster))
    run("pip", "check")
    run("aurora-router", "cluster", "list")
    session.run(str(programs / "aurora-router"), "demo", external=True, success_codes=[2])
    run("pip", "install", "--quiet", str(driver), f"{cluster}[demo]")
    run("aurora-router", "demo", "--readers", "1", "--connections", "20")
