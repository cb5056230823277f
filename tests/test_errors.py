"""The tree of errors: what is caught by which class, and what a message says."""

from __future__ import annotations

import copy
import errno
import pickle
import traceback
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context
from types import MappingProxyType
from typing import get_args

import psycopg
import pytest

import aurora_router
from aurora_router import (
    Attempt,
    AuroraRouterError,
    CommitOutcomeUnknown,
    FailoverError,
    InstanceTimeout,
    InvalidOption,
    MalformedHost,
    NoInstanceAvailable,
    RoutingError,
    WriterTimeout,
    WriterUnavailable,
    errors,
    psycopg_errors,
)
from aurora_router.model.commit_token import CommitToken, ServerIncarnation
from aurora_router.model.event import Event
from aurora_router.model.instance import Instance, Role
from aurora_router.model.view import Outage, View


def classes_of(module):
    """The errors that a module defines, by name."""
    found = {name: each for name, each in vars(module).items() if isinstance(each, type)}
    return {
        name: each
        for name, each in found.items()
        if issubclass(each, AuroraRouterError) and each.__module__ == module.__name__
    }


NEUTRAL, PSYCOPGS = classes_of(errors), classes_of(psycopg_errors)
OURS = list({**NEUTRAL, **PSYCOPGS}.values())
"""The classes that users have under `aurora_router`."""


@pytest.mark.parametrize("name", PSYCOPGS)
def test_the_family_of_psycopg_mirrors_the_tree(name):
    own, neutral = PSYCOPGS[name], NEUTRAL[name]
    assert getattr(aurora_router, name) is own
    assert issubclass(own, neutral)
    assert issubclass(own, psycopg.Error)
    assert not issubclass(neutral, psycopg.Error)
    assert own.__doc__ == neutral.__doc__
    assert own.sqlstate == getattr(neutral, "sqlstate", None)
    for other, above in NEUTRAL.items():
        assert issubclass(neutral, above) is issubclass(own, PSYCOPGS.get(other, above)), other


def test_a_driver_family_has_every_class_that_is_the_drivers_too():
    known = {errors.AuroraRouterError, InvalidOption, MalformedHost, errors.ExtensionFailed, errors.CausalTokenRejected}
    assert set(NEUTRAL.values()) - known == {NEUTRAL[name] for name in PSYCOPGS}
    for each in fields(psycopg_errors.FAMILY):
        made = getattr(psycopg_errors.FAMILY, each.name)
        assert made.__name__.lower() == each.name.replace("_", "")
        assert made is PSYCOPGS[made.__name__]


@pytest.mark.parametrize("error", [each for each in OURS if issubclass(each, RoutingError)])
def test_whoever_retries_on_operational_errors_retries_on_routing_errors(error):
    assert issubclass(error, psycopg.OperationalError)


@pytest.mark.parametrize("error", [InvalidOption, MalformedHost])
def test_a_wrong_call_is_a_value_error_and_not_worth_a_retry(error):
    assert issubclass(error, ValueError)
    assert not issubclass(error, psycopg.Error)


def test_every_class_is_in_the_tree_of_the_docstring():
    for each in NEUTRAL:
        assert each in errors.__doc__


def test_every_attempt_is_told_and_equal_ones_once():
    attempts = [Attempt("demo-1", "refused", 0.001)] * 3 + [Attempt("demo-2", "timed out", 2.0)]
    error = NoInstanceAvailable("no instance. Tried:", attempts=attempts, view=View(writer="demo-1"))
    assert str(error).splitlines() == [
        "no instance. Tried:",
        "- demo-1: refused (0.001 s), 3 times",
        "- demo-2: timed out (2.000 s)",
    ]
    assert error.attempts == tuple(attempts)
    assert error.view.writer == "demo-1"


def test_a_long_story_is_cut_in_the_message_alone():
    attempts = [Attempt(f"demo-{number}", "refused", 0.0) for number in range(40)]
    error = NoInstanceAvailable("nobody.", attempts=attempts)
    lines = str(error).splitlines()
    assert lines[1] == "- (28 earlier ones)"
    assert len(lines) == 14
    assert lines[-1].startswith("- demo-39")
    assert len(error.attempts) == 40


