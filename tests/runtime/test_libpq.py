"""Faults out of real exceptions: refused, hung, closing and rejecting sockets; parameters; rows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import threading

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurora_router import AsyncConnection, Connection
from aurora_router.flow.runtime import DialFailed, Target
from aurora_router.policy.verdict import FaultKind, judge
from aurora_router.runtime import libpq
from aurora_router.runtime.faults import fault_of


@contextlib.contextmanager
def listening(serve):
    """A server whose every connection is handed to `serve`, in a thread; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        ended = threading.Event()

        def accept():
            while not ended.is_set():
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    with connection:
                        serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            ended.set()
            with contextlib.suppress(OSError), socket.create_connection(server.getsockname(), 1):
                pass
            thread.join()


def dialled(**params):
    """The fault of a dial that has to fail."""
    with pytest.raises(psycopg.OperationalError) as caught:
        psycopg.connect("", connect_timeout=2, user="app", dbname="app", sslmode="disable", **params)
    return fault_of(caught.value)


def fatal(sqlstate, text):
    body = b"SFATAL\0VFATAL\0C" + sqlstate.encode() + b"\0M" + text.encode() + b"\0\0"

    def serve(connection):
        connection.recv(1024)
        connection.sendall(b"E" + struct.pack("!i", len(body) + 4) + body)

    return serve


def test_nobody_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fault = dialled(host="127.0.0.1", port=port)
    assert fault.kind is FaultKind.REFUSED
    assert "\n" not in fault.text


def test_no_socket_in_the_directory(tmp_path):
    assert dialled(host=str(tmp_path), port=5432).kind is FaultKind.REFUSED


def test_a_host_that_never_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fault = dialled(host="127.0.0.1", port=silent.getsockname()[1])
    assert fault.kind is FaultKind.TIMEOUT


def test_a_server_that_closes_at_once():
    with listening(lambda connection: connection.recv(1024)) as port:
        assert dialled(host="127.0.0.1", port=port).kind is FaultKind.RESET


