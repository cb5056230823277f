"""The part of LDAP that PostgreSQL speaks, from what a client sends to what it gets."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from aurora_router_cluster.iam import ldap

NUMBER = ldap.encode(ldap.INTEGER, b"\x07")


def bind(name="uid=seller,cn=demo-1", password="word", method=ldap.SIMPLE):
    """A bind as a client sends it."""
    request = ldap.encode(ldap.INTEGER, b"\x03") + ldap.encode(ldap.TEXT, name.encode())
    request += ldap.encode(method, password.encode())
    return ldap.encode(ldap.SEQUENCE, NUMBER + ldap.encode(ldap.BIND, request))


UNBIND = ldap.encode(ldap.SEQUENCE, NUMBER + ldap.encode(0x42, b""))


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 65_535, 65_536])
def test_an_element_is_read_as_it_was_written(size):
    content = b"x" * size
    assert ldap.decode(ldap.encode(ldap.TEXT, content) + b"rest") == (ldap.TEXT, content, b"rest")


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x05abcd", b"\x30\x82\x01"])
def test_what_was_cut_short_is_refused(data):
    with pytest.raises(ValueError, match="cut short"):
        ldap.decode(data)


def test_the_longest_length_of_a_short_form():
    assert ldap.encode(ldap.TEXT, b"x" * 127)[:2] == b"\x04\x7f"
    assert ldap.encode(ldap.TEXT, b"x" * 128)[:3] == b"\x04\x81\x80"


async def talk(sent, asked=None, answers=1):
    """Send bytes to a server that lets the password ``word`` in; returns its answers, b"" where it closed."""

    def judge(name, password):
        if asked is not None:
            asked.append((name, password))
        return None if password == "word" else "it is another one"

    server = ldap.LdapServer(judge)
    await server.start()
    reader, writer = await asyncio.open_connection(ldap.HOST, server.port)
    try:
        writer.write(sent)
        await writer.drain()
        read = []
        for _ in range(answers):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
                head = await reader.readexactly(2)
                read.append(head + await reader.readexactly(head[1]))
        return read
    finally:
        await server.close()
        writer.close()
        with contextlib.suppress(ConnectionResetError):
            await writer.wait_closed()


async def test_it_asks_about_name_and_password():
    asked = []
    (answer,) = await talk(bind(), asked)
    assert asked == [("uid=seller,cn=demo-1", "word")]
    assert answer == ldap.answer_bind(b"\x07", ldap.SUCCESS, "")


async def test_a_rejection_has_its_reason():
    (answer,) = await talk(bind(password="x" * 3000))
    assert answer == ldap.answer_bind(b"\x07", ldap.INVALID_CREDENTIALS, "it is another one")


async def test_it_serves_one_bind_after_another():
    asked = []
    assert len(await talk(bind(password="a") + bind() + UNBIND, asked, 2)) == 2
    assert [password for _, password in asked] == ["a", "word"]


@pytest.mark.parametrize(
    "sent",
    [
        UNBIND,
        bind(method=0xA3),
        b"GET / HTTP/1.0\r\n\r\n",
        b"\x30\x84\xff\xff\xff\xff",
        ldap.encode(ldap.SEQUENCE, NUMBER + ldap.encode(ldap.BIND, b"\x02")),
        bind().replace(b"word", b"\xff\xff\xff\xff"),
    ],
    ids=["unbind", "another-method", "http", "too-long", "cut-short", "no-text"],
)
async def test_what_is_no_bind_ends_the_connection(sent):
    asked = []
    assert await talk(sent, asked) == []
    assert asked == []


async def test_a_client_that_is_silent_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(ldap, "LOGIN_SECONDS", 0.01)
    assert await talk(b"\x30") == []