def test_nothing_tried_nothing_known():
    error = RoutingError("no")
    assert (str(error), error.attempts, error.view, error.sqlstate) == ("no", (), None, None)


def test_a_message_survives_pickling():
    assert str(pickle.loads(pickle.dumps(InvalidOption("unknown option")))) == "unknown option"


# ---------------------------------------------------------------- errors travel

VALUES = {"str": "demo-1", "str | None": None, "int": 3, "bool": True, "float": 0.5, "Role": Role.READER}
EVENTS = [kind(*(VALUES[str(each.type)] for each in fields(kind))) for kind in get_args(Event)]
VIEW = View(
    instances=MappingProxyType({"demo-1": Instance("demo-1", Role.WRITER), "demo-2": Instance("demo-2", Role.READER)}),
    writer="demo-1",
    former=frozenset({"demo-2"}),
    outage=Outage("demo-1", 1.0, "refused", frozenset({("demo-2", "demo-1")})),
    retired=MappingProxyType({"demo-3": 4}),
    refreshed_at=1.5,
)
TOKEN = CommitToken(1, 2, 3, 4, ServerIncarnation("s", 1, 2, None), 5, flush_proven=True, witness="w")


def made(kind):
    """An error of a class with all that it can hold."""
    if issubclass(kind, errors.CommitOutcomeUnknown):
        return kind("not known", token=TOKEN)
    if not issubclass(kind, errors.RoutingError):
        return kind("wrong")
    trail = tuple((float(number), event) for number, event in enumerate(EVENTS))
    error = kind("no", attempts=[Attempt("demo-1", "refused", 0.1)] * 2, view=VIEW, trail=trail)
    if issubclass(kind, errors.FailoverError):
        error.before = VIEW
    return error


