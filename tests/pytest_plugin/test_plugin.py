from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

FREE = "aurora_router_cluster", "aurora_router", "psycopg", "dns", "asyncio", "tenacity", "sqlalchemy"


def test_loading_it_imports_pytest_only():
    program = f"""
    import sys, pytest
    before = set(sys.modules)
    import aurora_router_pytest.plugin
    new = sorted(name for name in set(sys.modules) - before if name.partition(".")[0] in {FREE!r})
    sys.exit(f"imported: {{new}}" if new else 0)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def pytest_in(path, *words):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(path), *words]
    done = subprocess.run(command, cwd=path, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


SHARED = """
    def connect(cluster, target):
        import psycopg
        return psycopg.connect(cluster.plain_conninfo(target))

    def test_one(aurora_cluster, request):
        assert len(aurora_cluster.readers) == {readers}
        with connect(aurora_cluster, "writer") as connection:
            connection.execute("create table seen as select 1 as one")
        request.config.seen = aurora_cluster.key

    def test_two(aurora_cluster, request):
        with connect(aurora_cluster, "writer") as connection:
            assert connection.execute("select one from seen").fetchone() == (1,)
        assert request.config.seen == aurora_cluster.key
"""


@pytest.mark.cluster
def test_the_cluster_is_shared_by_the_session(tmp_path):
    (tmp_path / "test_shared.py").write_text(textwrap.dedent(SHARED.format(readers=1)))
    code, output = pytest_in(tmp_path, "--aurora-readers=1", "--aurora-flavour=direct")
    assert code == 0, output


PARALLEL = """
    import os, pathlib
    import pytest

    @pytest.mark.parametrize("turn", range(4))
    def test_worker(aurora_cluster, turn, worker_id):
        pathlib.Path(f"{worker_id}-{aurora_cluster.key}").touch()
"""


@pytest.mark.cluster
def test_every_xdist_worker_has_its_own(tmp_path):
    pytest.importorskip("xdist")
    (tmp_path / "test_parallel.py").write_text(textwrap.dedent(PARALLEL))
    code, output = pytest_in(tmp_path, "-n2", "--dist=each", "--aurora-readers=0")
    assert code == 0, output
    seen = [path.name.split("-", 1) for path in tmp_path.iterdir() if path.name.startswith("gw")]
    assert sorted(worker for worker, _ in seen) == ["gw0", "gw1"]
    assert len({key for _, key in seen}) == 2


FACTORY = """
    import pytest
    keys = []

    def test_break_it(aurora_cluster_factory):
        cluster = aurora_cluster_factory(readers=1)
        other = aurora_cluster_factory(readers=0)
        keys.extend((cluster.key, other.key))
        assert len(cluster.readers) == 1
        assert cluster.key != other.key
        cluster.kill("demo-1")

    def test_they_are_gone():
        from aurora_router_cluster import ClusterError, LocalCluster
        assert len(keys) == 2
        for key in keys:
            with pytest.raises(ClusterError):
                LocalCluster.attach(key)
"""


@pytest.mark.cluster
def test_the_factory_s_clusters_end_with_the_test(tmp_path):
    (tmp_path / "test_factory.py").write_text(textwrap.dedent(FACTORY))
    code, output = pytest_in(tmp_path)
    assert code == 0, output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--aurora-readers=16"], "argument --aurora-readers"),
        (["--aurora-readers=x"], "argument --aurora-readers"),
        (["--aurora-flavour=x"], "invalid choice: 'x'"),
    ],
)
def test_wrong_options_are_refused(tmp_path, words, complaint):
    code, output = pytest_in(tmp_path, *words)
    assert code == 4
    assert complaint in output


@pytest.mark.cluster
def test_binaries_that_are_not_there_are_named(tmp_path):
    (tmp_path / "test_shared.py").write_text("def test_it(aurora_cluster): pass\n")
    code, output = pytest_in(tmp_path, "--aurora-postgres=/nowhere")
    assert code == 1
    assert "/nowhere: no such directory" in output
