"""DNS answers: a pure function from a picture of the zone and a question to the response.

As with Amazon Aurora: the cluster name leads to the writer, the reader name to one reader per answer, in turn
(to the writer where there is no reader), a custom endpoint to one of its members, an instance's name to it.
Names below the zone that do not exist are NXDOMAIN with the SOA, other people's names are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from aurora_router_cluster.dns.zone import Zone

LONGEST_CHAIN = 8  # CNAMEs followed within our own data


def answer(zone: Zone, query: dns.message.Message, turn: int) -> dns.message.Message:
    """Answer one query; `turn` chooses among several addresses (a counter: they are given in rotation)."""
    response = dns.message.make_response(query)
    response.flags |= dns.flags.AA
    if query.opcode() != dns.opcode.QUERY or len(query.question) != 1:
        response.set_rcode(dns.rcode.FORMERR if query.opcode() == dns.opcode.QUERY else dns.rcode.NOTIMP)
        return response
    question = query.question[0]
    name = question.name.to_text(omit_final_dot=True).lower()
    if question.rdclass != dns.rdataclass.IN or not (zone.is_below(name) or name in zone.cnames):
        response.flags &= ~dns.flags.AA
        response.set_rcode(dns.rcode.REFUSED)
        return response
    end = _follow(zone, response, question, name)
    if not zone.is_below(end):
        return response  # a CNAME to elsewhere: the client goes on there
    if not zone.exists(end):
        response.set_rcode(dns.rcode.NXDOMAIN)
    elif question.rdtype != dns.rdatatype.CNAME or not response.answer:
        _add_records(zone, response, question, end, turn)
    if not _answers(response, question):
        response.authority.append(_soa(zone))
    return response


def _follow(zone: Zone, response: dns.message.Message, question: dns.rrset.RRset, name: str) -> str:
    """Add the CNAMEs that start at `name`; return the name at their end."""
    owner = question.name
    for _ in range(LONGEST_CHAIN):
        target = zone.cnames.get(name)
        if target is None:
            break
        response.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", "CNAME", f"{target}."))
        if question.rdtype == dns.rdatatype.CNAME:
            break
        owner, name = dns.name.from_text(target), target
    return name


def _add_records(zone: Zone, response: dns.message.Message, question: dns.rrset.RRset, name: str, turn: int) -> None:
    owner = question.name if not response.answer else dns.name.from_text(name)
    addresses = zone.hosts.get(name, ())
    if question.rdtype in {dns.rdatatype.A, dns.rdatatype.ANY} and addresses:
        chosen = addresses[turn % len(addresses)]
        response.answer.append(dns.rrset.from_text(owner, zone.ttl, "IN", "A", chosen))
    if name == zone.apex and question.rdtype in {dns.rdatatype.SOA, dns.rdatatype.ANY}:
        response.answer.append(_soa(zone))
    if name == zone.apex and question.rdtype in {dns.rdatatype.NS, dns.rdatatype.ANY}:
        response.answer.append(dns.rrset.from_text(f"{zone.apex}.", zone.ttl, "IN", "NS", f"ns.{zone.apex}."))


def _answers(response: dns.message.Message, question: dns.rrset.RRset) -> bool:
    wanted = {question.rdtype} if question.rdtype != dns.rdatatype.ANY else {rr.rdtype for rr in response.answer}
    return any(rrset.rdtype in wanted for rrset in response.answer)


def _soa(zone: Zone) -> dns.rrset.RRset:
    numbers = f"{zone.serial} {zone.ttl} {zone.ttl} 86400 {zone.ttl}"
    text = f"ns.{zone.apex}. hostmaster.{zone.apex}. {numbers}"
    return dns.rrset.from_text(f"{zone.apex}.", zone.ttl, "IN", "SOA", text)
