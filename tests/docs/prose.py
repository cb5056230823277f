"""Plain words: which words and phrases the project's prose avoids, and a scanner that finds them.

`python -m tests.docs.prose` checks what is listed in `ENFORCED` and prints each hit as ``file:line: words: what to
write instead``. It reads Markdown without its code; of Python files the docstrings, the comments, the messages (string
literals and f-strings of two words or more) and the names of functions, classes, parameters and variables; of TOML and
YAML files and shell scripts the comments; of YAML files also the values of `about`. `--count` prints hits per 10,000
words of each package; paths as arguments are checked instead of `ENFORCED`.

To add a rule, append to `RULES`. To permit one occurrence, append to `ALLOWED`, with the reason; an entry that permits
nothing any more is an error.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

ENFORCED = (
    "*.md",
    "aurora_router",
    "benchmarks",
    "docs",
    "noxfile.py",
    "plugins",
    "pyproject.toml",
    "tests",
)
"""What must have no hit: files and folders. `--count` lists them apart."""

PACKAGES = (
    "aurora_router",
    "plugins/aurora_*",
    "plugins/cluster/aurora_*",
    "benchmarks",
    "tests",
    "docs",
    "*.md",
    "noxfile.py",
)
"""What `--count` lists, one line each."""

PEOPLE = (
    r"(?:\b(?:users?|operators?|people|persons?|engineers?|developers?|maintainers?|contributors?|authors?|newcomers?"
    r"|administrators?|reporters?|students?|teams?|anyone|someone|everyone|those of you)\b,?\s+)$"
)


class Rule(NamedTuple):
    """One word or phrase to avoid."""

    pattern: str
    """A regular expression for whole words; a space in it stands for any white space."""
    instead: str
    """What to write."""
    reason: str
    unless_after: str = ""
    """No hit where the text before it matches this."""


NOT_A_PERSON = "a program, a server or a connection is `it`"
OLD = "old-fashioned; many readers have English as a second language"
INVENTED = "a term of ours where the field has one"
DATA = "only people are told something"

RULES = (
    # Programs are no people.
    Rule("whoever|whomever", "any client that, the process that, `if one`", NOT_A_PERSON),
    Rule("whom", "which, that", NOT_A_PERSON),
    Rule("whose word|(?:own|its|their) word(?! for)", "whose report, its own report", INVENTED),
    Rule("he|him|his|himself|she|her|hers|herself", "it, its, they, their", NOT_A_PERSON),
    Rule("somebody|somebody's", "another client, another process, someone (a person)", NOT_A_PERSON),
    Rule("nobody|nobody's", "no client, no process, no one (a person)", NOT_A_PERSON),
    Rule("everybody|everybody's", "every client, all processes, everyone (people)", NOT_A_PERSON),
    Rule("anybody|anybody's", "any client, any process, anyone (a person)", NOT_A_PERSON),
    Rule("who", "which, that, the client that", f"{NOT_A_PERSON}; `who` follows a word for people", PEOPLE),
    # Data.
    Rule("tell|tells|told|telling|teller", "report, return, list, show, say, pass; distinguish (tell apart)", DATA),
    # Words and phrases that are not modern technical English.
    Rule("anew", "again, from scratch, a new one", OLD),
    Rule("can not", "cannot", "one word"),
    Rule("(?:comes?|came|coming) to (?:nothing|naught)", "fails, has no effect", OLD),
    Rule("(?:this|that|the) very(?! (?:same|few|first|last|large|small|long|short|many))", "this, that, the same", OLD),
    Rule("for want of", "because … is missing", OLD),
    Rule("for ever", "forever, without limit", "one word"),
    Rule("as ever", "as usual, as before", OLD),
    Rule("be it", "whether", OLD),
    Rule("(?:(?:what|whatever) )?(?:becomes?|became|has become) of", "the outcome of, what happens to", OLD),
    Rule("belongs? into", "belongs in, goes in", "no English"),
    Rule("behold|lest|whence|hence forth|thither|hither|heretofore|thereof|therein|whereupon", "a modern word", OLD),
    Rule("mend|mends|mended|mending", "fix, repair", OLD),
    Rule("led astray|lead astray|leads astray|go(?:es)? astray|astray", "routed wrongly, diverged", INVENTED),
    # Terms of the field instead of our own.
    Rule("seats?|stand(?:s|ing)? up|stood up", "reservation; reserve, release", INVENTED),
    Rule("(?:in|a|the|any|its|no) doubts?|doubts?|doubted|doubting", "suspect or confirm the writer", INVENTED),
    Rule("crown|crowns|crowned|crowning|succession", "promote, failover, the new writer", INVENTED),
    Rule("fleets?", "node set; all processes", INVENTED),
    Rule("keepers?", "reaper", INVENTED),
    Rule("ramp|ramps|ramping", "slow start", INVENTED),
    Rule("(?:the|a|its|no) past(?=[.,;:)]| (?:of|in|from|and|is))", "history, an earlier point", INVENTED),
    Rule("rewindings?", "backtrack", INVENTED),
    Rule("tickets?", "commit token", INVENTED),
    Rule("inquir(?:y|ies)|enquir(?:y|ies)", "probe", INVENTED),
    Rule("rosters?", "cluster state", INVENTED),
    Rule("heralds?|heralded", "probe, report", INVENTED),
    Rule("blinded|blind", "locked out: the monitor cannot log in", INVENTED),
    Rule("worlds?", "runtime", INVENTED, r"(?:\b(?:the )?(?:real|whole|hello,?)\s+)$"),
    Rule("background watch|the watch|a watch|its watch|this watch", "the monitor", INVENTED),
    Rule("(?:is|are|be|was|were|been) (?:not )?let in", "can log in, is accepted", INVENTED),
    Rule("(?:by|on|at) (?:its|their|a server's|an instance's) own word", "by its own report", INVENTED),
    Rule("life of (?:the|a) server|lives of (?:the|a) server", "server incarnation", INVENTED),
)

NAMES = {
    "told|tell|tells": "reported, listed, text",
    "doubt|doubts|doubted": "suspicion, suspected",
    "herald|heralds": "probe",
    "seat|seats": "reservation",
    "keeper|keepers": "reaper",
    "fleet|fleets": "nodes",
    "ramp": "slow start",
    "crown|crowned|succession": "promote, failover",
    "ticket|tickets": "commit token",
    "inquiry|inquiries": "probe",
    "roster": "state",
    "mend|mended|astray|anew|nobody|somebody|everybody|whoever|whom": "see the rules for prose",
    "who": "login, instance id: what it is",
}
"""What the parts of names in `NAMED` must not be -> what to write instead."""
NAMED = ("aurora_router/", "plugins/", "benchmarks/", "docs/", "noxfile.py")
"""Where names are checked; in a test a name may say what it stands for there."""


class Allowed(NamedTuple):
    """A phrase that may stay in a file although a rule forbids a word of it."""

    file: str
    phrase: str
    reason: str


ALLOWED: tuple[Allowed, ...] = (
    Allowed("plugins/cluster/aurora_router_cluster/postgres/account.py", "nor 'nobody' exists", "the Unix user"),
    Allowed("tests/cluster/control/test_injector.py", "has no instance 'nobody'", "an instance's name in the test"),
)

SKIPPED = {"tests/docs/prose.py", "tests/docs/test_prose.py"}
"""They list the words."""
GENERATED = "<!-- generated by"
"""A page with this in it is checked where its text comes from."""


@dataclass(frozen=True)
class Piece:
    """A run of prose in a file, with the code in it blanked out."""

    line: int
    text: str


class Hit(NamedTuple):
    """Words that a rule forbids."""

    file: str
    line: int
    words: str
    rule: Rule

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.words!r}: write {self.rule.instead} ({self.rule.reason})"


def _compiled(*patterns: str) -> re.Pattern[str]:
    either = "|".join(patterns).replace(" ", r"\s+")
    return re.compile(rf"(?<![\w`./-])(?:{either})(?![\w(]|\.\w)", re.IGNORECASE)


_COMPILED = [(rule, _compiled(rule.pattern)) for rule in RULES]
_ANY = _compiled(*(rule.pattern for rule in RULES))
"""Finds out whether some rule matches, many times faster than one rule after the other."""

_MARKDOWN_CODE = re.compile(
    r"^[ ]*(`{3,}|~{3,}).*?^[ ]*\1[ ]*$"  # a fenced block
    r"|<!--.*?-->"
    r"|(?<!`)(`+)(?!`).*?(?<!`)\2(?!`)"  # code in a line
    r"|\]\([^)]*\)"  # the target of a link
    r"|https?://\S+",
    re.MULTILINE | re.DOTALL,
)
_PYTHON_CODE = re.compile(r"``.*?``|`[^`\n]*`|^[ ]*(?:>>>|\.\.\. ).*?$|https?://\S+", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"#\s*(?:noqa|type:|pragma|pyright:|mypy:|ruff:|fmt:|!)")
_ABOUT = re.compile(r"^about:(.*(?:\n(?:[ ].*|$))*)", re.MULTILINE)
"""The value of a YAML file's key `about`: prose; what other keys have is data."""
_SQL = re.compile(
    r"\s*(?:select|insert|update|delete|create|drop|alter|set|begin|with|grant|revoke|commit|show|do|copy|call|values"
    r"|truncate|declare|fetch|lock|prepare|explain|if|return|raise)\s",
)


