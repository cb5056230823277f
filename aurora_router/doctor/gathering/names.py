"""What DNS says of a name, with what libpq does not show: CNAMEs, their time to live, and silence."""

from __future__ import annotations

import socket
from typing import Any

import dns.exception
import dns.resolver

from aurora_router.doctor.facts import Alias, Name
from aurora_router.runtime.hostsfile import HostsFile


def look_up(host: str, server: tuple[str, int] | None, seconds: float) -> Name:
    """Return what is known of a name.

    Args:
        host: a host name; no address, and no socket.
        server: the only name server to ask; None: those of the system, then the system's own resolver.
        seconds: how long they may take.
    """
    if server is None and (pinned := HostsFile().lookup(host.lower())):
        return Name(host=host, addresses=pinned, in_hosts_file=True)
    resolver = _new_resolver(server)
    answers: list[Any] = []
    problem, is_silent = "", False
    try:
        for kind in ("A", "AAAA"):
            asked = resolver.resolve(host, kind, search=True, lifetime=max(seconds, 2.0), raise_on_no_answer=False)
            answers.append(asked)
    except (dns.resolver.NoNameservers, dns.exception.Timeout) as failed:
        problem, is_silent = str(failed), True
    except (dns.exception.DNSException, OSError, ValueError) as failed:
        problem = str(failed) or type(failed).__name__
    addresses = tuple(record.address for each in answers if each.rrset is not None for record in each)
    if not addresses:
        return _ask_system(
            host, problem or f"{host} has no address records", is_silent=is_silent, is_alone=bool(server)
        )
    found = next(each for each in answers if each.rrset is not None)
    return Name(host=host, addresses=addresses, aliases=_aliases(found), ttl=int(found.rrset.ttl))


def _new_resolver(server: tuple[str, int] | None) -> dns.resolver.Resolver:
    if server is None:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [server[0]], server[1]
    return resolver


def _aliases(answer: Any) -> tuple[Alias, ...]:
    return tuple(
        Alias(each.name.to_text(omit_final_dot=True), each[0].target.to_text(omit_final_dot=True), int(each.ttl))
        for each in answer.chaining_result.cnames
    )


def _ask_system(host: str, problem: str, *, is_silent: bool, is_alone: bool) -> Name:
    if is_alone:
        return Name(host=host, error=problem, is_silent=is_silent)
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as failed:
        text = f"{problem}; the system's resolver says: {failed}"
        return Name(host=host, error=text, is_silent=is_silent)
    return Name(host=host, addresses=tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))
