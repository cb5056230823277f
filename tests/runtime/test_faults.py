"""Faults out of texts in any language; those of real sockets are in `test_libpq`."""

from __future__ import annotations

import errno
import locale
import os
import re
import socket
import struct
import subprocess
import sys

import psycopg
import pytest

from aurora_router.policy.verdict import FaultKind, Next, judge, refuses_login
from aurora_router.runtime import faults
from aurora_router.runtime.faults import fault_of
from aurora_router.runtime.languages import SENTENCES

AT = 'connection failed: connection to server at "127.0.0.1", port 5432 failed: '
GERMAN_AT = "connection failed: Verbindung zum Server auf »127.0.0.1«, Port 5432 fehlgeschlagen: "


def kind_of(text):
    return fault_of(psycopg.OperationalError(text)).kind


@pytest.mark.parametrize(("kind", "_", "names"), faults._ERRORS, ids=lambda each: getattr(each, "name", ""))
def test_errors_of_the_system_are_known_by_their_names_in_any_language(kind, _, names, monkeypatch):
    for name in names:
        number = getattr(errno, name)
        assert kind_of(f"{AT}{os.strerror(number)}\n\tIs the server running?") is kind, name
    monkeypatch.setattr(os, "strerror", lambda number: f"システム {number} です")
    for name in names:
        assert kind_of(f"{AT}システム {getattr(errno, name)} です\n") is kind, name


def test_a_locale_that_is_not_utf_8(monkeypatch):
    """libpq's text is taken for UTF-8, whatever the process's locale says it is."""
    monkeypatch.setattr(os, "strerror", lambda number: "Connexion refusée" if number == errno.ECONNREFUSED else "autre")
    monkeypatch.setattr(locale, "getpreferredencoding", lambda *, do_setlocale: "latin-1")
    assert kind_of(AT + "Connexion refusée".encode("latin-1").decode(errors="replace")) is FaultKind.REFUSED
    assert kind_of(AT + "Connexion refusée") is FaultKind.REFUSED


@pytest.mark.parametrize("version", [180001, 150005])
def test_what_libpq_says_itself_is_known_by_its_catalogue(version, monkeypatch):
    german = {
        "timeout expired": "Timeout abgelaufen",
        'could not translate host name "%s" to address: %s': "konnte Hostnamen »%s« nicht in Adresse übersetzen: %s",
        'server certificate for "%s" does not match host name "%s"': "Zertifikat »%s« passt nicht zu »%s«",
        'root certificate file "%s" does not exist\n': "Root-Zertifikat-Datei »%1$s« existiert nicht\n",
        "SSL SYSCALL error: EOF detected": "SSL-SYSCALL-Fehler: Dateiende entdeckt",
    }
    if version < 160000:
        german = {f"{key.strip()}\n": f"{value.strip()}\n" for key, value in german.items()}
    domain = f"libpq5-{version // 10000}"
    monkeypatch.setattr(psycopg.pq, "version", lambda: version)
    monkeypatch.setattr(
        locale, "dgettext", lambda name, text: german.get(text, text) if name == domain else text, raising=False
    )
    assert kind_of(f"{GERMAN_AT}Timeout abgelaufen\n") is FaultKind.TIMEOUT
    assert kind_of("konnte Hostnamen »db.example.com« nicht in Adresse übersetzen: weg\n") is FaultKind.NAME
    assert kind_of(f"{GERMAN_AT}Zertifikat »a« passt nicht zu »b«\n") is FaultKind.IDENTITY
    assert kind_of(f"{GERMAN_AT}Root-Zertifikat-Datei »/x« existiert nicht\nGeben Sie eine an\n") is FaultKind.CLIENT
    assert kind_of(f"{GERMAN_AT}SSL-SYSCALL-Fehler: Dateiende entdeckt\n") is FaultKind.RESET