def blanked(text: str, code: re.Pattern[str]) -> str:
    """The text with all code in it replaced by blanks, line for line."""
    return code.sub(lambda match: re.sub(r"[^\n]", " ", match[0]), text)


def markdown_pieces(text: str) -> Iterator[Piece]:
    """The prose of a Markdown page: one piece, so that a phrase over two lines is found."""
    if GENERATED not in text:
        yield Piece(1, blanked(text, _MARKDOWN_CODE))


def python_pieces(text: str) -> Iterator[Piece]:
    """Docstrings, comments and messages of a Python file."""
    yield from _strings(_nodes_of(text))
    yield from _comments(text)


@lru_cache(maxsize=1)
def _nodes_of(text: str) -> list[ast.AST]:
    """All nodes of a Python file, which is read for its strings and then for its names."""
    return list(ast.walk(ast.parse(text)))


def _strings(nodes: list[ast.AST]) -> Iterator[Piece]:
    documented = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    inside = {
        id(part)
        for node in nodes
        if isinstance(node, ast.JoinedStr)
        for part in ast.walk(node)
        if part is not node and isinstance(part, ast.Constant)
    }
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            said = "".join(str(part.value) if isinstance(part, ast.Constant) else "`…`" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            said = node.value
        else:
            continue
        if id(node) in documented or (len(said.split()) > 1 and not _SQL.match(said)):
            yield Piece(node.lineno, blanked(said, _PYTHON_CODE))


def _comments(text: str) -> Iterator[Piece]:
    """Comments; those of consecutive lines are one piece."""
    first, block = 0, list[str]()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        line = token.start[0]
        if block and line != first + len(block):
            yield Piece(first, blanked("\n".join(block), _PYTHON_CODE))
            block = []
        if not block:
            first = line
        block.append(token.string.lstrip("# "))
    if block:
        yield Piece(first, blanked("\n".join(block), _PYTHON_CODE))


def hash_comments(text: str) -> Iterator[Piece]:
    """Comments that begin with `#` and a blank, at the beginning of a line or after a blank."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.search(r"(?:^|\s)# (.*)", line):
            yield Piece(number, blanked(found[1], _PYTHON_CODE))


def yaml_pieces(text: str) -> Iterator[Piece]:
    """Comments of a YAML file, and the values of `about`, which may go on over indented lines."""
    yield from hash_comments(text)
    for found in _ABOUT.finditer(text):
        yield Piece(text.count("\n", 0, found.start()) + 1, blanked(found[1], _PYTHON_CODE))


READERS: dict[str, Callable[[str], Iterator[Piece]]] = {
    ".md": markdown_pieces,
    ".py": python_pieces,
    ".sh": hash_comments,
    ".toml": hash_comments,
    ".yaml": yaml_pieces,
}


def names_of(nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """The line and the name of each function, class, parameter, variable and attribute that is defined."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr


def name_hits_of(file: str, text: str) -> Iterator[Hit]:
    """The names in a file that have a part which `NAMES` forbids."""
    for line, name in names_of(_nodes_of(text)):
        for part in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name):
            for pattern, instead in NAMES.items():
                if re.fullmatch(pattern, part, re.IGNORECASE):
                    yield Hit(file, line, name, Rule(pattern, instead, "as in prose"))


