"""Routes: the ways in which mail leaves this server, or ends in it.  `config.route_syntax` reads them."""

from __future__ import annotations

import enum
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, assert_never

from trimta.first_use.pattern import pattern
from trimta.routing.maildir_paths import component, domain_set_apart, fill

if TYPE_CHECKING:
    from pathlib import Path

    from trimta.mail.status import EnhancedStatus

SMTP_PORT: Final = 25
SMTPS_PORT: Final = 465  # RFC 8314 7.3
MAX_PORT: Final = 65535

RECIPIENTS: Final = "{recipients}"
"""The word of a command that becomes one argument for each recipient."""

PLACEHOLDERS: Final = frozenset({"nexthop", "sender", "id"})
"""The names that the other words of a command may hold in braces."""

_NEEDS_NO_QUOTES: Final = pattern(r"[^\s'\"\\]+")


class RouteError(ValueError):
    """A route, or a table of routes, that can't be used; the message says what was found and what is expected.

    `key`: the key of the route in its table, if the route is in a table.  `option`: the wrong option of the route.
    """

    def __init__(self, message: str, *, key: str | None = None, option: str | None = None) -> None:
        super().__init__(message)
        self.key = key
        self.option = option


class TlsPolicy(enum.StrEnum):
    """The TLS that a connection to a next hop must have."""

    NONE = "none"
    MAY = "may"
    """STARTTLS if it is offered and works, else no TLS (RFC 7435)."""
    ENCRYPT = "encrypt"
    VERIFY = "verify"


@dataclass(frozen=True, slots=True, kw_only=True)
class MxRoute:
    """The route to the hosts that the MX records of the recipient's domain name (RFC 5321 5.1)."""

    port: int = SMTP_PORT
    tls: TlsPolicy = TlsPolicy.MAY

    @property
    def hop_options(self) -> str:
        """The options that differ from the usual ones, as part of the next hop: " port=26 tls=verify"."""
        return _options(
            port=str(self.port) if self.port != SMTP_PORT else None,
            tls=self.tls if self.tls is not TlsPolicy.MAY else None,
        )

    def __str__(self) -> str:
        return f"mx{self.hop_options}"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostRoute:
    """The route to one host, without an MX look-up.  Raises RouteError for options that exclude each other."""

    host: str = ""
    """A domain in lower case and A-labels, or an IP address without brackets; empty with a unix socket."""
    port: int = 0
    """The TCP port; 0 with a unix socket."""
    protocol: Literal["smtp", "lmtp"] = "smtp"
    unix_path: str | None = None
    tls: TlsPolicy = TlsPolicy.MAY
    implicit_tls: bool = False
    """Whether TLS begins with the first octet (RFC 8314 3.3); `tls` is then ENCRYPT or VERIFY."""
    username: str | None = None
    password_file: Path | None = None

    def __post_init__(self) -> None:
        if self.unix_path is not None:
            if self.host or self.port or self.implicit_tls:
                raise RouteError("a unix socket has neither host nor port nor implicit TLS")
        elif not self.host or not 1 <= self.port <= MAX_PORT:
            raise RouteError(f"expected a host and a port from 1 to {MAX_PORT}")
        if self.implicit_tls and self.tls in (TlsPolicy.NONE, TlsPolicy.MAY):
            raise RouteError(f'found "{self.tls}" with implicit TLS, expected "encrypt" or "verify"', option="tls")
        if (self.username is None) != (self.password_file is None):
            given, missing = (
                ("username", "password_file") if self.username is not None else ("password_file", "username")
            )
            raise RouteError(f"{given} needs {missing} beside it", option=given)

    @property
    def destination(self) -> str:
        """The host's address: "host:port", "[2001:db8::1]:port" or "unix:/path"."""
        if self.unix_path is not None:
            return f"unix:{self.unix_path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def transport(self) -> Literal["smtp", "smtps", "lmtp"]:
        """The word before the colon in the short form of the route."""
        return "smtps" if self.implicit_tls else self.protocol

    @property
    def short_form(self) -> str:
        """The route without its options: "smtps:host:port"."""
        return f"{self.transport}:{self.destination}"

    @property
    def hop_options(self) -> str:
        """The options that differ from the usual ones, as part of the next hop: " tls=verify username=u"."""
        usual = usual_tls(implicit=self.implicit_tls, unix_path=self.unix_path)
        return _options(tls=self.tls if self.tls is not usual else None, username=self.username)

    def __str__(self) -> str:
        return self.short_form + self.hop_options


