"""Where mail for a domain goes: MX routing (RFC 5321 section 5, RFC 7505), `[dns.zones]`, hosts of `smtp:` routes.

The answers are values: hosts in the order in which they are to be tried, or why there are none, with the enhanced
status of the outcome.  `[dns.zones]` is asked first and, for the names in it, alone.
"""

from __future__ import annotations

import contextlib
import random
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import idna
import trio

from trimta.config.model import DnsFail, MxRecord
from trimta.mail.status import (
    BAD_CONFIGURATION,
    DIRECTORY_FAILURE,
    NO_SUCH_DOMAIN,
    NULL_MX,
    ROUTING_LOOP,
    UNROUTABLE,
    EnhancedStatus,
)
from trimta.outbound.dns_client import RESOLV_CONF, Answer, DnsClient, NoData, NoName, Records, Trouble

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trimta.config.model import Dns, Zone
    from trimta.mail.address import IPAddress

HOSTS_FILE: Final = Path("/etc/hosts")
LOOPBACK: Final = ("127.0.0.1", "::1")
SYSTEM_LOOKUPS: Final = 16
"""Threads in getaddrinfo at once; one that hangs keeps its thread, and Trio's default limiter is everybody's."""

BLOCK: Final = 64 * 1024
"""Octets of the hosts file that are looked at together."""


_HOST_NAME: Final = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)
_LITERAL: Final = re.compile(r"\[(?:ipv6:)?([^\[\]]*)\]", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Host:
    """One host to try, with all its addresses in the order in which to try them."""

    name: str
    """Lower case, no last dot; what TLS verification compares.  For an address: the address."""
    preference: int
    addresses: tuple[str, ...]
    """IP addresses; at least one."""
    port: int


@dataclass(frozen=True, slots=True)
class MxHosts:
    """The hosts that take mail for a domain, in the order in which to try them; at least one."""

    hosts: tuple[Host, ...]
    notes: tuple[str, ...] = ()
    """How it came to this, for `trimta route`: one sentence each."""


@dataclass(frozen=True, slots=True)
class RoutingFailure:
    """Nowhere to go.  Class 4: the envelope is deferred; class 5: it failed."""

    status: EnhancedStatus
    text: str
    notes: tuple[str, ...] = ()


Routing: TypeAlias = MxHosts | RoutingFailure


class Resolver:
    """Finds the hosts of a domain and the addresses of a host.  Costs nothing until it is asked.

    `is_self(address, port)`: whether trimta itself listens there.  `allowed(address)`: `[egress] allow`, asked of every
    nameserver before it is.  `rng` shuffles hosts of equal preference.  Each DNS question has `dns.timeout`; the
    questions of one look-up about different hosts are asked side by side, so a look-up takes twice that at most.
    """

    def __init__(
        self,
        config: Dns,
        *,
        hostname: str,
        is_self: Callable[[str, int], bool] = lambda address, port: False,
        allowed: Callable[[IPAddress], bool] = lambda address: True,
        rng: random.Random | None = None,
        hosts_file: Path = HOSTS_FILE,
        resolv_conf: Path = RESOLV_CONF,
        system_lookup: Callable[[str], Sequence[str]] | None = None,
    ) -> None:
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
        """The hosts for mail to `domain`: a `Mailbox.domain_key`, that is A-labels or an address literal."""
        literal = _LITERAL.fullmatch(domain)
        if literal is not None:
            return self._literal(literal[1], port)
        domain = host_key(domain)
        match await self._mx(domain):
            case NoName():
                return RoutingFailure(NO_SUCH_DOMAIN.permanent, f"{domain}: there is no such domain (NXDOMAIN)")
            case Trouble(text):
                return RoutingFailure(DIRECTORY_FAILURE.transient, f"MX of {domain}: {text}")
            case NoData():
                return await self._implicit_mx(domain, port)
            case Records(values):
                return await self._explicit_mx(domain, values, port)

    async def resolve_host(self, name: str, *, port: int = 25) -> Routing:
        """The addresses of a host named in a route, without MX: of an IP address, itself; of a name, what
        `[dns.zones]`, else the hosts file, else the configured nameservers, else the system says.

        A failure is class 4 whatever its cause: the route is this server's, not the message's, and may be mended.
        """
        address = _address(name.strip("[]"))
        if address is not None:
            return MxHosts((Host(address, 0, (address,), port),))
        name = host_key(name)
        match await self._host_addresses(name):
            case Records(values):
                return MxHosts((Host(name, 0, values, port),), (f"{name} is {_listed(values)}",))
            case Trouble(text):
                return RoutingFailure(DIRECTORY_FAILURE.transient, f"address of {name}: {text}")
            case NoName():
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
        """No MX record: the domain is its own mail host (RFC 5321 5.1)."""
        notes = [f"{domain} has no MX record: its address records are used"]
        match await self._addresses(domain):
            case NoName():
                return RoutingFailure(
                    NO_SUCH_DOMAIN.permanent, f"{domain}: there is no such domain (NXDOMAIN)", tuple(notes)
                )
            case Trouble(text):
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
        wanted: dict[str, int] = {}
        notes: list[str] = []
        null = False
        for record in sorted(records, key=lambda record: record.preference):
            name = record.host if record.host == "." else record.host.removesuffix(".").lower()
            if name == ".":
                null = True
                notes.append(f"MX {record.preference} . is a null MX")
            elif _address(name.strip("[]")) is not None:
                notes.append(f"MX {record.preference} {name} is skipped: an MX must be a name, not an IP address")
            elif _HOST_NAME.fullmatch(name) is None:
                notes.append(f"MX {record.preference} {name} is skipped: not a host name")
            else:
                wanted.setdefault(name, record.preference)
        if not wanted:
            if null:
                return RoutingFailure(NULL_MX.permanent, f"{domain} does not accept mail (null MX)", tuple(notes))
            return RoutingFailure(UNROUTABLE.permanent, f"no MX of {domain} is a host name", tuple(notes))

        answers = await self._addresses_of_all(wanted)
        hosts: list[tuple[Host, str]] = []
        troubles: list[tuple[int, str]] = []
        limit: int | None = None  # the best preference at which this server itself is
        for name, preference in wanted.items():
            addresses: tuple[str, ...] = ()
            canonical = name
            match answers[name]:
                case Records(addresses, canonical):
                    pass
                case Trouble(text):
                    troubles.append((preference, text))
                    notes.append(f"MX {preference} {name} is skipped: {text}")
                case NoName():
                    notes.append(f"MX {preference} {name} is skipped: there is no such name")
                case NoData():
                    notes.append(f"MX {preference} {name} is skipped: it has no address")
            host = Host(name, preference, addresses, port)
            if self._is_this_server(host, canonical):
                limit = preference if limit is None else min(limit, preference)
                notes.append(f"MX {preference} {name} is this server: it and those from {preference} on are dropped")
            if addresses:
                hosts.append((host, canonical))

        usable = [host for host, _ in hosts if limit is None or host.preference < limit]
        waiting = [text for preference, text in troubles if limit is None or preference < limit]
        if usable:
            return MxHosts(tuple(self._shuffled(usable)), tuple(notes))
        if waiting:
            return RoutingFailure(DIRECTORY_FAILURE.transient, f"MX hosts of {domain}: {waiting[0]}", tuple(notes))
        if limit is not None:
            return RoutingFailure(
                ROUTING_LOOP.permanent, f"mail for {domain} loops back to this server, its best MX", tuple(notes)
            )
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

        async def one(name: str) -> None:
            answers[name] = await self._addresses(name)

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)
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

    async def _failing(self, zone: Zone) -> NoName | Trouble | None:
        """How a scripted zone fails, after the time that it would take."""
        match zone.fail:
            case None:
                return None
            case DnsFail.NXDOMAIN:
                return NoName()
            case DnsFail.SERVFAIL:
                return Trouble("[dns.zones] says SERVFAIL")
            case DnsFail.TIMEOUT:
                await trio.sleep(self._timeout)
                return Trouble(f"[dns.zones] says timeout: no answer within {self._timeout:g} s")

    async def _host_addresses(self, name: str) -> Answer[str]:
        if name in self._zones:
            return await self._addresses(name)
        listed = await self._listed_addresses(name)
        if isinstance(listed, Trouble):
            return listed
        if listed:
            return Records(listed, name)
        if self._configured or _is_localhost(name):
            return await self._addresses(name)
        return await self._ask_system(name)

    async def _listed_addresses(self, name: str) -> tuple[str, ...] | Trouble:
        """What the hosts file says; those that block advertisements have 100 000 lines."""
        with trio.move_on_after(self._timeout):
            return await trio.to_thread.run_sync(
                _from_hosts_file, self._hosts_file, name, abandon_on_cancel=True, limiter=self._file_limiter
            )
        return Trouble(f"{self._hosts_file} could not be read within {self._timeout:g} s")

    async def _ask_system(self, name: str) -> Answer[str]:
        """getaddrinfo, as every other program on this machine: search domains, mDNS, container names."""
        servers = await self._client.nameservers()
        refused = self._client.refused(servers) if servers else None
        if refused is not None:
            return refused
        with trio.move_on_after(self._timeout):
            try:
                found = await trio.to_thread.run_sync(
                    self._system_lookup, name, abandon_on_cancel=True, limiter=self._system_limiter
                )
            except socket.gaierror as error:
                if error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)):
                    return NoName()
                return Trouble(error.strerror or str(error))
            except (OSError, UnicodeError) as error:
                return Trouble(str(error))
            return Records(tuple(dict.fromkeys(found)), name) if found else NoData()
        return Trouble(f"no answer from the system within {self._timeout:g} s")


