"""The driver needs nothing at import that exists on Linux alone; what it uses later it asks the platform for.

A static check, since the tests run on Linux only. (Windows lacks `os.register_at_fork` and `select.poll`, which the
driver needs: docs/comparison.md says that it does not run there.)
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DRIVER = (
    "aurora_router",
    *(f"plugins/aurora_router_{name}" for name in ("aws", "django", "mysql", "patroni", "sqlalchemy")),
)
FILES = [path for package in DRIVER for path in sorted((ROOT / package).rglob("*.py"))]

LINUX_MODULES = {"spwd", "ossaudiodev"}
LINUX_NAMES = {
    "os": {
        "copy_file_range", "eventfd", "eventfd_read", "eventfd_write", "fdatasync", "fallocate", "getrandom",
        "getresuid", "memfd_create", "pidfd_open", "pipe2", "posix_fadvise", "posix_fallocate", "preadv2", "pwritev2",
        "sched_getaffinity", "sched_setaffinity", "sched_setscheduler", "setns", "splice", "timerfd_create", "unshare",
    },
    "select": {"epoll", "EPOLLIN", "EPOLLOUT", "EPOLLRDHUP", "POLLRDHUP"},
    "signal": {"SIGCLD", "SIGPOLL", "SIGPWR", "SIGRTMAX", "SIGRTMIN", "SIGSTKFLT", "sigtimedwait", "sigwaitinfo"},
    "socket": {
        "AF_ALG", "AF_NETLINK", "AF_PACKET", "AF_VSOCK", "MSG_ERRQUEUE", "SO_BINDTODEVICE", "SO_MARK", "SOCK_CLOEXEC",
        "SOCK_NONBLOCK", "TCP_CORK", "TCP_INFO", "TCP_QUICKACK", "TCP_USER_TIMEOUT",
    },
    "resource": {"RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_SIGPENDING", "prlimit"},
}  # fmt: skip
"""What common modules have on Linux alone (Python's documentation, "Availability")."""


def linux_only(tree):
    """What exists on Linux alone, with its line and the functions around it; nothing that `getattr` asks for."""
    found = []

    def walk(node, functions):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            names = [alias.name for alias in node.names]
            found.extend((name, node.lineno, functions) for name in {module, *names} & LINUX_MODULES)
            found.extend(
                (f"{module}.{name}", node.lineno, functions) for name in names if name in LINUX_NAMES.get(module, ())
            )
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.attr in LINUX_NAMES.get(node.value.id, ())
        ):
            found.append((f"{node.value.id}.{node.attr}", node.lineno, functions))
        within = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            walk(child, [*functions, node] if within else functions)

    walk(tree, [])
    return found


def asks_the_platform(function):
    return any(
        isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.platform", "os.uname"}
        for node in ast.walk(function)
    )


@pytest.mark.one_python
def test_nothing_exists_on_linux_alone():
    unguarded = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in FILES
        for name, line, functions in linux_only(ast.parse(path.read_text(encoding="utf-8")))
        if not any(asks_the_platform(each) for each in functions)
    ]
    assert FILES
    assert unguarded == []


@pytest.mark.parametrize(
    "source",
    ["import os\nos.eventfd(0)", "from select import epoll", "import spwd", "import os\ndef f(): return os.pipe2(0)"],
)
def test_the_check_finds_it(source):
    (found,) = linux_only(ast.parse(source))
    assert not any(asks_the_platform(each) for each in found[2])


def test_what_asks_the_platform_first_may_use_it():
    source = "import sys, socket\ndef f():\n    if sys.platform != 'linux': return\n    return socket.TCP_INFO"
    ((name, _, functions),) = linux_only(ast.parse(source))
    assert name == "socket.TCP_INFO"
    assert asks_the_platform(functions[0])
