"""What the report of the outside cases counts."""

from __future__ import annotations

from benchmarks.cases import FAILED, PASSED, SKIPPED, judge, outcomes

REPORT = """<testsuites><testsuite>
<testcase classname="tests.a.test_b" name="test_one[x]" />
<testcase classname="tests.a.test_b" name="test_two"><failure message="assert 1 == 2">long</failure></testcase>
<testcase classname="tests.a.test_b" name="test_three"><skipped message="no pgbouncer" /></testcase>
<testcase classname="tests.a.test_b" name="test_four"><error message="at teardown">long</error></testcase>
</testsuite></testsuites>"""


def test_outcomes_of_a_report(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    assert outcomes(report) == {
        "tests/a/test_b.py::test_one[x]": (PASSED, ""),
        "tests/a/test_b.py::test_two": (FAILED, "assert 1 == 2"),
        "tests/a/test_b.py::test_three": (SKIPPED, "no pgbouncer"),
        "tests/a/test_b.py::test_four": (FAILED, "at teardown"),
    }


def figures(*runs):
    return {each.name: each for each in judge([{name: (outcome, "") for name, outcome in run.items()} for run in runs])}


def test_a_test_has_to_pass_every_time():
    found = figures({"a": PASSED, "b": PASSED}, {"a": PASSED, "b": FAILED})
    assert (found["a"].value, found["a"].ok) == (2, True)
    assert (found["b"].value, found["b"].ok) == (1, False)
    assert found["tests that did not pass in every run"].value == 1


def test_a_test_that_one_run_does_not_have_did_not_pass():
    assert not figures({"a": PASSED}, {})["a"].ok


def test_a_skipped_test_is_listed_and_not_counted_as_run():
    found = figures({"a": SKIPPED}, {"a": SKIPPED})
    assert found["a"].ok
    assert found["tests that could not run here"].value == 1
    assert not found["tests that ran"].ok


def test_parameters_of_a_test_are_one_figure():
    found = figures({"a[x]": PASSED, "a[y]": PASSED}, {"a[x]": PASSED, "a[y]": FAILED})
    assert (found["a"].value, found["a"].bound, found["a"].ok) == (3, 4, False)
    assert found["a"].note == "[y]"
    assert found["tests that ran"].value == 2
