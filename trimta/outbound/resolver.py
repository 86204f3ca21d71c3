"""The resolver: the hosts that take mail for a domain (RFC 5321 5, RFC 7505), and the addresses of a route's host.

A result is a value: hosts in the order in which they are to be tried, or the reason why there are none, with the
enhanced status that the outcome gets.  A name that is in `[dns.zones]` is looked up there and nowhere else.
"""

from __future__ import annotations

import contextlib
import math
import random
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias, assert_never

import idna
import trio

from trimta.config.model import DnsFail, MxRecord
from trimta.first_use.pattern import pattern
from trimta.mail.status import (
    BAD_CONFIGURATION,
    DIRECTORY_FAILURE,
    NO_SUCH_DOMAIN,
    NULL_MX,
    ROUTING_LOOP,
    UNROUTABLE,
    EnhancedStatus,
)
from trimta.outbound.dns_answers import Answer, DnsFailure, NoData, NoSuchName, Records
from trimta.outbound.dns_client import RESOLV_CONF, DnsClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from trimta.config.model import DnsSection, Zone
    from trimta.mail.address import IPAddress

HOSTS_FILE: Final = Path("/etc/hosts")
LOOPBACK: Final = ("127.0.0.1", "::1")
SYSTEM_LOOKUPS: Final = 16
"""Threads in getaddrinfo at once.  They have a limiter of their own: a look-up that hangs keeps its thread, and Trio's
default limiter is shared.
"""

BLOCK: Final = 64 * 1024
"""Octets of the hosts file that are searched together."""

