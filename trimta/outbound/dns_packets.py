"""The packets of the DNS client: a question as octets, and the meaning of an answer's.  They are dnspython's.

The client loads this module with its first question, since dnspython takes as long to load, and as much memory, as a
quarter of the server.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdtypes.ANY.MX
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver

from trimta.config.model import MxRecord, Nameserver
from trimta.outbound.dns_answers import AnyRecords, Cname, NoData, NoSuchName, Records, TimedAnswer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from dns.rdata import Rdata

MAX_RECORDS: Final = 50
"""Records that are kept of one answer: a hostile answer over TCP holds thousands."""


class Question:
    """A question for the records of a type."""

    def __init__(self, name: str, rdtype: str) -> None:
        """`name` is ASCII, in which the escapes of DNS master files have no meaning; `rdtype` is MX, A or AAAA.

        Raises ValueError for a text that can be no name in DNS (RFC 1035 2.3.4).
        """
        labels = name.removesuffix(".").encode("ascii", "backslashreplace").split(b".")
        try:
            self._query = dns.message.make_query(dns.name.Name([*labels, b""]), rdtype)
        except dns.exception.DNSException as error:
            raise ValueError(f"{name} can be no name in DNS") from error
        self._is_mx = rdtype == "MX"
        self.wire = self._query.to_wire()
        """The packet."""

    def meaning_of(self, packet: bytes) -> TimedAnswer | Cname | str:
        """The meaning of a packet that has come as the answer, or the fault in it, in words."""
        try:
            answer = dns.message.from_wire(packet)
        except (dns.exception.DNSException, ValueError, LookupError, struct.error) as error:
            return f"malformed answer ({type(error).__name__})"
        if not self._query.is_response(answer):
            return "the answer is to another question"
        rcode = answer.rcode()
        if rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return dns.rcode.to_text(rcode)
        if not isinstance(answer, dns.message.QueryMessage):
            return "malformed answer (not to a query)"
        try:
            chain = answer.resolve_chaining()
        except dns.exception.DNSException as error:
            return f"malformed answer ({type(error).__name__})"
        ttl = float(chain.minimum_ttl)
        canonical = _text(chain.canonical_name)
        if chain.answer is not None:
            records = self._records([*chain.answer], canonical)
            return TimedAnswer(records if records.values else NoData(), ttl)
        if rcode == dns.rcode.NXDOMAIN:
            return TimedAnswer(NoSuchName(), ttl)  # of the last name in the chain: RFC 6604 2.1
        if chain.cnames:
            return Cname(canonical, min(ttl, float(chain.cnames[-1].ttl)))
        return TimedAnswer(NoData(), ttl)

    def _records(self, rdatas: Sequence[Rdata], canonical: str) -> AnyRecords:
        if self._is_mx:
            return Records(_mx_records(rdatas), canonical)
        addresses = [
            rdata.address for rdata in rdatas if isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA)
        ]
        return Records(tuple(addresses[:MAX_RECORDS]), canonical)


def system_nameservers(resolv_conf: Path) -> tuple[Nameserver, ...]:
    """The nameservers that a resolv.conf names.  Blocks.  OSError; ValueError for a file that can't be understood."""
    reader = dns.resolver.Resolver(configure=False)
    try:
        reader.read_resolv_conf(str(resolv_conf))
    except dns.exception.DNSException as error:
        raise ValueError(f"{resolv_conf}: {error}") from error
    return tuple(Nameserver(ip_address(server)) for server in reader.nameservers if isinstance(server, str))


def _mx_records(rdatas: Sequence[Rdata]) -> tuple[MxRecord, ...]:
    records = [
        MxRecord(rdata.preference, _text(rdata.exchange))
        for rdata in rdatas
        if isinstance(rdata, dns.rdtypes.ANY.MX.MX)
    ]
    records.sort(key=lambda record: record.preference)
    return tuple(records[:MAX_RECORDS])


def _text(name: dns.name.Name) -> str:
    """The text of a name in lower case, without the last dot, odd octets escaped; "." for the root."""
    return "." if name == dns.name.root else name.to_text(omit_final_dot=True).lower()
