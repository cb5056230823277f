"""Sub-commands of other distributions: found by metadata, imported when they are used, named where they are missing."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from aurora_router.cli import command
from aurora_router.cli.main import main

FOREIGN = ("aurora_router_cluster", "aurora_router_pytest", "rich", "sqlalchemy", "trustme")
SAY_WHAT_IS_LOADED = f"""
import sys
from aurora_router.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print("loaded:", *(name for name in sys.modules if name.partition(".")[0] in {FOREIGN!r}))
"""


def loaded_by(*words):
    done = subprocess.run(
        [sys.executable, "-c", SAY_WHAT_IS_LOADED, *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("loaded:")[2].split()


@pytest.mark.parametrize(
    "words", [["--help"], ["explain", "--help"], ["explain", "db.cluster-c9ak.us-east-1.rds.amazonaws.com"]]
)
def test_no_module_of_the_cluster_is_loaded_for(words):
    assert loaded_by(*words) == []


def test_the_command_that_is_run_is_loaded():
    assert "aurora_router_cluster.commands.cluster" in loaded_by("cluster", "up", "--help")


@pytest.fixture
def without_the_cluster(monkeypatch):
    """As if the distribution were not installed; `nox -s build` shows it where it is not."""
    monkeypatch.setattr(command, "entry_points", lambda group: EntryPoints())


@pytest.mark.usefixtures("without_the_cluster")
@pytest.mark.parametrize("words", [["cluster", "up"], ["cluster", "--help"], ["demo", "--readers", "3"], ["demo"]])
def test_without_the_cluster_its_commands_say_what_to_install(words, capsys):
    assert main(words) == 2
    assert capsys.readouterr() == ("", f"aurora-router {words[0]} is not installed. Install it: {command.INSTALL}\n")


@pytest.mark.usefixtures("without_the_cluster")
def test_without_the_cluster_the_help_says_that_they_are_not_installed(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, line in command.CLUSTER_COMMANDS.items():
        assert f"{name} {line} (not installed: run it to see how to install it)" in text


@pytest.mark.parametrize("missing", ["rich", "sqlalchemy"])
def test_without_its_extra_the_demo_says_what_to_install(missing):
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from aurora_router.cli.main import main; sys.exit(main(['demo']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aurora-router demo cannot run: ")
    assert missing in done.stderr
    assert done.stderr.endswith(f"Install what it needs: {command.INSTALL}\n")


class Lazy:
    """A command that finds out late that a package is missing."""

    name = "lazy"
    help = "needs what is not there"

    def configure(self, parser):
        pass

    def run(self, args):
        raise ModuleNotFoundError("No module named 'absent'")


lazy = Lazy()


@pytest.mark.parametrize("where", [f"{__name__}:lazy", "absent:command"])
def test_a_command_of_others_says_what_is_missing(where, monkeypatch, capsys):
    entry = EntryPoint("lazy", where, command.GROUP)
    monkeypatch.setattr(command, "entry_points", lambda group: EntryPoints([entry]))
    assert main(["lazy"]) == 2
    assert capsys.readouterr().err == "aurora-router lazy cannot run: No module named 'absent'.\n"


def test_a_command_of_a_package_without_a_summary_is_listed(tmp_path, monkeypatch, capsys):
    """It broke every command of aurora-router."""
    about = tmp_path / "bare-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bare\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{command.GROUP}]\nhello = {__name__}:lazy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "a command of bare" in capsys.readouterr().out


def test_ctrl_c_while_the_commands_are_imported_is_no_traceback(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("aurora_router.cli.main.plugin_commands", interrupt)
    assert main(["cluster", "up"]) == 130


PRINT_TO_A_CLOSED_PIPE = """
import os, sys
from aurora_router.cli import main
from aurora_router_cluster.commands.cluster import ClusterCommand
from aurora_router_cluster.commands import show
def listing(args):
    for number in range(10):
        show.line(str(number))
ClusterCommand.configure.__globals__["_list"] = listing
sys.stdin.read()
sys.exit(main.main(["cluster", "list"]))
"""


def test_output_that_is_wanted_no_more_is_no_error():
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT_TO_A_CLOSED_PIPE],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    process.stdout.close()  # as `head` does
    process.stdin.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


def test_what_examines_is_loaded_by_the_doctor_alone():
    code = (
        "import sys\nfrom aurora_router.cli.main import main\n"
        "try:\n    main(['--help'])\nfinally:\n"
        "    print('loaded:', *(name for name in sys.modules if name.startswith(('aurora_router.doctor.', 'dns'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = done.stdout.rpartition("loaded:")[2].split()
    assert set(loaded) <= {
        "aurora_router.doctor.facts",
        "aurora_router.doctor.gathering",
        "aurora_router.doctor.gathering.wire",
    }
