"""Names against a name server of the test's own: TTL, aliases, failures, search list, hosts file, fall-back."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time

import dns.asyncbackend
import dns.resolver
import pytest

from aurora_router import connect
from aurora_router.errors import NameNotResolved
from aurora_router.flow.runtime import DialFailed
from aurora_router.policy.verdict import FaultKind
from aurora_router.runtime import dns as ours
from aurora_router.runtime.dns import Names, names_for
from aurora_router.runtime.hostsfile import HostsFile, parse_hosts
from tests.runtime.nameserver import NameServer

RECORDS = {
    "a.example.test": [("A", 5, "127.0.0.2")],
    "both.example.test": [("AAAA", 60, "::1"), ("A", 60, "127.0.0.3"), ("A", 60, "127.0.0.4")],
    "six.example.test": [("AAAA", 60, "::1")],
    "empty.example.test": [("TXT", 60, "nothing")],
    "alias.example.test": [("CNAME", 30, "second.example.test.")],
    "second.example.test": [("CNAME", 2, "both.example.test.")],
    "short.corp.test": [("A", 60, "127.0.0.5")],
    "two.labels.corp.test": [("A", 60, "127.0.0.6")],
}


@pytest.fixture
def server():
    with NameServer(RECORDS) as server:
        yield server


@pytest.fixture(params=["blocking", "asyncio"])
def resolve(request):
    """One way of asking `Names`, blocking and in an event loop."""

    def blocking(names, host, **how):
        return names.resolve(host, **how)

    def on_asyncio(names, host, **how):
        return asyncio.run(names.resolve_async(host, **how))

    return blocking if request.param == "blocking" else on_asyncio


@pytest.fixture
def clock(monkeypatch):
    """The clock of what is remembered, set by the test."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(ours, "time", made)
    return made


def own(server, lifetime=2.0):
    return Names(server.address, lifetime)


def refused(names, host, resolve):
    with pytest.raises(DialFailed) as caught:
        resolve(names, host)
    assert caught.value.fault.kind is FaultKind.NAME
    return str(caught.value)


def test_addresses_ipv4_first(server, resolve):
    found = resolve(own(server), "Both.example.test.")
    assert found.addresses == ("127.0.0.3", "127.0.0.4", "::1")
    assert found.canonical == "both.example.test"


def test_ipv6_alone(server, resolve):
    assert resolve(own(server), "six.example.test").addresses == ("::1",)


def test_aliases_are_followed_and_the_shortest_ttl_counts(server, resolve, clock):
    names = own(server)
    assert resolve(names, "alias.example.test").canonical == "both.example.test"
    clock.now += 1.9
    resolve(names, "alias.example.test")
    assert server.asked["alias.example.test", "A"] == 1
    clock.now += 0.2
    resolve(names, "alias.example.test")
    assert server.asked["alias.example.test", "A"] == 2


def test_an_answer_is_remembered_for_its_ttl(server, resolve, clock):
    names = own(server)
    for later, asked in ((0.0, 1), (4.9, 1), (0.2, 2)):
        clock.now += later
        assert resolve(names, "a.example.test").addresses == ("127.0.0.2",)
        assert server.asked["a.example.test", "A"] == asked


def test_fresh_asks_again(server, resolve):
    names = own(server)
    resolve(names, "a.example.test")
    resolve(names, "a.example.test", fresh=True)
    assert server.asked["a.example.test", "A"] == 2


def test_a_query_looks_for_no_module(server, resolve, monkeypatch):
    """A fork meanwhile would leave the lock of that module taken in the child."""
    names, sought = own(server), []

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            sought.append(name)

    resolve(names, "both.example.test")
    monkeypatch.setattr(dns.asyncbackend, "_default_backend", None)  # as before the first query of a process
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    resolve(names, "both.example.test", fresh=True)
    assert sought == []


@pytest.mark.parametrize(
    ("host", "text"), [("none.example.test", "does not exist"), ("empty.example.test", "has no address records")]
)
def test_no_address_names_host_and_server_and_is_remembered_for_a_second(server, resolve, clock, host, text):
    names = own(server)
    told = refused(names, host, resolve)
    assert repr(host) in told
    assert text in told
    assert f"{server.address[0]}:{server.address[1]}" in told
    asked = server.asked.copy()
    assert refused(names, host, resolve) == told
    assert server.asked == asked
    clock.now += 1.1
    refused(names, host, resolve)
    assert server.asked != asked


