"""Taking the ``aurora_`` options out of a conninfo string, and leaving every other character to libpq.

Theory. libpq refuses a key that it does not know, so ours have to go before it sees the string; but it must be libpq
that judges the rest (its keys differ between versions, its errors are what people search for). So the string is read
only as far as to find where an item begins and ends, by libpq's own rules (documentation: "Connection Strings"), and
the ranges of our items are cut out. Where the rest is malformed, reading stops and what follows stays as it is.

Invariant (property test): libpq reads the rest as it would have read the items other than ours.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from aurora_router.errors import InvalidOption
from aurora_router.policy.options import is_option

_URI = re.compile(r"postgres(?:ql)?://")
_BLANKS = " \t\n\r\f\v"


def split_conninfo(conninfo: str) -> tuple[dict[str, str], str]:
    """Part a conninfo string into our options and the string for libpq.

    Args:
        conninfo: keywords and values (``host=… dbname='…'``) or a URI (``postgresql://…?…``).

    Returns:
        The values by key, unquoted or percent-decoded, the last one where a key is repeated, as in libpq (whether the
        keys are known is for `options.split`); and the rest, the very same string when nothing of ours is in it.

    Raises:
        InvalidOption: one of our own items is malformed: no ``=``, an unterminated quote, a bad percent-encoding.
    """
    if _URI.match(conninfo):
        return _split_uri(conninfo)
    options: dict[str, str] = {}
    kept, position = [], 0
    for item in _items(conninfo):
        if is_option(item.key):
            options[item.key] = _value(item)
            kept.append(conninfo[position : item.start])
            position = item.end
    if not options:
        return options, conninfo
    rest = "".join(kept) + conninfo[position:]
    return options, rest if rest.strip(_BLANKS) else ""


# ---------------------------------------------------------------- keywords and values


class _Item(NamedTuple):
    """``key = value`` at ``conninfo[start:end]``; `value` None: it is malformed, for the reason in `fault`."""

    key: str
    value: str | None
    start: int
    end: int
    fault: str = ""


def _value(item: _Item) -> str:
    if item.value is None:
        raise InvalidOption(f"malformed option {item.key}: {item.fault}")
    return item.value


def _items(conninfo: str) -> list[_Item]:
    """The items up to the first malformed one, which is the last of the list."""
    items: list[_Item] = []
    position = _skip(conninfo, 0)
    while position < len(conninfo):
        items.append(_item(conninfo, position))
        if items[-1].value is None:
            break
        position = _skip(conninfo, items[-1].end)
    return items


def _item(conninfo: str, start: int) -> _Item:
    end = start
    while end < len(conninfo) and conninfo[end] not in "=" + _BLANKS:
        end += 1
    key = conninfo[start:end]
    equals = _skip(conninfo, end)
    if conninfo[equals : equals + 1] != "=":
        return _Item(key, None, start, end, "a value is missing, write key=value")
    begin = _skip(conninfo, equals + 1)
    if conninfo[begin : begin + 1] == "'":
        return _quoted(conninfo, key, start, begin + 1)
    return _bare(conninfo, key, start, begin)


def _bare(conninfo: str, key: str, start: int, position: int) -> _Item:
    value = []
    while position < len(conninfo) and conninfo[position] not in _BLANKS:
        if conninfo[position] == "\\":
            position += 1
        value.append(conninfo[position : position + 1])
        position += 1
    return _Item(key, "".join(value), start, min(position, len(conninfo)))


def _quoted(conninfo: str, key: str, start: int, position: int) -> _Item:
    value = []
    while position < len(conninfo) and conninfo[position] != "'":
        if conninfo[position] == "\\":
            position += 1
        value.append(conninfo[position : position + 1])
        position += 1
    if position >= len(conninfo):
        return _Item(key, None, start, len(conninfo), "its quoted value does not end, add a closing '")
    return _Item(key, "".join(value), start, position + 1)


def _skip(conninfo: str, position: int) -> int:
    while position < len(conninfo) and conninfo[position] in _BLANKS:
        position += 1
    return position


# ---------------------------------------------------------------- URIs


def _split_uri(uri: str) -> tuple[dict[str, str], str]:
    base, mark, query = _parted(uri)
    options: dict[str, str] = {}
    others = []
    for parameter in query.split("&") if mark else ():
        written, equals, value = parameter.partition("=")
        key = _decoded(written, None)
        if not is_option(key):
            others.append(parameter)
        elif not equals:
            raise InvalidOption(f"malformed option {key}: a value is missing, write key=value")
        else:
            options[key] = _decoded(value, key)
    if not options:
        return options, uri
    return options, base + ("?" + "&".join(others) if others else "")


def _parted(uri: str) -> tuple[str, str, str]:
    """What stands before the query, ``?``, and the query; a ``?`` in the user's name or password begins none."""
    start = uri.index("://") + 3
    authority = re.compile(r"[^@/]*@").match(uri, start)
    question = uri.find("?", authority.end() if authority else start)
    return (uri, "", "") if question < 0 else (uri[:question], "?", uri[question + 1 :])


def _decoded(text: str, key: str | None) -> str:
    """Percent-decoded as libpq does it (a plus stays a plus); for `key` None, what can't be decoded stays as it is."""
    fault = "a % needs two hexadecimal digits after it, other than 00"
    if not re.search("%(?![0-9a-fA-F]{2})|%00", text):
        try:
            return re.sub(rb"%(..)", lambda code: bytes.fromhex(code[1].decode()), text.encode()).decode()
        except UnicodeError as error:
            fault = str(error)
    if key is None:
        return text
    raise InvalidOption(f"malformed option {key}={text!r}: bad percent-encoding ({fault})")
