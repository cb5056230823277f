"""Functions that act are named by verbs: a bare participle (`failed`, `lost`) does not say what a function does.

Properties are exempt, and so are names that others prescribe.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
PACKAGES = ("aurora_router", "plugins")
IRREGULAR = (
    r"began|beaten|begun|bitten|blown|bound|broke|broken|came|caught|chose|chosen|done|drawn|driven|fallen|fed|felt|"
    r"forgotten|found|frozen|gave|given|gone|grown|heard|held|hidden|kept|known|laid|led|left|lost|made|meant|met|paid|"
    r"said|saw|seen|sent|shown|slept|sold|spent|spoken|stolen|stood|struck|taken|thought|thrown|told|took|torn|"
    r"understood|went|woken|won|worn|written|wrote"
)
"""Participles and past tenses that do not end in ``-ed``; those that are verbs in the present as well are left out."""
VERBS = frozenset({"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed", "succeed"})
"""Verbs in the present that end in ``-ed``."""
ALLOWED = {
    "weighted": "the strategy's name, as the option `aurora_balance` has it",
    "frozen": "a decorator, named as that of attrs",
    "served": "a decorator: it marks a method as one that is served",
}
"""Name -> why it is right."""


def is_participle(name: str) -> bool:
    """Whether a name is a bare participle."""
    bare = name.strip("_")
    return re.fullmatch(IRREGULAR, bare) is not None or (bare.endswith("ed") and "_" not in bare and bare not in VERBS)


def find_participles(source: str) -> list[tuple[int, str]]:
    """Return line and name of each function that is no property and is named by a bare participle."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name):
            decorators = [ast.unparse(each) for each in node.decorator_list]
            if not any(each.endswith(("property", ".setter")) for each in decorators):
                found.append((node.lineno, node.name))
    return found


def test_no_function_is_named_by_a_participle():
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
        for line, name in find_participles(path.read_text(encoding="utf-8"))
        if name not in ALLOWED
    ]
    assert found == []


def test_what_is_allowed_is_there():
    text = "".join(path.read_text(encoding="utf-8") for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    assert [name for name in ALLOWED if f"def {name}(" not in text] == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("def lost(): ...", ["lost"]),
        ("async def _checked(): ...", ["_checked"]),
        ("class A:\n    def known(self): ...", ["known"]),
        ("class A:\n    @property\n    def known(self): ...", []),
        ("class A:\n    @functools.cached_property\n    def known(self): ...", []),
        ("def feed(): ...\ndef record_lost(): ...\ndef is_lost(): ...\ndef read(): ...", []),
    ],
)
def test_the_check_finds_them(source, names):
    assert [name for _, name in find_participles(source)] == names