def test_the_last_answer_is_known_while_there_is_none(server, resolve, clock):
    names = own(server)
    assert names.last("alias.example.test") is None
    found = resolve(names, "alias.example.test")
    del server.records["alias.example.test"]
    for _ in range(3):
        clock.now += 1.1
        assert names.last("alias.example.test") == found
        clock.now += 1.1
        refused(names, "alias.example.test", resolve)
        refused(names, "alias.example.test", resolve)


def test_what_comes_up_is_found_after_a_second(server, resolve, clock):
    names = own(server)
    refused(names, "new.example.test", resolve)
    server.records["new.example.test"] = [("A", 5, "127.0.0.9")]
    clock.now += 1.1
    assert resolve(names, "new.example.test").addresses == ("127.0.0.9",)


@pytest.mark.parametrize("state", ["silent", "servfail"])
def test_a_server_that_fails_is_given_up_and_the_system_is_not_asked(server, resolve, monkeypatch, state):
    monkeypatch.setattr(ours, "_look_up", lambda *_: pytest.fail("the system's resolver was asked"))
    server.state = state
    assert "a.example.test" in refused(own(server, 0.3), "a.example.test", resolve)


def test_nobody_listens_at_the_servers_address(server, resolve):
    free = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    free.bind(("127.0.0.1", 0))
    address = free.getsockname()
    free.close()
    refused(Names(address, 0.3), "a.example.test", resolve)


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.8", "127.0.0.8"), ("::1", "::1"), ("[::1]", "::1"), ("2001:DB8::0:1", "2001:db8::1")],
)
def test_an_address_is_itself(server, resolve, host, address):
    assert resolve(own(server), host).addresses == (address,)
    assert not server.asked


# ---------------------------------------------------------------- the system's configuration


@pytest.fixture
def system(server, monkeypatch, tmp_path):
    """Names by a resolv.conf and a hosts file of the test's own."""
    original = dns.resolver.BaseResolver.read_resolv_conf
    configuration = tmp_path / "resolv.conf"
    configuration.write_text(f"nameserver {server.address[0]}\nsearch corp.test\noptions ndots:2\n")

    def read(resolver, _):
        original(resolver, str(configuration))
        resolver.port = server.address[1]

    monkeypatch.setattr(dns.resolver.BaseResolver, "read_resolv_conf", read)
    monkeypatch.setattr(ours, "_modified_at", lambda _: configuration.stat().st_mtime if configuration.exists() else 0)
    names = Names(None, 1.0)
    names._hosts = HostsFile(tmp_path / "hosts")
    names.configuration = configuration
    names.hosts_file = tmp_path / "hosts"
    return names


def lookups(monkeypatch, answer):
    """What the system's resolver is asked for, and says."""
    asked = []

    def look_up(host, tell):
        asked.append(host)
        threading.Thread(target=tell, args=(answer,)).start()

    monkeypatch.setattr(ours, "_look_up", look_up)
    return asked


@pytest.mark.parametrize(("host", "address"), [("short", "127.0.0.5"), ("two.labels", "127.0.0.6")])
def test_the_search_list_is_used(system, resolve, host, address):
    assert resolve(system, host).addresses == (address,)


def test_ndots_decides_which_name_is_asked_first(system, resolve, server):
    resolve(system, "two.labels")
    assert next(iter(server.asked)) == ("two.labels.corp.test", "A")
    server.asked.clear()
    resolve(system, "a.example.test")
    assert next(iter(server.asked)) == ("a.example.test", "A")


def test_the_hosts_file_comes_before_dns(system, resolve, server):
    system.hosts_file.write_text("127.0.0.77 A.example.test other\n")
    assert resolve(system, "a.Example.test").addresses == ("127.0.0.77",)
    assert not server.asked
    system.hosts_file.write_text("# nothing any more, and longer\n")
    os.utime(system.hosts_file, ns=(1, 1))
    assert resolve(system, "a.example.test").addresses == ("127.0.0.2",)


def test_an_own_server_overrules_the_hosts_file(server, resolve):
    server.records["localhost"] = [("A", 5, "127.0.0.99")]
    assert resolve(own(server), "localhost").addresses == ("127.0.0.99",)


def test_a_changed_configuration_is_read_again(system, resolve):
    resolve(system, "short")
    system.configuration.write_text(system.configuration.read_text().replace("corp.test", "example.test"))
    os.utime(system.configuration, ns=(1, 1))
    assert resolve(system, "a").addresses == ("127.0.0.2",)


