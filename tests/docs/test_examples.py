"""Every example in the pages does what it says, against a real cluster.

The examples of a page are run in order, in one namespace; `await` is allowed at their top level. The hosts of the pages
are those of a cluster that is started for all of them. ``<!-- python … -->`` is an example that readers do not see:
what they are supposed to have. An example with tests in it is given to pytest.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import psycopg
import psycopg.sql
import pytest

from aurora_router_cluster import LocalCluster

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
EXAMPLE = re.compile(r"^```python\n(.*?)^```$|^<!-- python\n(.*?)^-->$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"aurora-router ((?:[a-z]+(?:-[a-z]+)* ?)+)")
HOST = r"mydb\.cluster-(ro-)?c9akciq32\.eu-west-1\.rds\.amazonaws\.com"

LONG = {"cluster-history.md", "howto-mysql.md", "howto-pytest.md", "rds-api.md"}
"""They start clusters of their own; `nox -s docs` runs their examples, too."""


def examples(page):
    """The examples of a page, each with the number of its line."""
    text = page.read_text(encoding="utf-8")
    return [(text[: each.start()].count("\n") + 2, each[1] or each[2]) for each in EXAMPLE.finditer(text)]


WITH_EXAMPLES = [page for page in PAGES if examples(page)]


def test_the_pages_have_examples():
    assert {"README.md", "tutorial.md", "howto-sqlalchemy.md"} <= {page.name for page in WITH_EXAMPLES}


@pytest.fixture(scope="module")
def running():
    with LocalCluster.start(readers=2) as cluster:
        yield cluster


@pytest.fixture
def cluster(running):
    """Without what the page before has left."""
    with psycopg.connect(running.plain_conninfo(), autocommit=True) as conn:
        for (name,) in conn.execute("select tablename from pg_tables where tableowner = current_user").fetchall():
            conn.execute(psycopg.sql.SQL("drop table {} cascade").format(psycopg.sql.Identifier(name)))
    return running


def parameter(page):
    return pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in LONG else [])


@pytest.mark.cluster
@pytest.mark.parametrize("page", [parameter(page) for page in WITH_EXAMPLES])
def test_examples(page, cluster, tmp_path):
    if page.name == "howto-mysql.md" and shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/sbin") is None:
        pytest.skip("MariaDB is missing: apt-get install mariadb-server mariadb-backup")
    namespace = {"__name__": "example"}
    loop = asyncio.new_event_loop()
    try:
        for line, source in examples(page):
            if re.search(r"^def test_", source, re.MULTILINE):
                run_tests(source, tmp_path / f"test_line_{line}.py")
            else:
                run_example(on(cluster, source), f"{page.name} at line {line}", namespace, loop)
    finally:
        loop.close()


UNTYPED = {"howto-django.md"}
"""Settings of Django, which its users do not annotate."""
CHECKERS = {
    "mypy": ("mypy", "--config-file=", "--check-untyped-defs", "--ignore-missing-imports", "--allow-redefinition-new",
             "--local-partial-types"),
    "pyright": ("pyright", "--pythonpath", sys.executable),
}  # fmt: skip


@pytest.mark.parametrize("checker", CHECKERS)
def test_examples_pass_the_users_type_checkers(checker, tmp_path):
    pytest.importorskip(checker, reason="run by `nox -s types`, which has the type checkers")
    for page in WITH_EXAMPLES:
        if page.name not in UNTYPED:
            blocks = [textwrap.indent(source, "    ") for _, source in examples(page)]
            text = "\n".join(["async def page() -> None:", *blocks])  # a function, for the sake of `await`
            (tmp_path / f"page_{page.stem.replace('-', '_')}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", *CHECKERS[checker], str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def run_example(source, name, namespace, loop):
    code = compile(source, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(code, namespace)
    if inspect.iscoroutine(result):
        loop.run_until_complete(result)


def run_tests(source, file):
    file.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", file.parent, file]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def on(cluster, source):
    """An example, with the hosts of a cluster instead of the page's."""

    def target(match):
        return "reader" if match["ro"] else "writer"

    def url(match):
        ours = cluster.url(target(match))
        return ours + ("&" if urlsplit(ours).query else "?") if match.groupdict().get("more") else ours

    def conninfo(match):
        return cluster.conninfo(target(match))

    def without_password(what, match):
        return re.sub(r" password=\S+|(?<=://app):\w+(?=@)", "", what(match))

    source = re.sub(r"\"\n\s+\"\?aurora", "?aurora", source)  # a URL of two lines
    named = HOST.replace("(ro-)", "(?P<ro>ro-)")
    source = re.sub(rf"postgresql\+aurora://app:pw@{named}/app(?P<more>\?)?", url, source)
    source = re.sub(rf"postgresql\+aurora://app@{named}/app", lambda match: without_password(url, match), source)
    source = re.sub(rf"host={named} user=app dbname=app", lambda match: without_password(conninfo, match), source)
    return re.sub(rf"host={named} dbname=app", conninfo, source)


def test_a_url_of_a_page_becomes_one_of_the_cluster():
    class Cluster:
        def url(self, target):
            return f"postgresql+aurora://u:p@{target}:1/app?aurora_dns=x"

        def conninfo(self, target):
            return f"host={target}"

    host = "mydb.cluster-ro-c9akciq32.eu-west-1.rds.amazonaws.com"
    changed = on(Cluster(), f'"postgresql+aurora://app:pw@{host}/app?aurora_balance=random" "host={host} dbname=app"')
    assert changed == '"postgresql+aurora://u:p@reader:1/app?aurora_dns=x&aurora_balance=random" "host=reader"'
    assert dict(parse_qsl(urlsplit(changed.split('"')[1]).query))["aurora_balance"] == "random"


def commands():
    """Every sub-command that a page shows in a block of shell."""
    shown = set()
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL):
            shown |= {each.strip() for each in COMMAND.findall(re.sub(r"#.*", "", block))}
    return sorted(shown)


@pytest.mark.parametrize("command", commands())
def test_commands_exist(command):
    words = command.split()
    known = words[:2] if words[0] in {"cluster", "outcome"} else words[:1]
    done = subprocess.run([sys.executable, "-m", "aurora_router", *known, "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