def test_a_platform_without_catalogues(monkeypatch):
    monkeypatch.delattr(locale, "dgettext", raising=False)
    assert kind_of(f"{GERMAN_AT}Timeout abgelaufen\n") is FaultKind.UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        f"{AT}FATAL:  das sagt kein Server, den man kennt",
        f"{GERMAN_AT}FATAL:  das sagt kein Server, den man kennt",
        f"{AT}ВАЖНО:  ничего не понятно",
        f"{AT}致命错误:  不明",
        f"{AT}FATAL:  canceling statement due to conflict with recovery",
    ],
)
def test_a_sentence_of_the_server_that_is_not_known_is_about_that_server(text):
    fault = fault_of(psycopg.OperationalError(text))
    assert (fault.kind, fault.sqlstate) == (FaultKind.REJECTED, None)
    assert judge(fault).then is Next.ELSEWHERE
    assert judge(fault).quarantine


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("FATAL:  no more connections allowed (max_client_conn)", "53300"),
        ("FATAL:  query_wait_timeout", "53000"),
        ("FATAL:  canceling authentication due to timeout", "53000"),
        ("FATAL:  out of memory", "53000"),
        ("FATAL:  insufficient resources", "53000"),
        ("FATAL:  could not write init file: No space left on device", "53000"),
        ("could not fork new process for connection: Cannot allocate memory", "53000"),
        ("could not fork new process for connection: Resource temporarily unavailable", "53000"),
        ("FATAL:  server login has been failing, try again later (server_login_retry)", "08001"),
        ("FATAL:  pgbouncer cannot connect to server", "08001"),
        ("FATAL:  server conn crashed?", "08001"),
    ],
)
def test_what_passes_is_about_that_server_and_shuts_no_monitor_out(text, sqlstate):
    fault = fault_of(psycopg.OperationalError(AT + text))
    assert (fault.kind, fault.sqlstate) == (FaultKind.REJECTED, sqlstate)
    assert judge(fault).then is Next.ELSEWHERE
    assert judge(fault).quarantine
    assert not refuses_login(fault)


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ('FATAL:  database "app" is not currently accepting connections', "3D000"),
        ("FATAL:  no such database: app", "3D000"),
        ("FATAL:  no such user: app", "28000"),
        ("FATAL:  SASL authentication failed", "28000"),
        ("FATAL:  This RDS proxy has no credentials for the role app. Check the credentials", "28000"),
        ("FATAL:  kein pg_hba.conf-Eintrag für Host »127.0.0.1«", "28000"),
        ('FATAL:  unrecognized configuration parameter "x"', "42704"),
        ('FATAL:  invalid value for parameter "work_mem": "x"', "22023"),
        ("FATAL:  -c search_path requires a value", "22023"),
        ('FATAL:  parameter "enable_seqscan" requires a Boolean value', "22023"),
        ('FATAL:  1 kB is outside the valid range for parameter "work_mem" (64 kB .. 2147483647 kB)', "22023"),
        ('FATAL:  parameter "port" cannot be changed without restarting the server', "55P02"),
        ("FATAL:  unsupported startup parameter: options", "0A000"),
        ("FATAL:  bouncer config error", "0A000"),
        ('FATAL:  permission denied to set parameter "x"', "42501"),
    ],
)
def test_what_every_instance_would_say_is_final(text, sqlstate):
    fault = fault_of(psycopg.OperationalError(AT + text))
    assert (fault.kind, fault.sqlstate) == (FaultKind.REJECTED, sqlstate)
    assert judge(fault).then is Next.RAISE


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("FATAL:  Passwort-Authentifizierung für Benutzer »app« fehlgeschlagen", "28P01"),
        ("FATAL:  authentification par mot de passe échouée pour l'utilisateur  « app »", "28P01"),
        ('FATAL:  autenticação do tipo senha falhou para o usuário "app"', "28P01"),
        ('ВАЖНО:  пользователь "app" не прошёл проверку подлинности (по паролю)', "28P01"),
        ('致命错误:  用户 "app" 的密码认证失败', "28P01"),
        ('FATAL:  データベース"app"は存在しません', "3D000"),
        ("FATAL:  no existe el rol «app»", "28000"),
        ("FATAL:  tut mir leid, schon zu viele Verbindungen", "53300"),
        ("FATAL:  das Datenbanksystem startet", "57P03"),
        ("치명적오류:  데이터베이스 시스템이 새로 가동 중입니다.", "57P03"),
    ],
)
def test_servers_that_speak_another_language(text, sqlstate):
    fault = fault_of(psycopg.OperationalError(AT + text))
    assert (fault.kind, fault.sqlstate) == (FaultKind.REJECTED, sqlstate)


