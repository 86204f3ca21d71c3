"""A scripted DNS server on 127.0.0.1, one port for UDP and TCP, for tests in any style: it runs in a thread.

    with FakeDns() as dns:
        dns.add("partner.test", "MX", "10 a.partner.test.", "20 b.partner.test.", ttl=60)
        dns.add("a.partner.test", "A", "127.0.0.2")
        dns.add("www.partner.test", "CNAME", "a.partner.test.")
        dns.answer("down.test", rcode="SERVFAIL")
        dns.behave("silent.test", Behaviour.SILENT)
        resolver = Resolver(Dns(nameservers=(Nameserver(ip_address("127.0.0.1"), dns.port),)), ...)
        ...
        assert dns.count("partner.test", "MX") == 1

A name that nothing is known of gets NXDOMAIN; a known one without the type gets an empty answer, both with an SOA whose
minimum is `negative_ttl`.  CNAMEs are followed within one answer as a recursive server does, unless `chase` is False.
Everything may be changed while it runs; later questions see it.
"""

from __future__ import annotations

import contextlib
import enum
import selectors
import socket
import struct
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

if TYPE_CHECKING:
    from types import TracebackType

HOST: Final = "127.0.0.1"
CHAIN: Final = 12
"""CNAMEs followed within one answer; a loop gives this many records."""


class Behaviour(enum.Enum):
    """What a name does instead of answering well."""

    SILENT = enum.auto()
    """No answer at all."""
    TRUNCATED = enum.auto()
    """TC and no records over UDP; all of it over TCP."""
    TRUNCATED_TWICE = enum.auto()
    """TC over TCP as well."""
    TRUNCATED_SILENT = enum.auto()
    """TC over UDP; TCP is accepted and never answered."""
    TRUNCATED_CUT = enum.auto()
    """TC over UDP; TCP is closed in the middle of the answer."""
    MALFORMED = enum.auto()
    """The right identifier and the answer flag, then garbage."""
    SHORT = enum.auto()
    """Three octets of the right beginning."""
    WRONG_ID = enum.auto()
    """A well-formed answer to somebody else, and nothing after it."""
    WRONG_ID_FIRST = enum.auto()
    """The same, followed by the right answer."""
    WRONG_QUESTION = enum.auto()
    """The right identifier, another question."""
    LOST_ONCE = enum.auto()
    """The first packet of each question is lost; the next one is answered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question as it came in; `name` is lower case without the last dot."""

    name: str
    rdtype: str
    over: str
    """"udp" or "tcp"."""


