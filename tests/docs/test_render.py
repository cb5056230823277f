"""The generated pages are what the code says now."""

from __future__ import annotations

import importlib.util
import re
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


BLOCK = re.compile(r"^```(.*?)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\([^)\s]*\.md[^)\s]*\)")


def links_in_code(text):
    """The links within blocks that are shown as they are: all but those of other directives than ``code-block``."""
    blocks = [body for kind, body in BLOCK.findall(text) if not kind.startswith("{") or kind.startswith("{code-block}")]
    return [link for body in blocks for link in LINK.findall(body)]


def test_a_link_in_code_is_found():
    page = "```{note}\n[a](b.md)\n```\n[c](d.md)\n```\nx ([y](z.md#a))\n```\n```{code-block} py\n[e](f.md)\n```\n"
    assert links_in_code(page) == ["[y](z.md#a)", "[e](f.md)"]


def test_no_page_shows_a_link_as_its_source():
    found = {page.name: links_in_code(page.read_text(encoding="utf-8")) for page in DOCS.rglob("*.md")}
    assert {page: links for page, links in found.items() if links} == {}