def test_no_sentence_of_one_meaning_fits_another():
    """Neither in its own language nor in one that looks like it."""
    for sqlstate, languages in SENTENCES.items():
        for patterns in languages.values():
            for each in patterns:
                told = f"{AT}FATAL:  {re.sub(r'[.][*]', 'x', each)}".replace("\\", "")
                assert fault_of(psycopg.OperationalError(told)).sqlstate == sqlstate, told


@pytest.mark.parametrize(
    ("text", "sqlstate"),
    [
        ("FATAL:  server login failed: FATAL the database system is starting up", "57P03"),
        ("FATAL:  terminating connection due to unexpected postmaster exit", "57P01"),
        ("FATAL:  the database is shutting down", "57P03"),
    ],
)
def test_what_a_pooler_repeats_of_its_server_is_known(text, sqlstate):
    assert fault_of(psycopg.OperationalError(AT + text)).sqlstate == sqlstate


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('could not open certificate file "/x": Permission denied', FaultKind.CLIENT),
        ('could not read root certificate file "/x": No such file or directory', FaultKind.CLIENT),
        ("fe_sendauth: no password supplied", FaultKind.CLIENT),
        ("SSL error: tlsv1 alert unknown ca", FaultKind.CLIENT),
        ("server does not support SSL, but SSL was required", FaultKind.PROTOCOL),
        ("received invalid response to SSL negotiation: H", FaultKind.PROTOCOL),
        ("server sent an error response during SSL exchange", FaultKind.UNKNOWN),
        # A server that dies says it, and one before version 17 with sslnegotiation=direct.
        ("SSL error: unexpected eof while reading", FaultKind.RESET),
        (f"SSL error: unexpected eof while reading\n{AT}expected authentication request", FaultKind.RESET),
        ("Resource temporarily unavailable", FaultKind.UNKNOWN),
        ("etwas, das niemand kennt", FaultKind.UNKNOWN),
    ],
)
def test_what_libpq_says_in_english(text, kind):
    assert kind_of(AT + text) is kind


