"""How Sphinx builds these pages: `nox -s docs`."""

from __future__ import annotations

from importlib.metadata import version as _version

project = "aurora-router"
author = "The aurora-router authors"
copyright = author  # noqa: A001 - Sphinx's name for it
release = version = _version("aurora-router")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 3
myst_enable_extensions = ["substitution"]
myst_substitutions = {"version": version}
html_theme = "furo"
html_title = "aurora-router"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False
autoclass_content = "both"
exclude_patterns: list[str] = []
