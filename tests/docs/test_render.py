"""The generated pages are what the code says now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
_spec = importlib.util.spec_from_file_location("render", DOCS / "render.py")
assert _spec is not None
assert _spec.loader is not None
render = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(render)


@pytest.mark.parametrize("page", render.PAGES)
def test_page_is_current(page):
    written = (DOCS / page).read_text(encoding="utf-8")
    assert written == render.PAGES[page](), f"docs/{page} is out of date: run python docs/render.py"
