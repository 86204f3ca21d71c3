"""The effective configuration: frozen values, everything parsed and checked, every path absolute.

Durations are seconds (float), sizes octets (int), paths absolute.  `trimta.config.load` makes a Configuration of values
that are checked already, so no other module checks them again.
"""

from __future__ import annotations

import enum
import os
from dataclasses import dataclass, field
from ipaddress import ip_network
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from trimta.routing.networks import within
from trimta.smtp.extensions import MailProtocol
from trimta.smtp.server_settings import AuthPolicy, BareNewline

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trimta.mail.address import IPAddress, Mailbox
    from trimta.mail.status import EnhancedStatus
    from trimta.routing.networks import IPNetwork
    from trimta.routing.routes import Route

SECOND: Final = 1.0
MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86400.0

KIB: Final = 1024
MIB: Final = 1024 * KIB


class ListenTls(enum.StrEnum):
    """The TLS of a listener: none, by STARTTLS (RFC 3207), or from the first octet (RFC 8314)."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class DnsFail(enum.StrEnum):
    """The failure of the look-up of a scripted zone."""

    NXDOMAIN = "nxdomain"
    SERVFAIL = "servfail"
    TIMEOUT = "timeout"


class FaultStage(enum.StrEnum):
    """The point of a session at which a scripted fault strikes."""

    CONNECT = "connect"
    HELO = "helo"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    BODY = "body"
    COMMITTED = "committed"
    QUIT = "quit"


@dataclass(frozen=True, slots=True)
class InetAddress:
    """An address and port of TCP: `host` is an IP address without brackets, or "localhost"; port 0 is any free one."""

    host: str
    port: int

    @property
    def hosts(self) -> tuple[str, ...]:
        """The IP addresses to bind, the same port on each; those of a family that the machine lacks are left out."""
        return ("127.0.0.1", "::1") if self.host == "localhost" else (self.host,)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A unix stream socket."""

    path: Path

    def __str__(self) -> str:
        return f"unix:{self.path}"