class FakeDns:
    """See the module's docstring."""

    def __init__(self, *, chase: bool = True, negative_ttl: int = 30) -> None:
        self.chase = chase
        self.negative_ttl = negative_ttl
        self.asked: list[Asked] = []
        self._records: dict[tuple[str, str], tuple[int, tuple[str, ...]]] = {}
        self._rcodes: dict[tuple[str, str | None], str] = {}
        self._behaviours: dict[tuple[str, str | None], Behaviour] = {}
        self._udp, self._tcp = _same_port()
        self.port: int = self._udp.getsockname()[1]
        self._wake, self._woken = socket.socketpair()
        self._connections: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="fake dns", daemon=True)

    @property
    def address(self) -> str:
        """What `[dns] nameservers` takes."""
        return f"{HOST}:{self.port}"

    def add(self, name: str, rdtype: str, *values: str, ttl: int = 300) -> None:
        """Set the records of a name and type, in master file form: `add("a.test", "MX", "10 mx.a.test.")`.  Without
        values the name exists and has none.
        """
        self._records[_key(name), rdtype] = (ttl, values)

    def answer(self, name: str, rdtype: str | None = None, *, rcode: str) -> None:
        """Answer every question for a name, or those of one type, with an RCODE: "SERVFAIL", "REFUSED", "FORMERR",
        "NOTIMP", "NXDOMAIN".
        """
        self._rcodes[_key(name), rdtype] = rcode

    def behave(self, name: str, behaviour: Behaviour, rdtype: str | None = None) -> None:
        """Misbehave for a name, for one type or for all; "*" is every name without a behaviour of its own."""
        self._behaviours[_key(name), rdtype] = behaviour

    def count(self, name: str | None = None, rdtype: str | None = None, over: str | None = None) -> int:
        """How many questions came, of this name, type, transport where given."""
        return sum(
            (name is None or asked.name == _key(name))
            and (rdtype is None or asked.rdtype == rdtype)
            and (over is None or asked.over == over)
            for asked in list(self.asked)
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wake.send(b"x")
        self._thread.join(5)
        for sock in (self._udp, self._tcp, self._wake, self._woken, *self._connections):
            sock.close()
        assert not self._thread.is_alive(), "the fake DNS server hangs"

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in (self._udp, self._tcp, self._woken):
                selector.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._woken:
                        return
                    with contextlib.suppress(OSError, dns.exception.DNSException):
                        if key.fileobj is self._udp:
                            self._serve_udp()
                        else:
                            self._serve_tcp()

    def _serve_udp(self) -> None:
        wire, client = self._udp.recvfrom(65535)
        for answer in self._answers(dns.message.from_wire(wire), "udp"):
            self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        connection, _ = self._tcp.accept()
        self._connections.append(connection)
        connection.settimeout(5)
        with connection.makefile("rb") as stream:
            (length,) = struct.unpack("!H", stream.read(2))
            query = dns.message.from_wire(stream.read(length))
        behaviour = self._behaviour(query)
        if behaviour is Behaviour.TRUNCATED_SILENT:
            self._note(query, "tcp")
            return  # open until the end of the test
        for answer in self._answers(query, "tcp"):
            data = struct.pack("!H", len(answer)) + answer
            connection.sendall(data[: len(data) // 2] if behaviour is Behaviour.TRUNCATED_CUT else data)
        connection.close()

    def _note(self, query: dns.message.Message, over: str) -> Asked:
        question = query.question[0]
        asked = Asked(_key(question.name.to_text()), dns.rdatatype.to_text(question.rdtype), over)
        self.asked.append(asked)
        return asked

    def _behaviour(self, query: dns.message.Message) -> Behaviour | None:
        question = query.question[0]
        rdtype = dns.rdatatype.to_text(question.rdtype)
        for key in ((name, kind) for name in (_key(question.name.to_text()), "*") for kind in (rdtype, None)):
            if key in self._behaviours:
                return self._behaviours[key]
        return None

    def _answers(self, query: dns.message.Message, over: str) -> list[bytes]:
        """The packets that answer a question."""
        asked = self._note(query, over)
        good = self._answer(query, asked)
        packet = good.to_wire(max_size=65535, want_shuffle=False)
        match self._behaviour(query):
            case Behaviour.SILENT:
                return []
            case Behaviour.TRUNCATED_TWICE:
                return [_truncated(query)]
            case Behaviour.TRUNCATED | Behaviour.TRUNCATED_SILENT | Behaviour.TRUNCATED_CUT if over == "udp":
                return [_truncated(query)]
            case Behaviour.MALFORMED:
                return [packet[:12] + b"\xff" * 20]
            case Behaviour.SHORT:
                return [packet[:3]]
            case Behaviour.WRONG_ID:
                return [bytes([packet[0] ^ 1]) + packet[1:]]
            case Behaviour.WRONG_ID_FIRST:
                return [bytes([packet[0] ^ 1]) + packet[1:], packet]
            case Behaviour.WRONG_QUESTION:
                other = dns.message.make_query("other.invalid.", "TXT", id=query.id)
                return [dns.message.make_response(other).to_wire()]
            case Behaviour.LOST_ONCE if self.asked.count(asked) == 1:
                return []
            case _:
                return [packet]

    def _answer(self, query: dns.message.Message, asked: Asked) -> dns.message.Message:
        response = dns.message.make_response(query, recursion_available=True)
        name = asked.name
        for _ in range(CHAIN):
            rcode = self._rcodes.get((name, asked.rdtype), self._rcodes.get((name, None)))
            if rcode is not None:
                response.set_rcode(dns.rcode.from_text(rcode))
                break
            ttl, values = self._records.get((name, asked.rdtype), (0, ()))
            if values:
                response.answer.append(_rrset(name, ttl, asked.rdtype, values))
                return response
            ttl, values = self._records.get((name, "CNAME"), (0, ()))
            if not values:
                if not any(name == known for known, _ in self._records):
                    response.set_rcode(dns.rcode.NXDOMAIN)
                break
            response.answer.append(_rrset(name, ttl, "CNAME", values))
            if not self.chase:
                return response
            name = _key(values[0])
        soa = f"ns.invalid. hostmaster.invalid. 1 3600 600 86400 {self.negative_ttl}"
        response.authority.append(_rrset("", self.negative_ttl, "SOA", (soa,)))
        return response


def _same_port() -> tuple[socket.socket, socket.socket]:
    """A UDP and a listening TCP socket on one free port."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        udp.bind((HOST, 0))
        try:
            tcp.bind(udp.getsockname())
            tcp.listen()
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp


def _key(name: str) -> str:
    return name.lower().removesuffix(".")


def _rrset(name: str, ttl: int, rdtype: str, values: tuple[str, ...]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(f"{name}.", ttl, "IN", rdtype, values)


def _truncated(query: dns.message.Message) -> bytes:
    response = dns.message.make_response(query)
    response.flags |= dns.flags.TC
    return response.to_wire()
