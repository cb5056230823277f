"""Handles that write down what is done with psycopg's objects, and what came of it.

A case is written once, as a coroutine over a `Spy` of a connection; each attribute that it reads or sets and each
method that it calls goes into `LOG`, with the value or the exception in a form that two runs can be compared by. The
blocking classes are driven by the same case: what is a coroutine function on the asyncio class is awaited there, and
done within the `await` here.
"""

from __future__ import annotations

import inspect
import pickle
import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import raw_cursor
from psycopg.transaction import AsyncTransaction, Transaction

TWINS = {
    psycopg.Connection: psycopg.AsyncConnection,
    psycopg.Cursor: psycopg.AsyncCursor,
    psycopg.ClientCursor: psycopg.AsyncClientCursor,
    psycopg.RawCursor: psycopg.AsyncRawCursor,
    psycopg.ServerCursor: psycopg.AsyncServerCursor,
    raw_cursor.RawServerCursor: raw_cursor.AsyncRawServerCursor,
    psycopg.Copy: psycopg.AsyncCopy,
    psycopg.Pipeline: psycopg.AsyncPipeline,
    Transaction: AsyncTransaction,
    psycopg.ConnectionInfo: psycopg.ConnectionInfo,
}
"""The blocking classes that are compared, each with its counterpart on asyncio."""
CLASSES = tuple({*TWINS, *TWINS.values()})

VOLATILE = {"backend_pid", "fileno", "wait_timeout"}
"""Names whose values differ from one connection to the next, whatever made it: their types are compared."""

LOG: ContextVar[list[Entry]] = ContextVar("log")
PUBLIC: dict[str, set[str]] = {}
"""The public names of each class, as an instance of it has shown them."""


@dataclass(frozen=True)
class Entry:
    """One thing that was done: on which of psycopg's classes, by which name, and what came of it."""

    of: str
    name: str
    outcome: tuple[Any, ...]


def stock_class(of: Any) -> type:
    """The class of psycopg that an object, or a class, is or derives from; else its own."""
    line = (of if isinstance(of, type) else type(of)).__mro__
    return next((each for each in line if each in CLASSES), line[0])


def note(of: Any, name: str, value: Any) -> Any:
    """Write an outcome down and give it on, in a handle where it is one of psycopg's objects."""
    told = (type(value).__qualname__,) if name in VOLATILE else shown(value)
    LOG.get().append(Entry(stock_class(of).__name__, name, told))
    return spied(value)


def shown(value: Any) -> tuple[Any, ...]:
    """A value by its type and its text, an exception by all that a handler may look at."""
    if isinstance(value, BaseException):
        return ("raises", type(value), steady(str(value)), getattr(value, "sqlstate", None), *_details(value))
    kind = stock_class(value)
    text = steady(repr(bytes(value) if isinstance(value, memoryview) else value))
    return (kind, "" if kind in CLASSES or "0x" in text else text)


def _details(error: BaseException) -> tuple[Any, ...]:
    if not isinstance(error, psycopg.Error):
        return (error.args,)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    names = [each for each in dir(error.diag) if not each.startswith("_") and each != "source_line"]
    return (tuple(steady(str(getattr(copy.diag, each))) for each in names), copy.sqlstate)


def steady(text: str) -> str:
    """A text without what differs between two runs: process ids, and the classes' own names where ours are shown."""
    text = re.sub(r"\b(pid[= ]|process )\d+", r"\1N", text)
    return re.sub(r"server process \(PID \d+\)", "server process (PID N)", text)


def spied(value: Any) -> Any:
    """A handle of one of psycopg's objects, or of what is entered or iterated over; everything else as it is."""
    if isinstance(value, CLASSES):
        public = {each for each in dir(value) if not each.startswith("_")}
        if type(value) in CLASSES:
            PUBLIC.setdefault(type(value).__name__, set()).update(public)
        return Spy(value)
    handled = hasattr(value, "__aenter__") or inspect.isasyncgen(value) or inspect.isgenerator(value)
    return Spy(value) if handled or type(value).__name__ == "_GeneratorContextManager" else value


def plain(value: Any) -> Any:
    """What a handle is of."""
    return object.__getattribute__(value, "_it") if isinstance(value, Spy) else value


class Spy:
    """A handle of an object, or of a class."""

    _it: Any

    def __init__(self, it: Any) -> None:
        object.__setattr__(self, "_it", it)

    def __getattr__(self, name: str) -> Any:
        it = plain(self)
        try:
            value = getattr(it, name)
        except Exception as error:
            note(it, name, error)
            raise
        if inspect.isroutine(value) and getattr(value, "__self__", None) in (it, type(it)):
            return Call(it, name, value)
        return note(it, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; a refusal is written down, and that is all."""
        try:
            setattr(plain(self), name, plain(value))
        except Exception as error:  # noqa: BLE001 - it is in the log
            note(plain(self), name, error)

    async def __aenter__(self) -> Any:
        it = plain(self)
        try:
            entered = await it.__aenter__() if hasattr(it, "__aenter__") else it.__enter__()
        except Exception as error:
            note(it, "enter", error)
            raise
        return note(it, "enter", entered)

    async def __aexit__(self, *error: object) -> bool:
        it = plain(self)
        try:
            left = await it.__aexit__(*error) if hasattr(it, "__aexit__") else it.__exit__(*error)
        except Exception as raised:
            note(it, "leave", raised)
            raise
        return bool(note(it, "leave", left))

    async def __aiter__(self) -> Any:
        it = plain(self)
        try:
            if hasattr(it, "__aiter__"):
                async for each in it:
                    yield note(it, "next", each)
            else:
                for each in it:
                    yield note(it, "next", each)
        except Exception as error:
            note(it, "next", error)
            raise


@dataclass(frozen=True)
class Call:
    """A method, to be called as psycopg's is: awaited where the one on asyncio is."""

    of: Any
    name: str
    method: Any

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        pending = Pending(self, tuple(map(plain, args)), kwargs)
        return pending if self._awaited() else pending.now()

    def _awaited(self) -> bool:
        stock = stock_class(self.of)
        return inspect.iscoroutinefunction(getattr(TWINS.get(stock, stock), self.name, None))


@dataclass(frozen=True)
class Pending:
    """A call that is made when it is awaited."""

    call: Call
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def now(self) -> Any:
        try:
            return note(self.call.of, self.call.name, self.call.method(*self.args, **self.kwargs))
        except Exception as error:
            note(self.call.of, self.call.name, error)
            raise

    def __await__(self) -> Any:
        try:
            result = self.call.method(*self.args, **self.kwargs)
            if inspect.isawaitable(result):
                result = yield from result.__await__()
        except Exception as error:
            note(self.call.of, self.call.name, error)
            raise
        return note(self.call.of, self.call.name, result)


async def tried(action: Any) -> Any:
    """Await what may fail: the log has its exception. Calls that are not awaited are given uncalled."""
    try:
        result = action() if callable(action) else action
        return await result if inspect.isawaitable(result) else result
    except Exception as error:  # noqa: BLE001 - it is in the log
        return error
