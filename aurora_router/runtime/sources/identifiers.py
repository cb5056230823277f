"""Ids of instances, as servers report them."""

from __future__ import annotations

import re

_ID = r"[0-9a-z_-]{1,63}"
"""An instance's id: one label of its name in DNS (RDS allows ASCII letters, digits and hyphens)."""
_SHOWN = 40
"""Characters of an id that is none which are shown to people."""


def read_identifier(text: str | None) -> str | None:
    """An instance's id in lower case; None: it is none."""
    if text is None or not text.isascii():
        return None
    return text.lower() if re.fullmatch(_ID, text.lower()) else None


def format_identifier(text: str | None) -> str:
    """A malformed id, for people."""
    if text is None:
        return "NULL"
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}…"