def test_a_server_that_resets():
    def reset(connection):
        connection.recv(1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with listening(reset) as port:
        assert dialled(host="127.0.0.1", port=port).kind is FaultKind.RESET


def test_an_unknown_name():
    assert dialled(host="no-such-host.invalid").kind is FaultKind.NAME


def test_a_bad_parameter_is_on_this_side():
    fault = dialled(host="127.0.0.1", sslrootcert="/nowhere/ca.pem", gssencmode="nonsense")
    assert fault.kind is FaultKind.CLIENT


@pytest.mark.parametrize(
    ("sqlstate", "text"),
    [
        ("57P03", "the database system is starting up"),
        ("57P03", "the database system is shutting down"),
        ("57P03", "the database system is not yet accepting connections"),
        ("57P03", "the database system is in recovery mode"),
        ("53300", "sorry, too many clients already"),
        ("53300", 'too many connections for role "app"'),
        ("53300", "remaining connection slots are reserved for roles with the SUPERUSER attribute"),
        ("28P01", 'password authentication failed for user "app"'),
        ("28000", 'no pg_hba.conf entry for host "127.0.0.1", user "app", database "app", no encryption'),
        ("28000", 'role "app" does not exist'),
        ("28000", 'role "app" is not permitted to log in'),
        ("28000", 'PAM authentication failed for user "app"'),
        ("3D000", 'database "app" does not exist'),
        ("42501", 'permission denied for database "app"'),
        ("57P01", "terminating connection due to administrator command"),
    ],
)
def test_sentences_of_the_server_give_its_sqlstate(sqlstate, text):
    with listening(fatal(sqlstate, text)) as port:
        fault = dialled(host="127.0.0.1", port=port)
    assert (fault.kind, fault.sqlstate) == (FaultKind.REJECTED, sqlstate)
    assert text in fault.text


def test_a_sentence_that_is_not_known_is_about_that_server():
    with listening(fatal("08P01", "not today")) as port:
        fault = dialled(host="127.0.0.1", port=port)
    assert judge(fault).name == "rejected"


def test_a_version_that_no_server_speaks_is_final():
    with listening(fatal("0A000", "unsupported frontend protocol")) as port:
        fault = dialled(host="127.0.0.1", port=port)
    assert judge(fault).name == "invalid"


@pytest.mark.parametrize(
    ("error", "kind", "sqlstate"),
    [
        (psycopg.errors.ReadOnlySqlTransaction("no"), FaultKind.REJECTED, "25006"),
        (psycopg.errors.ConnectionTimeout("connection timeout expired"), FaultKind.TIMEOUT, None),
        (psycopg.OperationalError('certificate for "a" does not match host name "b"'), FaultKind.IDENTITY, None),
        (psycopg.OperationalError("No route to host"), FaultKind.UNREACHABLE, None),
        (psycopg.OperationalError("Cannot assign requested address"), FaultKind.EXHAUSTED, None),
        (psycopg.OperationalError("Too many open files"), FaultKind.DENIED, None),
        (psycopg.OperationalError("SSL error: certificate verify failed"), FaultKind.CLIENT, None),
    ],
)
def test_other_exceptions(error, kind, sqlstate):
    fault = fault_of(error)
    assert (fault.kind, fault.sqlstate) == (kind, sqlstate)


# ---------------------------------------------------------------- parameters


def test_an_address_is_dialled_under_the_host_that_is_verified():
    target = Target("demo-2", "demo-2.example.com", 6000, ("127.0.0.1",))
    assert libpq.dial_params({"user": "app"}, target, 0.3) == {
        "user": "app",
        "host": "demo-2.example.com",
        "hostaddr": "127.0.0.1",
        "port": 6000,
    }


def test_what_is_not_known_is_left_to_libpq():
    assert libpq.dial_params({}, Target("local socket", None, None), 7.5) == {}


@pytest.mark.parametrize(
    ("given", "variable", "seconds", "passed"),
    [
        (None, None, 5.0, None),
        (None, None, 200.0, 200),
        ("10", None, 5.0, "10"),
        ("10", None, 10.0, "10"),
        ("3", None, 10.5, 11),
        ("0", None, 20.0, "0"),
        ("1", None, 2.0, "1"),
        (None, "2", 10.0, 10),
        (None, "30", 10.0, None),
    ],
)
def test_psycopg_does_not_give_up_before_the_dial_is_over(given, variable, seconds, passed, monkeypatch):
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)
    if variable is not None:
        monkeypatch.setenv("PGCONNECT_TIMEOUT", variable)
    base = {} if given is None else {"connect_timeout": given}
    assert libpq.dial_params(base, Target("h", "h", 1), seconds).get("connect_timeout") == passed


@pytest.mark.parametrize(
    ("outcomes", "kind"),
    [
        (["refused", "timeout"], FaultKind.REFUSED),
        (["timeout", "unreachable"], FaultKind.TIMEOUT),
        (["unreachable", "timeout"], FaultKind.TIMEOUT),
        (["timeout", "rejected"], FaultKind.REJECTED),
    ],
)
def test_a_dial_of_several_addresses_fails_by_what_says_most(outcomes, kind):
    failures = {
        "refused": psycopg.OperationalError("Connection refused"),
        "timeout": psycopg.errors.ConnectionTimeout("connection timeout expired"),
        "unreachable": psycopg.OperationalError("Network is unreachable"),
        "rejected": psycopg.OperationalError('FATAL:  database "x" does not exist'),
    }
    causes = [failures[each] for each in outcomes]
    dials = libpq.one_by_one(Target("h", "h", 1, ("127.0.0.1", "::1")), 4.0, v6_first=False)
    first, limit = next(dials)
    assert (first.addresses, limit) == (("127.0.0.1",), pytest.approx(2.0, abs=0.1))
    second, limit = dials.send(DialFailed(fault_of(causes[0]), causes[0]))
    assert second.addresses == ("::1",)
    assert limit == pytest.approx(1.0 if outcomes[0] == "refused" else 4.0, abs=0.1)
    with pytest.raises(DialFailed) as caught:
        dials.send(DialFailed(fault_of(causes[1]), causes[1]))
    assert caught.value.fault.kind is kind
    assert type(caught.value.cause) is type(causes[[fault_of(each).kind for each in causes].index(kind)])
    assert "- 127.0.0.1: " in str(caught.value.cause)
    assert "- ::1: " in str(caught.value.cause)