@pytest.mark.parametrize(
    ("then", "text"),
    [
        (Next.RAISE, "GSSAPI encryption required but no credential cache"),
        (Next.RAISE, "GSSAPI encryption required but it is not supported over a local socket"),
        (Next.RAISE, 'gssencmode value "require" invalid when GSSAPI support is not compiled in'),
        (Next.RAISE, "GSSAPI authentication not supported"),
        (Next.RAISE, "SSPI authentication not supported"),
        (Next.RAISE, "Kerberos 5 authentication not supported"),
        (Next.RAISE, "authentication method 11 not supported"),
        (Next.RAISE, "none of the server's SASL authentication mechanisms are supported"),
        (Next.RAISE, "no OAuth flows are available (try installing the libpq-oauth package)"),
        (Next.RAISE, "server requires OAuth authentication, but oauth_issuer and oauth_client_id are not both set"),
        (Next.RAISE, "channel binding is required, but client does not support it"),
        (Next.RAISE, "channel binding required, but SSL not in use"),
        (Next.RAISE, "channel binding required, but server authenticated client without channel binding"),
        (Next.RAISE, "channel binding required but not supported by server's authentication request"),
        (
            Next.RAISE,
            'authentication method requirement "scram-sha-256" failed: server did not complete authentication',
        ),
        (Next.RAISE, 'authentication method requirement "!md5" failed: server requested a hashed password'),
        (Next.RAISE, 'require_auth method "md5" is specified more than once'),
        (Next.RAISE, "server did not request an SSL certificate"),
        (Next.RAISE, "server accepted connection without a valid SSL certificate"),
        (Next.RAISE, 'root certificate file "/x" does not exist'),
        (Next.RAISE, "could not load system root certificate paths: unknown"),
        (Next.RAISE, "could not get home directory to locate root certificate file"),
        (Next.RAISE, 'could not read certificate file "/x": no start line'),
        (Next.RAISE, 'certificate present, but not private key file "/x"'),
        (Next.RAISE, 'certificate does not match private key file "/x": key values mismatch'),
        (Next.RAISE, 'private key file "/x" has group access; file must have permissions u=rw (0600) or less'),
        (Next.RAISE, 'private key file "/x" is not a regular file'),
        (Next.RAISE, 'could not load private SSL key "1" from engine "pkcs11": no such key'),
        (Next.RAISE, 'could not initialize SSL engine "pkcs11": no such engine'),
        (Next.RAISE, "could not create SSL context: library has no ciphers"),
        (Next.RAISE, "could not set minimum SSL protocol version: unsupported"),
        (Next.RAISE, "invalid SSL protocol version range"),
        (Next.RAISE, "SSL error: no protocols available"),
        (Next.RAISE, "host name must be specified for a verified SSL connection"),
        (Next.RAISE, "requirepeer parameter is not supported on this platform"),
        (Next.RAISE, "local user with ID 4711 does not exist"),
        (Next.RAISE, 'could not parse network address "x": Name or service not known'),
        (Next.RAISE, 'invalid port number: "x"'),
        (Next.OTHERS, 'requirepeer specifies "root", but actual peer user name is "postgres"'),
        (Next.OTHERS, 'server only supports protocol version 3.0, but "min_protocol_version" was set to 3.2'),
        (Next.OTHERS, "SSL error: tlsv1 alert protocol version"),
        (Next.OTHERS, "SSL error: sslv3 alert handshake failure"),
        (Next.OTHERS, "This may indicate that the server does not support any SSL protocol version between x and y."),
        (Next.OTHERS, "direct SSL connection was established without ALPN protocol negotiation extension"),
        (Next.OTHERS, "SSL connection was established with unexpected ALPN protocol"),
        (Next.OTHERS, "server does not support SSL, but SSL was required"),
        (Next.OTHERS, "server doesn't support GSSAPI encryption, but it was required"),
        (Next.OTHERS, "could not initiate GSSAPI security context: No credentials were supplied"),
        (Next.OTHERS, "GSSAPI continuation error: No credentials were supplied"),
        (Next.OTHERS, "server offered SCRAM-SHA-256-PLUS authentication over a non-SSL connection"),
        (Next.OTHERS, "incorrect server signature"),
        (Next.OTHERS, "received unencrypted data after SSL response"),
        (Next.OTHERS, "received invalid protocol negotiation message: message too short"),
        (Next.OTHERS, "unexpected message from server during startup"),
    ],
)
def test_what_no_retry_changes_is_not_retried(then, text):
    """The sentences of libpq's about what this side requires; Next.OTHERS: another instance may have it."""
    verdict = judge(fault_of(psycopg.OperationalError(AT + text)))
    assert verdict.then is then
    assert not verdict.quarantine