@pytest.mark.parametrize("kind", [*OURS, NEUTRAL["WriterTimeout"], NEUTRAL["CommitOutcomeUnknown"]])
@pytest.mark.parametrize(
    "through",
    [copy.copy, copy.deepcopy, *(lambda error, at=at: pickle.loads(pickle.dumps(error, at)) for at in range(2, 6))],
    ids=["copy", "deepcopy", "pickle2", "pickle3", "pickle4", "pickle5"],
)
@pytest.mark.case
def test_every_error_travels_with_all_that_it_holds(kind, through):
    error = made(kind)
    arrived = through(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    held = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    assert {name: value for name, value in vars(arrived).items() if not name.startswith("_")} == held
    assert getattr(arrived, "sqlstate", None) == getattr(error, "sqlstate", None)
    if isinstance(error, RoutingError):
        with pytest.raises(TypeError):
            (arrived.view or VIEW).instances["demo-9"] = None


def _fail(kind):
    raise made(kind)


@pytest.mark.case
def test_errors_cross_processes_as_the_same_class():
    with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as workers:
        for kind in (WriterTimeout, CommitOutcomeUnknown):
            error = workers.submit(_fail, kind).exception(timeout=60)
            assert type(error) is kind
            assert str(error) == str(made(kind))


def test_a_time_out_is_psycopgs():
    for kind in (InstanceTimeout, WriterTimeout):
        assert issubclass(kind, psycopg.errors.ConnectionTimeout)
        assert issubclass(kind, NoInstanceAvailable)
        assert kind.sqlstate == "08001"
    assert issubclass(WriterTimeout, WriterUnavailable)
    assert not issubclass(NoInstanceAvailable, psycopg.errors.ConnectionTimeout)


# ---------------------------------------------------------------- errors leave with a short traceback


def _connect_sync(conninfo):
    aurora_router.connect(conninfo)


@pytest.mark.parametrize(
    ("conninfo", "kind"),
    [
        ("host=127.0.0.1 port=1 aurora_failover_timeout=0", NoInstanceAvailable),
        ("host=127.0.0.1 port=1 sslmode=nonsense", psycopg.OperationalError),
        ("host=a..b", MalformedHost),
        ("host=127.0.0.1 aurora_rol=reader", InvalidOption),
        ("host=127.0.0.1 nonsense=1", psycopg.ProgrammingError),
    ],
)
def test_the_traceback_is_short_and_the_whole_is_logged_at_debug(conninfo, kind, caplog):
    caplog.set_level("DEBUG", "aurora_router")
    with pytest.raises(kind) as caught:
        _connect_sync(conninfo)
    lines = "".join(traceback.format_exception(caught.value)).splitlines()
    assert len([line for line in lines if line.startswith("  File")]) <= 4
    assert len(lines) <= 16 + str(caught.value).count("\n") + str(caught.value.__cause__ or "").count("\n")
    (record,) = [each for each in caplog.records if each.message == "connect failed"]
    assert record.levelname == "DEBUG"
    assert record.exc_info[1] is caught.value
    assert "flow/connect.py" in record.exc_text or "connect_args.py" in record.exc_text


async def test_on_asyncio_alike():
    with pytest.raises(NoInstanceAvailable) as caught:
        await aurora_router.AsyncConnection.connect("host=127.0.0.1 port=1 aurora_failover_timeout=0")
    assert len("".join(traceback.format_exception(caught.value)).splitlines()) <= 20


# ---------------------------------------------------------------- what may be retried


@pytest.mark.parametrize(
    "error",
    [
        NoInstanceAvailable("x"),
        WriterUnavailable("x"),
        WriterTimeout("x"),
        aurora_router.NameNotResolved("x"),
        aurora_router.StaleConnection("x"),
        psycopg.errors.SerializationFailure("x"),
        psycopg.errors.DeadlockDetected("x"),
        psycopg.errors.ReadOnlySqlTransaction("x"),
    ],
)
def test_errors_without_an_effect_may_be_retried(error):
    assert isinstance(error, aurora_router.RETRYABLE)


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        psycopg.InterfaceError("the connection is closed"),
        psycopg.errors.AdminShutdown("x"),
        psycopg.errors.CrashShutdown("x"),
        psycopg.errors.ConnectionFailure("x"),
        psycopg.errors.StatementCompletionUnknown("x"),
        psycopg.errors.TransactionResolutionUnknown("x"),
        psycopg.errors.UniqueViolation("x"),
        CommitOutcomeUnknown("x"),
        aurora_router.TransactionEnded("x"),
        aurora_router.NameNotVerifiable("x"),
        InvalidOption("x"),
        MalformedHost("x"),
        FailoverError("x"),
    ],
)
def test_errors_that_may_have_had_an_effect_or_will_come_again_may_not(error):
    assert not isinstance(error, aurora_router.RETRYABLE)


# ---------------------------------------------------------------- errors of the system


def failing(error):
    async def connect(*_):
        raise error

    return connect


NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files", "retry.py")


def test_a_process_without_a_free_descriptor_gets_an_error_of_psycopg(monkeypatch):
    """What is imported late, when the first attempt has failed, needs one too."""
    monkeypatch.setattr("aurora_router.connecting.route_connection", failing(NO_DESCRIPTOR))
    with pytest.raises(psycopg.OperationalError, match=r"Too many open files.*ulimit -n") as caught:
        aurora_router.connect("host=a.example dbname=b")
    assert caught.value.__cause__ is NO_DESCRIPTOR


async def test_and_on_asyncio(monkeypatch):
    monkeypatch.setattr("aurora_router.connecting.route_connection", failing(NO_DESCRIPTOR))
    with pytest.raises(psycopg.OperationalError, match="Too many open files"):
        await aurora_router.AsyncConnection.connect("host=a.example dbname=b")


def test_what_a_signal_handler_raises_stays_what_it_is(monkeypatch):
    """A TimeoutError is an OSError."""
    monkeypatch.setattr("aurora_router.connecting.route_connection", failing(TimeoutError("of a signal handler")))
    with pytest.raises(TimeoutError, match="of a signal handler"):
        aurora_router.connect("host=a.example dbname=b")