def test_the_base_is_not_touched():
    base = {"user": "app"}
    libpq.dial_params(base, Target("x", "x", 1), 1)
    assert base == {"user": "app"}


def test_no_result_is_a_lost_connection():
    with pytest.raises(DialFailed) as caught:
        libpq.rows_of(None)
    assert caught.value.fault.kind is FaultKind.RESET


@pytest.mark.parametrize("conninfo", ["", "host=a dbname='b c'"])
@pytest.mark.parametrize("params", [{}, {"host": "db", "port": 5432, "password": None, "options": ""}])
def test_a_dial_has_the_parameters_that_psycopg_would_read(conninfo, params):
    """An empty string is not parsed for them."""
    expected = psycopg.Connection._get_connection_params(conninfo, **params)
    assert Connection._get_connection_params(conninfo, **params) == expected
    assert asyncio.run(AsyncConnection._get_connection_params(conninfo, **params)) == expected


ADDRESS = {"hostaddr": "10.0.0.1"}


def make_again(params):
    """What is made for a dial whose keywords psycopg has accepted."""
    libpq.make_conninfo(params)
    return libpq.make_conninfo(params)


@given(
    st.dictionaries(
        st.sampled_from(["user", "password", "dbname", "options", "application_name"]),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    )
)
def test_a_conninfo_says_what_the_parameters_are(params):
    made = make_again({**ADDRESS, **params})
    if any("," in each for each in params.values()):
        assert made is None
    else:
        assert psycopg.conninfo.conninfo_to_dict(made) == {**ADDRESS, **params}


def test_the_first_dial_with_certain_keywords_is_psycopgs(monkeypatch):
    monkeypatch.setattr(libpq, "_valid", set())
    assert libpq.make_conninfo({**ADDRESS, "port": 1}) is None
    assert libpq.make_conninfo({**ADDRESS, "port": 2}) == "hostaddr='10.0.0.1' port='2'"
    assert libpq.make_conninfo({"port": 2, **ADDRESS}) is None


@pytest.mark.parametrize(
    "params",
    [
        {"host": "db"},
        {"hostaddr": ""},
        {"hostaddr": "10.0.0.1,10.0.0.2"},
        {**ADDRESS, "connect_timeout": 3},
        {**ADDRESS, "target_session_attrs": "any"},
        {**ADDRESS, "load_balance_hosts": "random"},
        {**ADDRESS, "gssencmode": "prefer"},
        {**ADDRESS, "user": None},
        {**ADDRESS, "user": "a\0b"},
    ],
    ids=str,
)
def test_a_dial_of_which_psycopg_reads_more_is_psycopgs(params):
    assert make_again(params) is None


@pytest.mark.parametrize("variable", ["PGHOST", "PGPORT", "PGTARGETSESSIONATTRS", "PGCONNECT_TIMEOUT"])
def test_a_variable_that_psycopg_would_read_leaves_the_dial_to_it(monkeypatch, variable):
    assert make_again(ADDRESS) == "hostaddr='10.0.0.1'"
    monkeypatch.setenv(variable, "x")
    assert libpq.make_conninfo(ADDRESS) is None
    monkeypatch.delenv(variable)
    assert libpq.make_conninfo(ADDRESS) is not None
    monkeypatch.setattr(os, "environ", {variable: "x"})  # none of Python's own, so that its inside is not there
    assert libpq.make_conninfo(ADDRESS) is None


def test_dials_that_psycopg_logs_are_psycopgs(caplog):
    assert make_again(ADDRESS) is not None
    with caplog.at_level("DEBUG", logger="psycopg"):
        assert libpq.make_conninfo(ADDRESS) is None


def test_a_keyword_that_libpq_does_not_know_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(psycopg.ProgrammingError, match="no_such"):
            libpq.make_conninfo({**ADDRESS, "no_such": "1"})