@dataclass(frozen=True, slots=True)
class PipeRoute:
    """The route to the standard input of a command, which is run without a shell."""

    argv: tuple[str, ...]
    """The command's absolute path and its arguments, with placeholders."""

    def __str__(self) -> str:
        return "pipe:" + " ".join(word if _NEEDS_NO_QUOTES.fullmatch(word) else shlex.quote(word) for word in self.argv)


@dataclass(frozen=True, slots=True)
class MaildirRoute:
    """The route into a Maildir, which captures mail for elsewhere."""

    template: str
    """The path of the Maildir, with or without {domain} in it."""
    labels_apart: bool = False
    """Whether a domain that is a single label needs `domain_set_apart`: its folder may be a local user's Maildir."""

    def path(self, domain_key: str) -> str:
        """The Maildir that captures mail for a domain."""
        return fill(self.template, domain=(domain_set_apart if self.labels_apart else component)(domain_key))

    def __str__(self) -> str:
        return f"maildir:{self.template}"


@dataclass(frozen=True, slots=True)
class DiscardRoute:
    """The route of mail that is accepted and dropped."""

    def __str__(self) -> str:
        return "discard"


@dataclass(frozen=True, slots=True)
class RejectRoute:
    """The route of mail that is refused at RCPT.

    Raises RouteError for a reply that refuses nothing, and for a code and status that disagree.
    """

    code: int
    status: EnhancedStatus | None
    text: str

    def __post_init__(self) -> None:
        if not (400 <= self.code <= 599 and self.code // 10 % 10 <= 5):
            raise RouteError(f"found reply code {self.code}, expected 4xx or 5xx")
        if self.code == 421:
            raise RouteError("found reply code 421, which ends a session; expected another 4xx, or 5xx")
        if self.status is not None and self.status.klass != self.code // 100:
            raise RouteError(f"found status {self.status} with code {self.code}, expected {self.code // 100}.x.x")
        if not self.text or not self.text.isprintable():
            raise RouteError("expected a text of printable characters after the reply code")

    @property
    def reply(self) -> str:
        """The negative reply on one line: "550 5.7.1 text"."""
        return " ".join(str(element) for element in (self.code, self.status, self.text) if element is not None)

    def __str__(self) -> str:
        return f"reject:{self.reply}"


@dataclass(frozen=True, slots=True)
class HoldRoute:
    """The route of mail that stays in the queue until the operator releases it."""

    def __str__(self) -> str:
        return "hold"


Route: TypeAlias = MxRoute | HostRoute | PipeRoute | MaildirRoute | DiscardRoute | RejectRoute | HoldRoute


def describe(route: Route) -> str:
    """The route as a phrase for people: "captured in maildir-example/remote"."""
    match route:
        case MxRoute():
            return "sent by MX look-up"
        case HostRoute(protocol="lmtp"):
            return f"relayed by LMTP to {route.destination}"
        case HostRoute():
            return f"relayed to {route.destination}"
        case PipeRoute():
            return f"piped to {route.argv[0]}"
        case MaildirRoute():
            return f"captured in {route.template}"
        case DiscardRoute():
            return "discarded"
        case RejectRoute():
            return f"refused with {route.reply}"
        case HoldRoute():
            return "held in the queue"
        case _:
            assert_never(route)


def next_hop(route: Route, domain_key: str) -> str:
    """The next hop of mail with this route, as the queue keeps it: the domain for mx, host and port for smtp and lmtp.

    `per_domain` limits the connections to a next hop.  Options that differ from the usual ones are part of it: a host
    that fails with the options of one route may work with those of another.
    """
    match route:
        case MxRoute():
            return domain_key + route.hop_options
        case HostRoute():
            return route.destination + route.hop_options
        case PipeRoute():
            return f"pipe:{route.argv[0]}"
        case MaildirRoute():
            return f"maildir:{route.path(domain_key)}"
        case DiscardRoute():
            return "discard"
        case RejectRoute():
            return "reject"
        case HoldRoute():
            return "hold"
        case _:
            assert_never(route)


def usual_tls(*, implicit: bool, unix_path: str | None) -> TlsPolicy:
    """The TLS policy of a route to one host without the option `tls`."""
    if implicit:
        return TlsPolicy.ENCRYPT
    return TlsPolicy.MAY if unix_path is None else TlsPolicy.NONE  # a unix socket can't be tapped


def _options(**options: str | None) -> str:
    return "".join(f" {name}={value}" for name, value in options.items() if value is not None)