def test_what_dns_does_not_know_is_asked_of_the_system(system, resolve, monkeypatch, clock):
    asked = lookups(monkeypatch, ("127.0.0.66",))
    assert resolve(system, "by-nss").addresses == ("127.0.0.66",)
    clock.now += 4.9
    resolve(system, "by-nss")
    assert asked == ["by-nss"]
    clock.now += 0.2
    resolve(system, "by-nss")
    assert len(asked) == 2


def test_no_configuration_at_all(system, resolve, monkeypatch):
    system.configuration.unlink()
    asked = lookups(monkeypatch, ("127.0.0.66",))
    assert resolve(system, "a.example.test").addresses == ("127.0.0.66",)
    assert asked == ["a.example.test"]


def test_dead_name_servers_are_told_with_what_the_system_says(system, resolve, server, monkeypatch):
    server.state = "silent"
    lookups(monkeypatch, socket.gaierror(-2, "Name or service not known"))
    told = refused(system, "a.example.test", resolve)
    assert "the system's resolver says: Name or service not known" in told
    assert "the system's name servers" in told


def test_a_system_that_does_not_answer_is_given_up(system, resolve, monkeypatch):
    monkeypatch.setattr(ours, "_look_up", lambda *_: None)
    monkeypatch.setattr(ours, "SYSTEM_SECONDS", 0.05)
    assert "the system's resolver did not answer" in refused(system, "nobody", resolve)


def test_the_systems_resolver_itself(resolve, system, server):
    server.state = "servfail"
    assert "127.0.0.1" in resolve(system, "localhost").addresses
    told = refused(system, "no-such-host.invalid", resolve)
    assert "the system's resolver says" in told


@pytest.mark.case
@pytest.mark.parametrize("host", ["\u00fc" * 60 + ".test", "\u0627a.test", "xn--\u00fc.test", "\u2488com.test"])
def test_a_name_that_idna_refuses_fails_at_once(resolve, system, monkeypatch, host):
    """Neither the wait of 5 s for an answer, nor a thread that dies of the encoder's UnicodeError."""
    died = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    began = time.monotonic()
    told = refused(system, host, resolve)
    assert time.monotonic() - began < ours.SYSTEM_SECONDS / 2
    assert "the system's resolver says" in told
    with pytest.raises(NameNotResolved):
        connect(host=host, user="u")
    for thread in [each for each in threading.enumerate() if each.name == "aurora-router-resolve"]:
        thread.join(10)
    assert not died


def test_no_thread_holds_the_exit_up():
    """A look-up that hangs forever delays no exit."""
    code = (
        "import socket, threading\n"
        "from aurora_router.runtime import dns\n"
        "socket.getaddrinfo = lambda *_, **__: threading.Event().wait()\n"
        "dns._look_up('x', print)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.stdout == "done\n"
    assert ended.returncode == 0


# ---------------------------------------------------------------- one per process, and the hosts file


def test_names_are_shared_by_server():
    ours.forget()
    first = names_for(("127.0.0.1", 5300), 1.0)
    assert names_for(("127.0.0.1", 5300), 1.0) is first
    assert names_for(("127.0.0.1", 5301), 1.0) is not first
    assert names_for(None, 1.0) is not names_for(None, 2.0)
    ours.forget()
    assert names_for(("127.0.0.1", 5300), 1.0) is not first


def test_the_hosts_file_as_hosts_5_has_it():
    text = (
        "127.0.0.1 localhost\n::1\tlocalhost ip6\n# 10.0.0.1 no\n10.0.0.2  Big.Example.com. short # why\n"
        "10.0.0.2 short\n10.0.0.3 short\n\n10.0.0.4\n"
    )
    assert parse_hosts(text) == {
        "localhost": ("127.0.0.1", "::1"),
        "ip6": ("::1",),
        "big.example.com": ("10.0.0.2",),
        "short": ("10.0.0.2", "10.0.0.3"),
    }


def test_a_hosts_file_that_comes_and_goes(tmp_path):
    path = tmp_path / "hosts"
    hosts = HostsFile(path)
    assert hosts.lookup("a") == ()
    path.write_text("10.0.0.1 a\n")
    assert hosts.lookup("a") == ("10.0.0.1",)
    path.unlink()
    assert hosts.lookup("a") == ()
