"""Where a note stands on Python 3.10, which has none: in the error's text, whatever the driver puts beside that."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from aurora_router.runtime import incident_notes


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("lost",), ("lost\nnote",)),
        ((2013, "Lost connection"), (2013, "Lost connection\nnote")),
        ((0, b""), (0, b"", "note")),
        ((), ("note",)),
    ],
)
def test_a_note_is_a_part_of_the_text(args, expected, monkeypatch):
    monkeypatch.setattr(incident_notes, "sys", SimpleNamespace(version_info=(3, 10)))
    error = Exception(*args)
    incident_notes._add_note(error, "note")
    assert error.args == expected