ListenAddress: TypeAlias = InetAddress | UnixAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenSection:
    """One [[listen]]: a listener."""

    address: ListenAddress = InetAddress("localhost", 2525)
    protocol: MailProtocol = MailProtocol.SMTP
    tls: ListenTls = ListenTls.NONE
    auth: AuthPolicy = AuthPolicy.OPTIONAL
    hide: frozenset[str] = frozenset()
    """The EHLO keywords, in upper case, that are not offered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSection:
    """[local]: the addresses that have a mailbox here, and the paths of their Maildirs."""

    maildir: str
    """The path of a Maildir, with {user}, {domain} and {detail} in it; absolute."""
    domains: tuple[str, ...] = ("localhost", "dev.test")
    """The local domains as written; the hostname is local, too, and need not be among them."""
    users: Literal["any"] | tuple[str, ...] = "any"
    subaddress: str = "+"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySection:
    """[relay]: the clients that may send to domains that are not local."""

    networks: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSection:
    """[queue]: the retry schedule of undelivered mail, and the number of deliveries at the same time."""

    retry: tuple[float, ...] = (1 * MINUTE, 5 * MINUTE, 15 * MINUTE, 1 * HOUR, 4 * HOUR)
    lifetime: float = 5 * DAY
    delay_warning: float = 4 * HOUR
    concurrency: int = 100
    per_domain: int = 5
    recipients_per_transaction: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutsSection:
    """[timeouts], in seconds (RFC 5321 4.5.3.2); each is for a whole reply, not for one read."""

    idle: float = 5 * MINUTE
    connect: float = 30 * SECOND
    greeting: float = 5 * MINUTE
    command: float = 5 * MINUTE
    data: float = 3 * MINUTE
    data_done: float = 10 * MINUTE
    delivery: float = 30 * MINUTE
    shutdown: float = 10 * SECOND


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSection:
    """[limits]: the sizes and numbers that a client may send, and the number of connections."""

    message_size: int = 50 * MIB
    recipients: int = 1000
    connections: int = 1000
    connections_per_client: int = 100
    hops: int = 25
    errors: int = 20
    bare_newline: BareNewline = BareNewline.ACCEPT


@dataclass(frozen=True, slots=True)
class Nameserver:
    """The address of a DNS server."""

    address: IPAddress
    port: int = 53

    def __str__(self) -> str:
        if self.port == 53:
            return str(self.address)
        return f"[{self.address}]:{self.port}" if self.address.version == 6 else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class MxRecord:
    """An MX record (RFC 5321 5.1).  `host` is "." in a null MX (RFC 7505), else a domain in lower-case A-labels without
    the last dot.
    """

    preference: int
    host: str

    def __str__(self) -> str:
        return f"{self.preference} {self.host}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """The scripted DNS answers for one name; with `fail` there is no answer."""

    mx: tuple[MxRecord, ...] = ()
    address: tuple[IPAddress, ...] = ()
    fail: DnsFail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSection:
    """[dns]: the nameservers, and the scripted zones, for which no nameserver is asked."""

    nameservers: tuple[Nameserver, ...] = ()
    """The nameservers to ask; empty for those of the system."""
    timeout: float = 5 * SECOND
    zones: Mapping[str, Zone] = field(default_factory=lambda: MappingProxyType({}))
    """The scripted zones by name, in lower-case A-labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSection:
    """[egress]: the networks to which connections may be made."""

    allow: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

    def allows(self, address: IPAddress) -> bool:
        """Whether a connection to `address` may be made; an IPv4-mapped IPv6 address is judged as the IPv4 one."""
        return within(address, self.allow)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSection:
    """[tls]: the server's certificate, and the CA that a next hop's must come from."""

    certificate: Path | None = None
    """The file of the certificate; None for the development certificate in data_dir."""
    key: Path | None = None
    """The file of the certificate's key; None if and only if `certificate` is None."""
    ca: Path | None = None
    """The file of the CAs for next hops; None for those of the system."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """[auth]: the users who may log in."""

    any: bool = False
    insecure: bool = False
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """The password of each name, or its PHC hash ("$argon2id$…", "$scrypt$…")."""


@dataclass(frozen=True, slots=True)
class FaultReply:
    """The reply of a scripted fault."""

    code: int
    status: EnhancedStatus | None
    text: str

    def __str__(self) -> str:
        return " ".join(str(element) for element in (self.code, self.status, self.text) if element not in (None, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One [[faults]]; at least one of reply, delay, drop.  Globs that are None match everything."""

    stage: FaultStage
    recipient: str | None = None
    sender: str | None = None
    client: str | None = None
    reply: FaultReply | None = None
    delay: float = 0.0
    drop: bool = False
    times: int | None = None
    probability: float | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The configuration of one server: every table of conf.toml."""

    hostname: str
    data_dir: Path
    local: LocalSection
    routes: Mapping[str, Route]
    """The routes by full address, domain, ".suffix" or "*", which is always there."""
    source: Path | None = field(default=None, compare=False)
    """The file of the configuration; None for the built-in defaults."""
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """The symbolic links in the paths of Maildirs when the configuration was read, each with the folder it leads to."""
    user: str = ""
    workers: int | Literal["auto"] = 1
    """The number of processes that have sessions; "auto": one for each processor that this process may use."""
    listen: tuple[ListenSection, ...] = (ListenSection(),)
    aliases: Mapping[str, tuple[Mailbox | str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """The targets of each local part or full address; a target that is a str is a local part."""
    relay: RelaySection = field(default_factory=RelaySection)
    queue: QueueSection = field(default_factory=QueueSection)
    timeouts: TimeoutsSection = field(default_factory=TimeoutsSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    dns: DnsSection = field(default_factory=DnsSection)
    egress: EgressSection = field(default_factory=EgressSection)
    tls: TlsSection = field(default_factory=TlsSection)
    auth: AuthSection = field(default_factory=AuthSection)
    faults: tuple[Fault, ...] = ()

    @property
    def worker_count(self) -> int:
        """The number of processes that have sessions; 1: the server is one process."""
        return len(os.sched_getaffinity(0)) if self.workers == "auto" else self.workers
