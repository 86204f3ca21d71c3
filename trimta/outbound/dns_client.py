"""The DNS client (RFC 1034, 1035): a question over UDP, over TCP if the answer is truncated, CNAMEs followed.

Answers are values, never exceptions: records, no record of this type, no such name, or the failure.  The packets are
dnspython's, in `dns_packets`.  The sockets are our own: a *connected* UDP socket learns at once that nobody listens,
drops packets of strangers in the kernel, and lets `[egress]` be asked at the connect.
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict, deque
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio
import trio.socket

from trimta.first_use.modules import DNS_PACKETS, load
from trimta.outbound.dns_answers import Answer, AnyRecords, Cname, DnsFailure, NoData, NoSuchName, Records, TimedAnswer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trimta.config.model import DnsSection, MxRecord, Nameserver
    from trimta.mail.address import IPAddress
    from trimta.outbound.dns_packets import Question

RESOLV_CONF: Final = Path("/etc/resolv.conf")
ROUNDS: Final = 2
"""How often a silent nameserver is asked: UDP loses packets."""
MAX_ALIASES: Final = 8
"""CNAMEs that we follow over and above those in one answer; real chains have two or three."""
MAX_CACHED: Final = 2000
MAX_TTL: Final = 86400.0
MAX_NEGATIVE_TTL: Final = 60.0
"""Seconds.  A developer who has just added a record waits no longer than this."""
IN_FLIGHT: Final = 100
"""Questions that are asked at once: each has a socket."""


_System: TypeAlias = "tuple[object, tuple[Nameserver, ...]]"
"""The nameservers of resolv.conf, with the version of the file."""
_UNREAD: Final[_System] = (None, ())


class DnsClient:
    """A stub resolver over the configured nameservers or, without any, those of /etc/resolv.conf.

    No file is read, no module loaded and no packet sent before the first question.  `allowed`: whether `[egress]` lets
    an address be asked.
    """

    def __init__(
        self, config: DnsSection, *, allowed: Callable[[IPAddress], bool], resolv_conf: Path = RESOLV_CONF
    ) -> None:
        self._configured = config.nameservers
        self._timeout = config.timeout
        self._allowed = allowed
        self._resolv_conf = resolv_conf
        self._limiter = trio.CapacityLimiter(IN_FLIGHT)
        self._cache: OrderedDict[tuple[str, str], tuple[float, AnyRecords | NoData | NoSuchName]] = OrderedDict()
        self._system = _UNREAD
        self._reader = trio.CapacityLimiter(1)
        self._has_packets = False

    async def mx(self, name: str) -> Answer[MxRecord]:
        """The MX records of `name` (ASCII, no last dot), lowest preference first; a null MX has the host "."."""
        return cast("Answer[MxRecord]", await self._ask(name, "MX"))

    async def addresses(self, name: str) -> Answer[str]:
        """The A records of `name`, then its AAAA records: IP addresses."""
        answers: dict[str, Answer[str]] = {}

        async def look_up(rdtype: str) -> None:
            answers[rdtype] = cast("Answer[str]", await self._ask(name, rdtype))

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

    async def _ask(self, name: str, rdtype: str) -> Answer[MxRecord] | Answer[str]:
        """The answer to one question, from the cache if it is there.  It takes `dns.timeout` at most, in all;
        before the first, a module is loaded within as long.
        """
        key = (name.lower(), rdtype)
        expires, kept = self._cache.get(key, (0.0, NoData()))
        if expires > trio.current_time():
            self._cache.move_to_end(key)
            await trio.lowlevel.checkpoint()
            return kept
        if not await self._packets_are_loaded():
            return DnsFailure("the resolver's modules can't be read in time")
        async with self._limiter:
            followed = await self._follow(name, rdtype)
        if isinstance(followed, DnsFailure):
            return followed
        answer = followed.answer
        limit = MAX_TTL if isinstance(answer, Records) else MAX_NEGATIVE_TTL
        self._cache[key] = (trio.current_time() + min(followed.ttl, limit), answer)
        self._cache.move_to_end(key)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return answer

    async def _follow(self, name: str, rdtype: str) -> TimedAnswer | DnsFailure:
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
                case Cname():
                    name, ttl = step.target, min(ttl, step.ttl)
                case TimedAnswer():
                    return TimedAnswer(step.answer, min(ttl, step.ttl))
                case DnsFailure():
                    return step
        return DnsFailure(f"the chain of CNAMEs of {seen[0]} is too long")

    async def _ask_servers(self, name: str, rdtype: str, deadline: float) -> TimedAnswer | Cname | DnsFailure:
        """Ask one nameserver after the other until one answers; those that are silent are asked again."""
        from trimta.outbound import dns_packets

        try:
            question = dns_packets.Question(name, rdtype)
        except ValueError:
            return TimedAnswer(NoSuchName(), MAX_NEGATIVE_TTL)
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
                meaning = await _exchange(server, question)
            if scope.cancelled_caught:
                troubles.setdefault(server, f"no answer within {self._timeout:g} s")
                if asked + 1 < ROUNDS:
                    waiting.append((server, asked + 1))
                continue
            if not isinstance(meaning, str):
                return meaning
            troubles[server] = meaning
        reasons = "; ".join(f"nameserver {server}: {trouble}" for server, trouble in troubles.items())
        return DnsFailure(f"{name} {rdtype}: {reasons}")

    async def _packets_are_loaded(self) -> bool:
        """Load the module that knows packets, where it is not: in a thread, so that sessions go on.  False if the disk
        hangs.
        """
        if not self._has_packets:  # sys.modules has a module from the moment when its import begins
            with trio.move_on_after(self._timeout):
                await trio.to_thread.run_sync(load, [DNS_PACKETS], abandon_on_cancel=True, limiter=self._reader)
                self._has_packets = True
        return self._has_packets

    def _system_nameservers(self, known: _System) -> _System:
        """The nameservers of resolv.conf, read again when it changes: a laptop moves between networks.  Blocks."""
        from trimta.outbound import dns_packets

        try:
            status = self._resolv_conf.stat()
            version = (status.st_mtime_ns, status.st_ino, status.st_size)
            if version == known[0]:
                return known
            return version, dns_packets.system_nameservers(self._resolv_conf)
        except (OSError, ValueError):
            return _UNREAD


async def _exchange(server: Nameserver, question: Question) -> TimedAnswer | Cname | str:
    """The meaning of a nameserver's answer, or the fault in it, in words.  The caller limits the time."""
    try:
        packet = await _over_udp(server, question.wire)
        if _is_truncated(packet):
            packet = await _over_tcp(server, question.wire)
            if _is_truncated(packet):
                return "the answer is truncated even over TCP"
        return question.meaning_of(packet)
    except (OSError, trio.BrokenResourceError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__ or error
        return getattr(cause, "strerror", None) or str(cause) or type(cause).__name__
    except _CutOffError:
        return "the connection was closed in the middle of the answer"


class _CutOffError(Exception):
    """A connection was closed in the middle of the answer."""


async def _over_udp(server: Nameserver, wire: bytes) -> bytes:
    """The first packet that answers this query."""
    with trio.socket.socket(_family(server), socket.SOCK_DGRAM) as sock:
        await sock.connect((str(server.address), server.port))
        await sock.send(wire)
        while True:
            data = await sock.recv(65535)
            if data[:2] == wire[:2]:  # other packets are late answers to another question, or an attacker's guesses
                return data


async def _over_tcp(server: Nameserver, wire: bytes) -> bytes:
    """The answer over TCP (RFC 7766)."""
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
            raise _CutOffError
        data += chunk
    return bytes(data)


def _family(server: Nameserver) -> socket.AddressFamily:
    return socket.AF_INET if server.address.version == 4 else socket.AF_INET6


def _is_truncated(data: bytes) -> bool:
    """Whether the TC flag is set: looked at before parsing, since the last record may be incomplete then."""
    return len(data) >= 12 and bool(data[2] & 0x02)


def _both(four: Answer[str], six: Answer[str]) -> Answer[str]:
    """One answer for those about A and AAAA: a failure counts only where there are no records."""
    if isinstance(four, Records) and isinstance(six, Records):
        return Records(four.values + six.values, four.canonical)
    for kind in (Records, DnsFailure):
        for answer in (four, six):
            if isinstance(answer, kind):
                return answer
    return NoSuchName() if isinstance(four, NoSuchName) and isinstance(six, NoSuchName) else NoData()
