"""What PyMySQL's exceptions say, and what that means for routing."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest
from pymysql import err

from aurora_router.policy.verdict import FaultKind, Next, judge
from aurora_router_mysql.faults import fault_of, number_of


def caused_by(error, number=2003):
    made = err.OperationalError(number, f"Can't connect to MySQL server on 'x' ({error})")
    made.original_exception = error
    return made


REFUSAL = [
    (1045, "authentication", Next.RAISE),
    (1698, "authentication", Next.RAISE),
    (1044, "authentication", Next.RAISE),
    (1049, "no_database", Next.RAISE),
    (1040, "too_many_connections", Next.ELSEWHERE),
    (1203, "too_many_connections", Next.ELSEWHERE),
    (1053, "shutting_down", Next.ELSEWHERE),
    (1290, "read_only", Next.ELSEWHERE),
    (1836, "read_only", Next.ELSEWHERE),
    (1792, "read_only", Next.ELSEWHERE),
    (1205, "rejected", Next.ELSEWHERE),
    (1213, "rejected", Next.ELSEWHERE),
    (1142, "forbidden", Next.RAISE),
    (3999, "rejected", Next.ELSEWHERE),
]


@pytest.mark.parametrize(("number", "name", "then"), REFUSAL)
def test_a_servers_number_is_judged(number, name, then):
    fault = fault_of(err.OperationalError(number, "as the server says"))
    assert fault.kind is FaultKind.REJECTED
    assert (judge(fault).name, judge(fault).then) == (name, then)
    assert fault.text == "as the server says"


LOST = [
    (err.OperationalError(2013, "Lost connection to MySQL server during query"), FaultKind.RESET),
    (err.OperationalError(2006, "MySQL server has gone away (BrokenPipeError(32, 'Broken pipe'))"), FaultKind.RESET),
    (err.OperationalError(1927, "Connection was killed"), FaultKind.RESET),
    (err.OperationalError(2013, "Lost connection to MySQL server during query (timed out)"), FaultKind.TIMEOUT),
    (caused_by(ConnectionRefusedError(errno.ECONNREFUSED, "refused")), FaultKind.REFUSED),
    (caused_by(FileNotFoundError(errno.ENOENT, "no socket"), 2002), FaultKind.REFUSED),
    (caused_by(TimeoutError(errno.ETIMEDOUT, "timed out")), FaultKind.TIMEOUT),
    (caused_by(OSError(errno.EHOSTUNREACH, "no route")), FaultKind.UNREACHABLE),
    (caused_by(ConnectionResetError(errno.ECONNRESET, "reset")), FaultKind.RESET),
    (caused_by(OSError(errno.EMFILE, "too many open files")), FaultKind.DENIED),
    (caused_by(OSError(errno.EADDRNOTAVAIL, "no port")), FaultKind.EXHAUSTED),
    (caused_by(socket.gaierror(-2, "unknown")), FaultKind.NAME),
    (caused_by(ssl.SSLEOFError(8, "EOF")), FaultKind.RESET),
    (caused_by(ssl.SSLError(1, "wrong version number")), FaultKind.PROTOCOL),
    (caused_by(ssl.SSLCertVerificationError(1, "certificate verify failed")), FaultKind.CLIENT),
    (err.OperationalError(2026, "SSL is required but the server doesn't support it"), FaultKind.PROTOCOL),
    (err.OperationalError(2059, "Authentication plugin 'x' not configured"), FaultKind.CLIENT),
    (err.OperationalError("received multiple auth switch requests"), FaultKind.UNKNOWN),
    (ValueError("Did not specify a username"), FaultKind.CLIENT),
]


@pytest.mark.parametrize(("error", "kind"), LOST, ids=str)
def test_a_clients_error_is_judged_by_its_cause(error, kind):
    assert fault_of(error).kind is kind


def test_a_certificate_of_another_name_is_one():
    mismatch = ssl.SSLCertVerificationError(1, "certificate verify failed")
    mismatch.verify_code, mismatch.verify_message = 62, "Hostname mismatch, certificate is not valid for 'x'."
    assert fault_of(caused_by(mismatch)).kind is FaultKind.IDENTITY


def test_an_unknown_error_ends_no_connect():
    assert judge(fault_of(err.OperationalError(2099, "new"))).then is Next.ELSEWHERE


def test_only_pymysqls_errors_have_numbers():
    assert number_of(err.ProgrammingError(1146, "no table")) == 1146
    assert number_of(OSError(5, "I/O")) is None
    assert number_of(err.Error()) is None
