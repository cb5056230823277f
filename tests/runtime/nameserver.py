"""A name server on loopback for tests: UDP, answers from a table, counts what it was asked."""

from __future__ import annotations

import socket
import threading
from collections import Counter

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset


class NameServer:
    """Serves in a thread of its own until the end of the block.

    Args:
        records: name -> list of (type, TTL, value); a name that is missing does not exist.
        address: where to listen; port 0 is any free one.

    Attributes:
        asked: how often (name, type) was asked for.
        state: ``well``, ``silent`` or ``servfail``.
    """

    def __init__(self, records, address=("127.0.0.1", 0)):
        self.records = {name.lower(): values for name, values in records.items()}
        self.asked = Counter()
        self.state = "well"
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(address)
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"end", self.address)
        self._thread.join()
        self._socket.close()

    def _serve(self):
        while True:
            packet, sender = self._socket.recvfrom(4096)
            if packet == b"end":
                return
            query = dns.message.from_wire(packet)
            question = query.question[0]
            self.asked[question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)] += 1
            if self.state != "silent":
                self._socket.sendto(self.answer(query, question).to_wire(), sender)

    def answer(self, query, question):
        response = dns.message.make_response(query)
        response.flags |= dns.flags.AA | dns.flags.RA
        if self.state == "servfail":
            response.set_rcode(dns.rcode.SERVFAIL)
            return response
        name, known = question.name, False
        for _ in range(9):
            values = self.records.get(name.to_text(omit_final_dot=True).lower())
            if values is None:
                break
            known = True
            alias = [each for each in values if each[0] == "CNAME"]
            for kind, ttl, value in alias or values:
                if alias or kind == dns.rdatatype.to_text(question.rdtype):
                    response.answer.append(dns.rrset.from_text(name, ttl, "IN", kind, value))
            if not alias:
                break
            name = dns.name.from_text(alias[0][2])
        if not known:
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response
