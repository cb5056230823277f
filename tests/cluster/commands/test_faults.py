"""What the command line takes for faults."""

from __future__ import annotations

import pytest

from aurora_router.cli.main import main


@pytest.mark.parametrize(
    "words",
    [
        ["kill", "demo-1", "--name", "absent"],
        ["kill", "--name", "absent", "demo-1"],
        ["--name", "absent", "kill", "demo-1"],
        ["--json", "kill", "--name", "absent", "demo-1"],
    ],
)
def test_the_target_may_come_before_or_after_options(words, capsys):
    assert main(["cluster", "fault", *words]) == 1
    assert "no cluster 'absent' is running" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["kill", "--name", "absent", "a", "b"], ["kill", "a", "--name", "absent", "b"]])
def test_a_word_too_many_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        main(["cluster", "fault", *words])
    assert "unrecognized arguments" in capsys.readouterr().err
