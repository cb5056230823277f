"""Taking the ``aurora_`` options out of a conninfo string, and leaving every other character to libpq.

Theory. libpq refuses a key that it does not know, so ours have to go before it sees the string; but it must be libpq
that judges the rest (its keys differ between versions, its errors are what people search for). So the string is read
only as far as to find where an item begins and ends, by libpq's own rules (documentation: "Connection Strings"), and
the ranges of our items are cut out. Where the rest is malformed, reading stops and what follows stays as it is.

Invariant (property test): libpq reads the rest as it would have read the items other than ours.
"""

from __future__ import annotations

import re

from aurora_router.errors import InvalidOption, redact
from aurora_router.policy.options import PREFIX, is_option

# Strings, not compiled: importing stays cheap, and `re` remembers what it has compiled.
_AUTHORITY = r"[^@/]*@"
_BLANKS = " \t\n\r\f\v"
_KEY = rf"[{_BLANKS}]*(?P<key>[^={_BLANKS}]*)"
_VALUE = (
    rf"(?s)[{_BLANKS}]*=[{_BLANKS}]*"
    rf"(?:'(?P<quoted>(?:[^'\\]|\\.)*)'|(?!')(?P<bare>(?:[^\\{_BLANKS}]|\\.)*)\\?)"
)


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
    if conninfo.startswith(("postgresql://", "postgres://")):
        return _split_uri(conninfo)
    if PREFIX not in conninfo.lower():
        return {}, conninfo
    return _split_items(conninfo)


# ---------------------------------------------------------------- keywords and values


def _split_items(conninfo: str) -> tuple[dict[str, str], str]:
    options: dict[str, str] = {}
    kept, position, end = [], 0, 0
    while (key := _key(conninfo, end))["key"]:
        value = re.compile(_VALUE).match(conninfo, key.end())
        if value is None:
            _refuse_ours(key["key"], conninfo[key.end() :])
            break
        end = value.end()
        if is_option(key["key"]):
            options[key["key"]] = re.sub(r"\\(.)", r"\1", value["quoted"] or value["bare"] or "", flags=re.DOTALL)
            kept.append(conninfo[position : key.start("key")])
            position = end
    if not options:
        return options, conninfo
    rest = "".join(kept) + conninfo[position:]
    return options, rest if rest.strip(_BLANKS) else ""


def _key(conninfo: str, position: int) -> re.Match[str]:
    found = re.compile(_KEY).match(conninfo, position)
    assert found is not None, "the pattern matches nothing, too"
    return found


def _refuse_ours(key: str, after: str) -> None:
    """Refuse a malformed item if it is ours; of others libpq will say what is wrong."""
    if is_option(key):
        quoted = after.lstrip(_BLANKS).startswith("=")
        fault = "its quoted value does not end, add a closing '" if quoted else "a value is missing, write key=value"
        raise InvalidOption(f"malformed option {key}: {fault}")


# ---------------------------------------------------------------- URIs


def _split_uri(uri: str) -> tuple[dict[str, str], str]:
    if "%" not in uri and PREFIX not in uri.lower():
        return {}, uri
    base, mark, query = _split_query(uri)
    options: dict[str, str] = {}
    others = []
    for parameter in query.split("&") if mark else ():
        written, equals, value = parameter.partition("=")
        key = _decode(written, None)
        if not is_option(key):
            others.append(parameter)
        elif not equals:
            raise InvalidOption(f"malformed option {key}: a value is missing, write key=value")
        else:
            options[key] = _decode(value, key)
    if not options:
        return options, uri
    return options, base + ("?" + "&".join(others) if others else "")


def _split_query(uri: str) -> tuple[str, str, str]:
    """What stands before the query, ``?``, and the query; a ``?`` in the user's name or password begins none."""
    start = uri.index("://") + 3
    authority = re.compile(_AUTHORITY).match(uri, start)
    question = uri.find("?", authority.end() if authority else start)
    return (uri, "", "") if question < 0 else (uri[:question], "?", uri[question + 1 :])


def _decode(text: str, key: str | None) -> str:
    """Percent-decoded as libpq does it (a plus stays a plus); for `key` None, what can't be decoded stays as it is."""
    fault = "a % needs two hexadecimal digits after it, other than 00"
    if not re.search("%(?![0-9a-fA-F]{2})|%00", text):
        try:
            return re.sub(rb"%(..)", lambda code: bytes.fromhex(code[1].decode()), text.encode()).decode()
        except UnicodeError as error:
            fault = str(error)
    if key is None:
        return text
    raise InvalidOption(f"malformed option {key}={redact(text)}: bad percent-encoding ({fault})")
