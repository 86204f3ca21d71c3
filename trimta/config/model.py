"""The effective configuration: frozen values, everything parsed and checked, every path absolute.

Durations are seconds (float), sizes octets (int), paths absolute.  `trimta.config.load` makes a Configuration of values
that are checked already, so no other module checks them again.
"""

from __future__ import annotations

import enum
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
    """How a listener has TLS: not at all, by STARTTLS (RFC 3207), or from the first octet (RFC 8314)."""

    NONE = "none"
    STARTTLS = "starttls"
    IMPLICIT = "implicit"


class DnsFail(enum.StrEnum):
    """How the look-up of a scripted zone fails."""

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
    """EHLO keywords in upper case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalSection:
    """[local]: which addresses have a mailbox here, and where it is."""

    maildir: str
    """A path with {user}, {domain}, {detail} in it; absolute."""
    domains: tuple[str, ...] = ("localhost", "dev.test")
    """As written; the hostname is local too and need not be among them."""
    users: Literal["any"] | tuple[str, ...] = "any"
    subaddress: str = "+"


@dataclass(frozen=True, slots=True, kw_only=True)
class RelaySection:
    """[relay]: who may send to domains that are not local."""

    networks: tuple[IPNetwork, ...] = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueSection:
    """[queue]: how long and how often undelivered mail is tried, and how many deliveries run at once."""

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
    """[limits]: what a client may send, and how many connections there may be."""

    message_size: int = 50 * MIB
    recipients: int = 1000
    connections: int = 1000
    connections_per_client: int = 100
    hops: int = 25
    errors: int = 20
    bare_newline: BareNewline = BareNewline.ACCEPT


@dataclass(frozen=True, slots=True)
class Nameserver:
    """A DNS server that is asked."""

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
    """[dns]: which nameservers are asked, and what is answered without them."""

    nameservers: tuple[Nameserver, ...] = ()
    """Empty: the system's."""
    timeout: float = 5 * SECOND
    zones: Mapping[str, Zone] = field(default_factory=lambda: MappingProxyType({}))
    """By name, in lower-case A-labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressSection:
    """[egress]: where connections may go to."""

    allow: tuple[IPNetwork, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

    def allows(self, address: IPAddress) -> bool:
        """Whether a connection to `address` may be made; an IPv4-mapped IPv6 address is judged as the IPv4 one."""
        return within(address, self.allow)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSection:
    """[tls]: the server's certificate, and the CA that a next hop's must come from."""

    certificate: Path | None = None
    """None: the development certificate in data_dir."""
    key: Path | None = None
    """There if and only if the certificate is."""
    ca: Path | None = None
    """None: the system's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthSection:
    """[auth]: who may log in."""

    any: bool = False
    insecure: bool = False
    users: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)
    """Name to password, or to its PHC hash ("$argon2id$…", "$scrypt$…")."""


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
    """Full address, domain, ".suffix" or "*" to where its mail goes; "*" is always there."""
    source: Path | None = field(default=None, compare=False)
    """The file that it was read from; None: the built-in defaults."""
    links: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    """Symbolic links on the way to the Maildirs of local mailboxes and of routes, each with the folder that it leads
    to, as they were when the configuration was read.
    """
    user: str = ""
    listen: tuple[ListenSection, ...] = (ListenSection(),)
    aliases: Mapping[str, tuple[Mailbox | str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """Local part or full address to addresses; a target that is a str is a local part."""
    relay: RelaySection = field(default_factory=RelaySection)
    queue: QueueSection = field(default_factory=QueueSection)
    timeouts: TimeoutsSection = field(default_factory=TimeoutsSection)
    limits: LimitsSection = field(default_factory=LimitsSection)
    dns: DnsSection = field(default_factory=DnsSection)
    egress: EgressSection = field(default_factory=EgressSection)
    tls: TlsSection = field(default_factory=TlsSection)
    auth: AuthSection = field(default_factory=AuthSection)
    faults: tuple[Fault, ...] = ()