def hits_of(file: str, text: str, allowed: tuple[Allowed, ...] = ALLOWED) -> Iterator[Hit]:
    """Every hit in a file's text that no entry of the allow-list covers."""
    for piece in READERS[Path(file).suffix](text):
        if not _ANY.search(piece.text):
            continue
        spans = _permitted(file, piece.text, allowed)
        for rule, pattern in _COMPILED:
            for match in pattern.finditer(piece.text):
                if rule.unless_after and re.search(rule.unless_after, piece.text[: match.start()], re.IGNORECASE):
                    continue
                if not any(start <= match.start() and match.end() <= end for start, end in spans):
                    line = piece.line + piece.text.count("\n", 0, match.start())
                    yield Hit(file, line, " ".join(match[0].split()), rule)


def _permitted(file: str, text: str, allowed: tuple[Allowed, ...]) -> list[tuple[int, int]]:
    phrases = [r"\s+".join(map(re.escape, each.phrase.split())) for each in allowed if each.file == file]
    return [match.span() for phrase in phrases for match in re.finditer(phrase, text)]


def files(names: tuple[str, ...], root: Path = ROOT) -> Iterator[Path]:
    """The files with prose under some paths, which may have wildcards."""
    for name in names:
        for path in sorted(root.glob(name)):
            found = sorted(path.rglob("*")) if path.is_dir() else [path]
            yield from (each for each in found if each.suffix in READERS and _name(each) not in SKIPPED)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def check(names: tuple[str, ...] = ENFORCED) -> list[Hit]:
    """All hits under some paths."""
    found = []
    for path in files(names):
        name, text = _name(path), path.read_text(encoding="utf-8")
        found += hits_of(name, text)
        if path.suffix == ".py" and name.startswith(NAMED):
            found += name_hits_of(name, text)
    return found