def host_key(name: str) -> str:
    """The form in which names are compared and asked: lower-case A-labels without the last dot."""
    name = name.removesuffix(".").lower()
    if name.isascii():
        return name
    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError:
        return name


def _address(text: str) -> str | None:
    """The canonical text of an IP address; None if it is none."""
    try:
        return str(ip_address(text))
    except ValueError:
        return None


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


def _listed(addresses: Iterable[str]) -> str:
    return ", ".join(addresses)


def _from_hosts_file(path: Path, name: str) -> tuple[str, ...]:
    """The addresses that /etc/hosts gives for a name, IPv4 and IPv6, in its order.  Blocking; whatever the file's size,
    the interpreter is let go between blocks, since the event loop needs it.
    """
    wanted = name.encode()
    found: list[str] = []
    begun = b""
    with contextlib.suppress(OSError), path.open("rb", buffering=0) as file:
        while block := file.read(BLOCK):
            lines, newline, begun = (begun + block).rpartition(b"\n")
            if wanted in lines.lower():
                _note_addresses(lines, name, found)
            if not newline and len(begun) > BLOCK:
                begun = b""  # no line of this kind is so long
        _note_addresses(begun, name, found)
    return tuple(found)


def _note_addresses(lines: bytes, name: str, found: list[str]) -> None:
    for line in lines.decode("utf-8", "replace").splitlines():
        match line.partition("#")[0].lower().split():
            case [text, *names] if name in names:
                address = _address(text)
                if address is not None and address not in found:
                    found.append(address)


def _getaddrinfo(name: str) -> list[str]:
    """Blocking: runs in a thread."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