_HOST_NAME: Final = pattern(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
_LITERAL: Final = pattern(r"\[(?:ipv6:)?([^\[\]]*)\]", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Host:
    """A host, with all its addresses in the order in which they are to be tried."""

    name: str
    """In lower case, without the last dot: the name that a TLS certificate is verified against.  An IP address, if the
    host was given as that.
    """
    preference: int
    addresses: tuple[str, ...]
    """IP addresses; at least one."""
    port: int


@dataclass(frozen=True, slots=True)
class MxHosts:
    """The hosts that take mail for a domain, in the order in which to try them; at least one."""

    hosts: tuple[Host, ...]
    notes: tuple[str, ...] = ()
    """The steps that led here, for `trimta route`: one sentence each."""


@dataclass(frozen=True, slots=True)
class RoutingFailure:
    """The reason why a domain or a route has no host."""

    status: EnhancedStatus
    """Of class 4 if the envelope is to be deferred, of class 5 if it has failed."""
    text: str
    """The reason in words, for logs and DSNs."""
    notes: tuple[str, ...] = ()


Routing: TypeAlias = MxHosts | RoutingFailure


class Resolver:
    """A resolver.  It reads no file and sends no packet before the first look-up.

    Each DNS question has `dns.timeout`; the questions of one look-up about different hosts are asked side by side, so
    that a look-up takes twice that time at most.
    """

    def __init__(
        self,
        config: DnsSection,
        *,
        hostname: str,
        is_self: Callable[[str, int], bool] = lambda address, port: False,
        allowed: Callable[[IPAddress], bool] = lambda address: True,
        rng: random.Random | None = None,
        hosts_file: Path = HOSTS_FILE,
        resolv_conf: Path = RESOLV_CONF,
        system_lookup: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
        """`is_self(address, port)`: whether trimta itself listens there.  `allowed(address)`: whether `[egress] allow`
        lets a nameserver be asked.  `rng` shuffles hosts of equal preference.
        """
        self._timeout = config.timeout
        self._zones = config.zones
        self._configured = bool(config.nameservers)
        self._hostname = host_key(hostname)
        self._is_self = is_self
        self._rng = rng or random.Random()
        self._hosts_file = hosts_file
        self._system_lookup = system_lookup or _getaddrinfo
        self._system_limiter = trio.CapacityLimiter(SYSTEM_LOOKUPS)
        self._file_limiter = trio.CapacityLimiter(1)
        self._client = DnsClient(config, allowed=allowed, resolv_conf=resolv_conf)

    async def resolve_mx(self, domain: str, *, port: int = 25) -> Routing:
        """The hosts that take mail for `domain`, a `Mailbox.domain_key`: A-labels, or an address literal."""
        literal = _LITERAL.fullmatch(domain)
        if literal is not None:
            return self._literal(literal[1], port)
        domain = host_key(domain)
        match await self._mx(domain):
            case NoSuchName():
                return RoutingFailure(NO_SUCH_DOMAIN.permanent, f"{domain}: there is no such domain (NXDOMAIN)")
            case DnsFailure(text):
                return RoutingFailure(DIRECTORY_FAILURE.transient, f"MX of {domain}: {text}")
            case NoData():
                return await self._implicit_mx(domain, port)
            case Records(values):
                return await self._explicit_mx(domain, values, port)

    async def resolve_host(self, name: str, *, port: int = 25) -> Routing:
        """The addresses of the host that a route names, which has no MX records: those of `[dns.zones]`, else of the
        hosts file, else of the configured nameservers, else of the system.  An IP address is its own.

        A failure is of class 4 whatever its cause: the route is this server's, not the message's, and may be mended.
        """
        address = _address(name.strip("[]"))
        if address is not None:
            return MxHosts((Host(address, 0, (address,), port),))
        name = host_key(name)
        match await self._host_addresses(name):
            case Records(values):
                return MxHosts((Host(name, 0, values, port),), (f"{name} is {_listed(values)}",))
            case DnsFailure(text):
                return RoutingFailure(DIRECTORY_FAILURE.transient, f"address of {name}: {text}")
            case NoSuchName():
                return RoutingFailure(BAD_CONFIGURATION.transient, f"the route's host {name} does not exist")
            case NoData():
                return RoutingFailure(BAD_CONFIGURATION.transient, f"the route's host {name} has no address")

    def _literal(self, text: str, port: int) -> Routing:
        address = _address(text)
        if address is None:
            return RoutingFailure(NO_SUCH_DOMAIN.permanent, f"[{text}] is not an IP address")
        note = f"{address} is an address literal: no MX look-up"
        if self._is_self(address, port):
            return RoutingFailure(ROUTING_LOOP.permanent, f"[{address}]:{port} is this server itself", (note,))
        return MxHosts((Host(address, 0, (address,), port),), (note,))

    async def _implicit_mx(self, domain: str, port: int) -> Routing:
        """A domain without an MX record is its own host (RFC 5321 5.1)."""
        notes = [f"{domain} has no MX record: its address records are used"]
        match await self._addresses(domain):
            case NoSuchName():
                return RoutingFailure(
                    NO_SUCH_DOMAIN.permanent, f"{domain}: there is no such domain (NXDOMAIN)", tuple(notes)
                )
            case DnsFailure(text):
                return RoutingFailure(DIRECTORY_FAILURE.transient, f"address of {domain}: {text}", tuple(notes))
            case NoData():
                return RoutingFailure(
                    UNROUTABLE.permanent, f"{domain} has neither an MX nor an address record", tuple(notes)
                )
            case Records(values, canonical):
                host = Host(domain, 0, values, port)
                if self._is_this_server(host, canonical):
                    return RoutingFailure(
                        ROUTING_LOOP.permanent, f"mail for {domain} loops back to this server", tuple(notes)
                    )
                return MxHosts((host,), tuple(notes))

    async def _explicit_mx(self, domain: str, records: Iterable[MxRecord], port: int) -> Routing:
        """The hosts that the MX records of a domain name (RFC 5321 5.1, RFC 7505)."""
        preferences: dict[str, int] = {}
        notes: list[str] = []
        is_null = False
        for record in sorted(records, key=lambda record: record.preference):
            name = record.host if record.host == "." else record.host.removesuffix(".").lower()
            if name == ".":
                is_null = True
                notes.append(f"MX {record.preference} . is a null MX")
            elif _address(name.strip("[]")) is not None:
                notes.append(f"MX {record.preference} {name} is skipped: an MX must be a name, not an IP address")
            elif _HOST_NAME.fullmatch(name) is None:
                notes.append(f"MX {record.preference} {name} is skipped: not a host name")
            else:
                preferences.setdefault(name, record.preference)
        if preferences:
            return await self._named_hosts(domain, preferences, notes, port)
        if is_null:
            return RoutingFailure(NULL_MX.permanent, f"{domain} does not accept mail (null MX)", tuple(notes))
        return RoutingFailure(UNROUTABLE.permanent, f"no MX of {domain} is a host name", tuple(notes))

    async def _named_hosts(self, domain: str, preferences: Mapping[str, int], notes: list[str], port: int) -> Routing:
        """The hosts of these names that have addresses and are to be tried, in order.  Where this server itself is
        among them, the hosts of its preference and of higher numbers are not (RFC 5321 5.1).
        """
        answers = await self._addresses_of_all(preferences)
        hosts: list[Host] = []
        failures: list[tuple[int, str]] = []
        limit = math.inf
        for name, preference in preferences.items():
            answer = answers[name]
            records: Records[str] = answer if isinstance(answer, Records) else Records((), name)
            host = Host(name, preference, records.values, port)
            if isinstance(answer, Records):
                hosts.append(host)
            else:
                notes.append(f"MX {preference} {name} is skipped: {_reason(answer)}")
            if isinstance(answer, DnsFailure):
                failures.append((preference, answer.text))
            if self._is_this_server(host, records.canonical):
                limit = min(limit, preference)
                notes.append(f"MX {preference} {name} is this server: it and those from {preference} on are dropped")
        usable = [host for host in hosts if host.preference < limit]
        failed = [text for preference, text in failures if preference < limit]
        if usable:
            return MxHosts(tuple(self._shuffled(usable)), tuple(notes))
        if failed:
            return RoutingFailure(DIRECTORY_FAILURE.transient, f"MX hosts of {domain}: {failed[0]}", tuple(notes))
        if limit < math.inf:
            text = f"mail for {domain} loops back to this server, its best MX"
            return RoutingFailure(ROUTING_LOOP.permanent, text, tuple(notes))
        return RoutingFailure(UNROUTABLE.permanent, f"no MX host of {domain} has an address", tuple(notes))

    def _shuffled(self, hosts: Iterable[Host]) -> list[Host]:
        """Lowest preference first, equal ones in random order, to spread the load (RFC 5321 5.1)."""
        ordered: list[Host] = []
        for _, group in groupby(sorted(hosts, key=lambda host: host.preference), key=lambda host: host.preference):
            equal = list(group)
            self._rng.shuffle(equal)
            ordered += equal
        return ordered

    def _is_this_server(self, host: Host, canonical: str) -> bool:
        return self._hostname in (host.name, canonical) or any(
            self._is_self(address, host.port) for address in host.addresses
        )

    async def _addresses_of_all(self, names: Iterable[str]) -> dict[str, Answer[str]]:
        answers: dict[str, Answer[str]] = {}

        async def look_up(name: str) -> None:
            answers[name] = await self._addresses(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(look_up, name)
        return answers

    async def _mx(self, domain: str) -> Answer[MxRecord]:
        zone = self._zones.get(domain)
        if zone is not None:
            return await self._failing(zone) or (Records(zone.mx, domain) if zone.mx else NoData())
        if _is_localhost(domain):
            return NoData()
        return await self._client.mx(domain)

    async def _addresses(self, name: str) -> Answer[str]:
        zone = self._zones.get(name)
        if zone is not None:
            values = tuple(str(address) for address in zone.address)
            return await self._failing(zone) or (Records(values, name) if values else NoData())
        if _is_localhost(name):
            return Records(LOOPBACK, name)  # never asked of DNS: RFC 6761 6.3
        return await self._client.addresses(name)

    async def _failing(self, zone: Zone) -> NoSuchName | DnsFailure | None:
        """The failure that a zone is configured for, after the time that it would take; None if there is none."""
        match zone.fail:
            case None:
                return None
            case DnsFail.NXDOMAIN:
                return NoSuchName()
            case DnsFail.SERVFAIL:
                return DnsFailure("[dns.zones] says SERVFAIL")
            case DnsFail.TIMEOUT:
                await trio.sleep(self._timeout)
                return DnsFailure(f"[dns.zones] says timeout: no answer within {self._timeout:g} s")

    async def _host_addresses(self, name: str) -> Answer[str]:
        if name in self._zones:
            return await self._addresses(name)
        listed = await self._listed_addresses(name)
        if isinstance(listed, DnsFailure):
            return listed
        if listed:
            return Records(listed, name)
        if self._configured or _is_localhost(name):
            return await self._addresses(name)
        return await self._ask_system(name)

    async def _listed_addresses(self, name: str) -> tuple[str, ...] | DnsFailure:
        """The addresses of a name in the hosts file.  Hosts files that block advertisements have 100 000 lines."""
        with trio.move_on_after(self._timeout):
            return await trio.to_thread.run_sync(
                _from_hosts_file, self._hosts_file, name, abandon_on_cancel=True, limiter=self._file_limiter
            )
        return DnsFailure(f"{self._hosts_file} could not be read within {self._timeout:g} s")

    async def _ask_system(self, name: str) -> Answer[str]:
        """The addresses that getaddrinfo gives, which knows search domains, mDNS and names of containers."""
        servers = await self._client.nameservers()
        refused = self._client.refused(servers) if servers else None
        if refused is not None:
            return refused
        with trio.move_on_after(self._timeout):
            try:
                addresses = await trio.to_thread.run_sync(
                    self._system_lookup, name, abandon_on_cancel=True, limiter=self._system_limiter
                )
            except socket.gaierror as error:
                if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                    return NoSuchName()
                return DnsFailure(error.strerror or str(error))
            except (OSError, UnicodeError) as error:
                return DnsFailure(str(error))
            return Records(tuple(dict.fromkeys(addresses)), name) if addresses else NoData()
        return DnsFailure(f"no answer from the system within {self._timeout:g} s")


def host_key(name: str) -> str:
    """The form in which names are compared and looked up: A-labels in lower case, without the last dot."""
    name = name.removesuffix(".").lower()
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        return name


def _address(text: str) -> str | None:
    """The canonical text of an IP address; None for a text that is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _reason(answer: NoData | NoSuchName | DnsFailure) -> str:
    """Why a host has no address, in words."""
    match answer:
        case NoData():
            return "it has no address"
        case NoSuchName():
            return "there is no such name"
        case DnsFailure(text):
            return text
        case _:
            assert_never(answer)


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join(addresses)


def _from_hosts_file(path: Path, name: str) -> tuple[str, ...]:
    """The addresses of a name in a hosts file, IPv4 and IPv6, in the order of its lines.  Blocks; however large the
    file is, the event loop gets the interpreter between two blocks.
    """
    octets = name.encode()
    addresses: list[str] = []
    begun = b""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            lines, newline, begun = (begun + block).rpartition(b"\n")
            if octets in lines.lower():
                _note_addresses(lines, name, addresses)
            if not newline and len(begun) > BLOCK:
                begun = b""  # no line with a name is so long
        _note_addresses(begun, name, addresses)
    return tuple(addresses)


def _note_addresses(lines: bytes, name: str, addresses: list[str]) -> None:
    """Append the addresses that lines of a hosts file have for a name, each once."""
    for line in lines.decode("utf-8", "replace").splitlines():
        match line.partition("#")[0].lower().split():
            case [text, *names] if name in names:
                address = _address(text)
                if address is not None and address not in addresses:
                    addresses.append(address)


def _getaddrinfo(name: str) -> list[str]:
    """The addresses that the system gives for a name.  Blocks.  Raises OSError or UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