def test_what_no_retry_changes_is_known_in_the_language_of_the_process(monkeypatch):
    german = {
        'server only supports protocol version %d.%d, but "%s" was set to %d.%d': "Server kann %d.%d, »%s« ist %d.%d",
        'requirepeer specifies "%s", but actual peer user name is "%s"': "requirepeer ist »%s«, aber es ist »%s«",
        "GSSAPI encryption required but no credential cache": "GSSAPI-Verschlüsselung verlangt, aber kein Cache",
    }
    monkeypatch.setattr(locale, "dgettext", lambda _, text: german.get(text, text), raising=False)
    assert kind_of(f"{GERMAN_AT}Server kann 3.0, »min_protocol_version« ist 3.2") is FaultKind.PROTOCOL
    assert kind_of(f"{GERMAN_AT}requirepeer ist »root«, aber es ist »postgres«") is FaultKind.PROTOCOL
    assert kind_of("GSSAPI-Verschlüsselung verlangt, aber kein Cache") is FaultKind.CLIENT


def test_a_parameter_that_is_not_understood_is_on_this_side():
    assert fault_of(psycopg.ProgrammingError('invalid connection option "hots"')).kind is FaultKind.CLIENT


# ---------------------------------------------------------------- a real process

WITHOUT_DESCRIPTOR = """
import os, resource
import psycopg
from aurora_router.runtime.faults import fault_of

def dial():
    try:
        psycopg.connect("host=127.0.0.1 port=1 user=app dbname=app")
    except (psycopg.Error, OSError) as error:
        return error

dial()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open(os.devnull, os.O_RDONLY))
except OSError:
    error = dial()
print(error, "=", fault_of(error).kind.name)
for each in held:
    os.close(each)
print(fault_of(psycopg.OperationalError(str(error))).kind.name)
"""


def test_a_process_without_a_descriptor_has_no_evidence_about_the_server():
    """psycopg says the same of other faults, with descriptors to be had: those are not known."""
    pytest.importorskip("resource")
    command = [sys.executable, "-c", WITHOUT_DESCRIPTOR]
    told = subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.splitlines()
    assert told == ["connection is bad: no error details available = DENIED", "UNKNOWN"]


def catalogue(messages):
    """A compiled catalogue of messages, as msgfmt makes it."""
    pairs = [(key.encode(), messages[key].encode()) for key in sorted(messages)]
    size, place, tables, texts = len(pairs), 28 + 16 * len(pairs), [[], []], b""
    for column in (0, 1):
        for pair in pairs:
            tables[column] += [len(pair[column]), place + len(texts)]
            texts += pair[column] + b"\0"
    head = struct.pack("Iiiiiii", 0x950412DE, 0, size, 28, 28 + 8 * size, 0, 0)
    return head + b"".join(struct.pack(f"{2 * size}i", *table) for table in tables) + texts


SPEAKING = """
import locale, sys
locale.setlocale(locale.LC_ALL, "")
locale.bindtextdomain("libc", sys.argv[1])
import psycopg
from aurora_router.runtime.faults import fault_of
try:
    psycopg.connect(f"host=127.0.0.1 port={sys.argv[2]} user=app dbname=app")
except psycopg.OperationalError as error:
    print(error, "=", fault_of(error).kind.name)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="its C library has another way to other languages")
def test_a_process_in_the_language_of_its_user(tmp_path):
    """As with the package ``libc-l10n``; nothing listens, and the process calls that what its user calls it."""
    place = tmp_path / "de" / "LC_MESSAGES"
    place.mkdir(parents=True)
    german = {"": "Content-Type: text/plain; charset=UTF-8\n", "Connection refused": "Verbindungsaufbau abgelehnt"}
    (place / "libc.mo").write_bytes(catalogue(german))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        told = subprocess.run(
            [sys.executable, "-c", SPEAKING, str(tmp_path), port],
            env={**os.environ, "LC_ALL": "C.UTF-8", "LANGUAGE": "de"},
            check=True,
            capture_output=True,
            encoding="utf-8",
        ).stdout
    if "Verbindungsaufbau abgelehnt" not in told:
        pytest.skip("the C library has no catalogues")
    assert told.strip().endswith("= REFUSED")
