from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from aurora_router_cluster.wire.errors import ScramError
from aurora_router_cluster.wire.scram import ScramClient, ScramServer, ScramVerifier

SALT = bytes.fromhex("5b6d99689d123 58eeca04b141236fa81".replace(" ", ""))
PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def exchange(client: ScramClient, server: ScramServer) -> None:
    client.verify(server.final(client.final(server.first(client.first()))))


def test_the_example_of_rfc_7677() -> None:
    verifier = ScramVerifier.from_password("pencil", salt=SALT)
    server = ScramServer(verifier, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    client = ScramClient("pencil", "rOprNGfwEbeRWgbNEkqO", "user")
    assert client.first() == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    first = server.first(client.first())
    assert first == b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    final = client.final(first)
    assert final.endswith(b",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
    answer = server.final(final)
    assert answer == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    client.verify(answer)


@settings(max_examples=20, deadline=None)
@given(PASSWORDS, PASSWORDS)
def test_only_the_same_password_passes(stored: str, given_password: str) -> None:
    client, server = ScramClient(given_password), ScramServer(ScramVerifier.from_password(stored, iterations=2))
    if stored == given_password:
        exchange(client, server)
    else:
        with pytest.raises(ScramError, match="does not know the password"):
            exchange(client, server)


def test_a_server_without_the_secret_is_found_out() -> None:
    right = ScramVerifier.from_password("secret", iterations=2)
    impostor = ScramVerifier(right.salt, right.iterations, right.stored_key, bytes(32))
    with pytest.raises(ScramError, match="another cluster"):
        exchange(ScramClient("secret"), ScramServer(impostor))


def test_nobody_meets_the_impossible_verifier() -> None:
    with pytest.raises(ScramError):
        exchange(ScramClient("secret"), ScramServer(ScramVerifier.impossible()))


@example(len("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4") - 1, 1, "signature")  # stray bits of base64
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 300), st.integers(1, 255), st.sampled_from(["first", "server", "final", "signature"]))
def test_no_tampered_exchange_passes(at: int, mask: int, which: str) -> None:
    client = ScramClient("secret", "clientnonce")
    server = ScramServer(ScramVerifier.from_password("secret", salt=SALT, iterations=2), "servernonce")

    def tamper(name: str, message: bytes) -> bytes:
        if name != which:
            return message
        damaged = bytearray(message)
        damaged[at % len(damaged)] ^= mask
        return bytes(damaged)

    def tampered_exchange() -> None:
        first = tamper("first", client.first())
        challenge = tamper("server", server.first(first))
        answer = server.final(tamper("final", client.final(challenge)))
        client.verify(tamper("signature", answer))

    with pytest.raises(ScramError):
        tampered_exchange()


@pytest.mark.parametrize("password", ["", "grün", "tab\tinside"])
def test_passwords_that_need_saslprep_are_refused(password: str) -> None:
    with pytest.raises(ScramError, match="printable ASCII"):
        ScramVerifier.from_password(password)


def test_nothing_secret_shows_in_repr() -> None:
    verifier = ScramVerifier.from_password("secret")
    assert "stored_key" not in repr(verifier)
    assert verifier.stored_key.hex() not in repr(verifier)
