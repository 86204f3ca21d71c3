"""The DNS client (RFC 1034, 1035): a question over UDP, over TCP if the answer is truncated, CNAMEs followed.

Answers are values, never exceptions: records, no record of this type, no such name, or the failure.  The packets are
dnspython's.  The sockets are our own: a *connected* UDP socket learns at once that nobody listens, drops packets of
strangers in the kernel, and lets `[egress]` be asked at the connect.
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict, deque
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar, cast

import dns.exception
import dns.message
import dns.name
import dns.rcode
import dns.rdtypes.ANY.MX
import dns.rdtypes.IN.A
import dns.rdtypes.IN.AAAA
import dns.resolver
import trio
import trio.socket

from trimta.config.model import MxRecord, Nameserver
from trimta.first_use.dataclass import dataclass

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dns.rdata import Rdata

    from trimta.config.model import DnsSection
    from trimta.mail.address import IPAddress

T = TypeVar("T")

RESOLV_CONF: Final = Path("/etc/resolv.conf")
ROUNDS: Final = 2
"""How often a silent nameserver is asked: UDP loses packets."""
MAX_ALIASES: Final = 8
"""CNAMEs that we follow over and above those in one answer; real chains have two or three."""
MAX_RECORDS: Final = 50
"""Records that are kept of one answer: a hostile answer over TCP holds thousands."""
MAX_CACHED: Final = 2000
MAX_TTL: Final = 86400.0
MAX_NEGATIVE_TTL: Final = 60.0
"""Seconds.  A developer who has just added a record waits no longer than this."""
IN_FLIGHT: Final = 100
"""Questions that are asked at once: each has a socket."""


@dataclass(frozen=True, slots=True)
class Records(Generic[T]):
    """The records that were asked for, in the order of the answer; at least one."""

    values: tuple[T, ...]
    canonical: str
    """The name that holds the records, after CNAMEs: lower case, no last dot."""


@dataclass(frozen=True, slots=True)
class NoData:
    """The name exists, but has no record of the type."""


@dataclass(frozen=True, slots=True)
class NoSuchName:
    """The name does not exist (NXDOMAIN)."""


@dataclass(frozen=True, slots=True)
class DnsFailure:
    """No nameserver gave an answer; a later question may get one."""

    text: str


Answer: TypeAlias = Records[T] | NoData | NoSuchName | DnsFailure


@dataclass(frozen=True, slots=True)
class _Cname:
    """A CNAME at which the answer stops."""

    target: str
    ttl: float


@dataclass(frozen=True, slots=True)
class _TimedAnswer:
    """An answer, and the seconds for which it holds."""

    answer: Records[Rdata] | NoData | NoSuchName
    ttl: float


_System: TypeAlias = "tuple[object, tuple[Nameserver, ...]]"
"""The nameservers of resolv.conf, with the version of the file."""
_UNREAD: Final[_System] = (None, ())


class DnsClient:
    """A stub resolver over the configured nameservers or, without any, those of /etc/resolv.conf.

    No file is read and no packet is sent before the first question.  `allowed`: whether `[egress]` lets an address be
    asked.
    """

    def __init__(
        self, config: DnsSection, *, allowed: Callable[[IPAddress], bool], resolv_conf: Path = RESOLV_CONF
    ) -> None:
        self._configured = config.nameservers
        self._timeout = config.timeout
        self._allowed = allowed
        self._resolv_conf = resolv_conf
        self._limiter = trio.CapacityLimiter(IN_FLIGHT)
        self._cache: OrderedDict[tuple[str, str], tuple[float, object]] = OrderedDict()
        self._system = _UNREAD
        self._reader = trio.CapacityLimiter(1)

    async def mx(self, name: str) -> Answer[MxRecord]:
        """The MX records of `name` (ASCII, no last dot), lowest preference first; a null MX has the host "."."""
        return await self._ask(name, "MX", _mx_values)

    async def addresses(self, name: str) -> Answer[str]:
        """The A records of `name`, then its AAAA records: IP addresses."""
        answers: dict[str, Answer[str]] = {}

        async def look_up(rdtype: str) -> None:
            answers[rdtype] = await self._ask(name, rdtype, _address_values)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(look_up, "A")
            nursery.start_soon(look_up, "AAAA")
        return _both(answers["A"], answers["AAAA"])

    async def nameservers(self) -> tuple[Nameserver, ...]:
        """The nameservers, those included that `[egress]` does not allow; empty if there are none."""
        if self._configured:
            return self._configured
        with trio.move_on_after(self._timeout):  # past it the disk hangs: what is known has to do
            self._system = await trio.to_thread.run_sync(
                self._system_nameservers, self._system, abandon_on_cancel=True, limiter=self._reader
            )
        return self._system[1]

    def refused(self, servers: Sequence[Nameserver]) -> DnsFailure | None:
        """The failure of a question for which `[egress]` allows none of the nameservers; None if it allows one."""
        if not servers:
            return DnsFailure(f"there is no nameserver: [dns] nameservers is empty and {self._resolv_conf} names none")
        outside = [str(server) for server in servers if not self._allowed(server.address)]
        if len(outside) < len(servers):
            return None
        return DnsFailure(f"the nameserver {', '.join(outside)} is outside of [egress] allow")

    async def _ask(
        self, name: str, rdtype: str, convert: Callable[[Sequence[Rdata]], tuple[T, ...]]
    ) -> Records[T] | NoData | NoSuchName | DnsFailure:
        """The answer to one question, from the cache if it is there.  It takes `dns.timeout` at most, in all."""
        key = (name.lower(), rdtype)
        expires, kept = self._cache.get(key, (0.0, None))
        if kept is not None and expires > trio.current_time():
            self._cache.move_to_end(key)
            await trio.lowlevel.checkpoint()
            return cast("Records[T] | NoData | NoSuchName", kept)
        async with self._limiter:
            followed = await self._follow(name, rdtype)
        if isinstance(followed, DnsFailure):
            return followed
        answer: Records[T] | NoData | NoSuchName
        if isinstance(followed.answer, Records):
            values = convert(followed.answer.values)
            answer = Records(values, followed.answer.canonical) if values else NoData()
        else:
            answer = followed.answer
        limit = MAX_TTL if isinstance(answer, Records) else MAX_NEGATIVE_TTL
        self._cache[key] = (trio.current_time() + min(followed.ttl, limit), answer)
        self._cache.move_to_end(key)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return answer

    async def _follow(self, name: str, rdtype: str) -> _TimedAnswer | DnsFailure:
        """Ask for `name`, and for the target of each CNAME that a server leaves to us."""
        deadline = trio.current_time() + self._timeout
        ttl = MAX_TTL
        seen: list[str] = []
        while len(seen) <= MAX_ALIASES:
            if name.lower() in seen:
                return DnsFailure(f"the CNAMEs of {seen[0]} go round in a loop")
            seen.append(name.lower())
            step = await self._ask_servers(name, rdtype, deadline)
            match step:
                case _Cname():
                    name, ttl = step.target, min(ttl, step.ttl)
                case _TimedAnswer():
                    return _TimedAnswer(step.answer, min(ttl, step.ttl))
                case DnsFailure():
                    return step
        return DnsFailure(f"the chain of CNAMEs of {seen[0]} is too long")

    async def _ask_servers(self, name: str, rdtype: str, deadline: float) -> _TimedAnswer | _Cname | DnsFailure:
        """Ask one nameserver after the other until one answers; those that are silent are asked again."""
        try:
            query = dns.message.make_query(_wire_name(name), rdtype)
        except dns.exception.DNSException:
            return _TimedAnswer(NoSuchName(), MAX_NEGATIVE_TTL)  # no name in DNS can look like this (RFC 1035 2.3.4)
        servers = await self.nameservers()
        refused = self.refused(servers)
        if refused is not None:
            return refused
        troubles: dict[Nameserver, str] = {}
        waiting = deque((server, 0) for server in servers if self._allowed(server.address))
        while waiting:
            share = (deadline - trio.current_time()) / sum(ROUNDS - asked for _, asked in waiting)
            server, asked = waiting.popleft()
            with trio.move_on_after(max(0.0, share)) as scope:
                result = await _exchange(server, query)
            if scope.cancelled_caught:
                troubles.setdefault(server, f"no answer within {self._timeout:g} s")
                if asked + 1 < ROUNDS:
                    waiting.append((server, asked + 1))
                continue
            meaning = result if isinstance(result, str) else _meaning_of(result)
            if not isinstance(meaning, str):
                return meaning
            troubles[server] = meaning
        reasons = "; ".join(f"nameserver {server}: {trouble}" for server, trouble in troubles.items())
        return DnsFailure(f"{name} {rdtype}: {reasons}")

    def _system_nameservers(self, known: _System) -> _System:
        """The nameservers of resolv.conf, read again when it changes: a laptop moves between networks.  Blocks."""
        try:
            status = self._resolv_conf.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == known[0]:
                return known
            reader = dns.resolver.Resolver(configure=False)
            reader.read_resolv_conf(str(self._resolv_conf))
            servers = [Nameserver(ip_address(server)) for server in reader.nameservers if isinstance(server, str)]
        except (OSError, dns.exception.DNSException, ValueError):
            return _UNREAD
        return version, tuple(servers)


async def _exchange(server: Nameserver, query: dns.message.Message) -> dns.message.Message | str:
    """A nameserver's answer, or the fault in it, in words.  The caller limits the time."""
    try:
        data = await _over_udp(server, query)
        if _is_truncated(data):
            data = await _over_tcp(server, query)
            if _is_truncated(data):
                return "the answer is truncated even over TCP"
        return _parse(data, query)
    except (OSError, trio.BrokenResourceError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__ or error
        return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    except _MalformedError as error:
        return str(error)


class _MalformedError(Exception):
    """An answer that can't be read, for a reason that the text gives."""


async def _over_udp(server: Nameserver, query: dns.message.Message) -> bytes:
    """The first packet that answers this query."""
    wire = query.to_wire()
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect((str(server.address), server.port))
        await sock.send(wire)
        while True:
            data = await sock.recv(65535)
            if data[:2] == wire[:2]:  # other packets are late answers to another question, or an attacker's guesses
                return data


async def _over_tcp(server: Nameserver, query: dns.message.Message) -> bytes:
    """The answer over TCP (RFC 7766)."""
    wire = query.to_wire()
    with trio.socket.socket(_family(server), socket.SOCK_STREAM) as sock:
        await sock.connect((str(server.address), server.port))
        stream = trio.SocketStream(sock)
        await stream.send_all(struct.pack("!H", len(wire)) + wire)
        (length,) = struct.unpack("!H", await _exactly(stream, 2))
        return await _exactly(stream, length)


async def _exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        chunk = await stream.receive_some(count - len(data))
        if not chunk:
            raise _MalformedError("the connection was closed in the middle of the answer")
        data += chunk
    return bytes(data)


def _family(server: Nameserver) -> socket.AddressFamily:
    return socket.AF_INET if server.address.version == 4 else socket.AF_INET6


def _is_truncated(data: bytes) -> bool:
    """Whether the TC flag is set: looked at before parsing, since the last record may be incomplete then."""
    return len(data) >= 12 and bool(data[2] & 0x02)


def _parse(data: bytes, query: dns.message.Message) -> dns.message.Message:
    try:
        answer = dns.message.from_wire(data)
    except (dns.exception.DNSException, ValueError, LookupError, struct.error) as error:
        raise _MalformedError(f"malformed answer ({type(error).__name__})") from error
    if not query.is_response(answer):
        raise _MalformedError("the answer is to another question")
    return answer


def _meaning_of(answer: dns.message.Message) -> _TimedAnswer | _Cname | str:
    """The meaning of an answer, or the fault in it, in words."""
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
        return _TimedAnswer(Records(tuple(chain.answer), canonical), ttl)
    if rcode == dns.rcode.NXDOMAIN:
        return _TimedAnswer(NoSuchName(), ttl)  # of the last name in the chain: RFC 6604 2.1
    if chain.cnames:
        return _Cname(canonical, min(ttl, float(chain.cnames[-1].ttl)))
    return _TimedAnswer(NoData(), ttl)


def _both(four: Answer[str], six: Answer[str]) -> Answer[str]:
    """One answer for those about A and AAAA: a failure counts only where there are no records."""
    if isinstance(four, Records) and isinstance(six, Records):
        return Records(four.values + six.values, four.canonical)
    for kind in (Records, DnsFailure):
        for answer in (four, six):
            if isinstance(answer, kind):
                return answer
    return NoSuchName() if isinstance(four, NoSuchName) and isinstance(six, NoSuchName) else NoData()


def _mx_values(rdatas: Sequence[Rdata]) -> tuple[MxRecord, ...]:
    records = [
        MxRecord(rdata.preference, _text(rdata.exchange))
        for rdata in rdatas
        if isinstance(rdata, dns.rdtypes.ANY.MX.MX)
    ]
    records.sort(key=lambda record: record.preference)
    return tuple(records[:MAX_RECORDS])


def _address_values(rdatas: Sequence[Rdata]) -> tuple[str, ...]:
    return tuple(rdata.address for rdata in rdatas if isinstance(rdata, dns.rdtypes.IN.A.A | dns.rdtypes.IN.AAAA.AAAA))[
        :MAX_RECORDS
    ]


def _wire_name(name: str) -> dns.name.Name:
    """The name, in which the escapes of DNS master files have no meaning.  DNSException for a text that is no name."""
    labels = name.removesuffix(".").encode("ascii", "backslashreplace").split(b".")
    return dns.name.Name([*labels, b""])


def _text(name: dns.name.Name) -> str:
    """The text of a name in lower case, without the last dot, odd octets escaped; "." for the root."""
    return "." if name == dns.name.root else name.to_text(omit_final_dot=True).lower()