def unused(allowed: tuple[Allowed, ...] = ALLOWED) -> list[Allowed]:
    """Entries of the allow-list without which the file would have no hit more."""

    def count(entry: Allowed, entries: tuple[Allowed, ...]) -> int:
        path = ROOT / entry.file
        return len(list(hits_of(entry.file, path.read_text(encoding="utf-8"), entries))) if path.is_file() else 0

    return [entry for entry in allowed if count(entry, ()) == count(entry, (entry,))]


def words_of(text: str, suffix: str) -> int:
    """How many words of prose a file has."""
    return sum(len(piece.text.split()) for piece in READERS[suffix](text))


def print_counts() -> None:
    """Print, for each package, how many hits it has per 10,000 words."""
    print(f"{'package':40} {'words':>8} {'hits':>6} {'per 10,000':>11}")
    for group in PACKAGES:
        for package in sorted(ROOT.glob(group)):
            paths = list(files((_name(package),)))
            words = sum(words_of(each.read_text(encoding="utf-8"), each.suffix) for each in paths)
            if words:
                hits = len(check((_name(package),)))
                print(f"{_name(package):40} {words:8} {hits:6} {hits / words * 10_000:11.1f}")


def main() -> int:
    """Check, or count."""
    parser = argparse.ArgumentParser(description="Finds words that the project's prose avoids.")
    parser.add_argument("paths", nargs="*", help="files and folders to check instead of those that must be clean")
    parser.add_argument("--count", action="store_true", help="print hits per 10,000 words of each package")
    args = parser.parse_args()
    if args.count:
        print_counts()
        return 0
    found = check(tuple(_name(Path(each).resolve()) for each in args.paths) or ENFORCED)
    found_unused = unused()
    for hit in found:
        print(hit)
    for entry in found_unused:
        print(
            f"tests/docs/prose.py: the allow-list's entry {entry.phrase!r} for {entry.file} permits nothing: delete it"
        )
    return 1 if found or found_unused else 0


if __name__ == "__main__":
    sys.exit(main())
